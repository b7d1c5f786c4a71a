"""Preferences from files, data sets and memory, in any of the known formats."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import datasets
import pyarrow as pa
from datasets.table import InMemoryTable

from popmargin.data.formats import (
    ALIASES,
    FORMATS,
    Format,
    Meaning,
    Reader,
    detect_format,
    names_for,
    resolve_names,
    settle,
    unused_columns,
)
from popmargin.data.formats.columns import normal_name
from popmargin.data.locate import open_source
from popmargin.data.pairs import Pairing, check_pairing
from popmargin.data.schema import (
    TEXT_COLUMNS,
    LoadReport,
    Preferences,
    RowProblem,
    Text,
    arrow_schema,
    holds_tools,
    prompt_key,
)
from popmargin.data.sources import RawBatch, Source
from popmargin.data.validate import (
    Draft,
    IdGiver,
    RowError,
    check_draft,
    describe_problems,
    exchange,
    prefers_rejected,
    raise_problems,
)
from popmargin.errors import ConfigError, DataError, did_you_mean

BadRows = Literal["error", "drop"]
Ties = Literal["drop", "keep"]


def load_preferences(
    source: str | Path | Sequence[str | Path] | datasets.Dataset | datasets.DatasetDict | list[dict[str, Any]],
    *,
    format: str = "auto",
    split: str | None = None,
    pairs: Pairing = "best_vs_worst",
    min_gap: float = 0.0,
    seed: int = 0,
    bad_rows: BadRows = "error",
    columns: Mapping[str, str] | None = None,
    ties: Ties = "drop",
) -> Preferences:
    """Load preferences; every row is kept or reported (`.report`), none is skipped silently.

    Where `soft_label`, the probability that chosen is better, is below ½, chosen and rejected change places with their
    ratings, the label becomes 1 − p and a strength changes its sign; the report counts these rows. Ratings or a
    strength that say the opposite of the label make a row unusable.

    Args:
        source: a file (.jsonl, .json, .csv, .tsv, .parquet, each also .gz), a glob, a folder of such files or of
            `Dataset.save_to_disk`, a hub id; several of these in a list or with commas between; a `datasets.Dataset`,
            or a list of dictionaries. `name:split` names the split of a folder or hub id.
        format: a name in `popmargin.data.formats.FORMATS`, or "auto" to detect it from the columns.
        split: the split of a data set that has several.
        pairs: how rated responses become pairs: "best_vs_worst", "best_vs_random" or "all".
        min_gap: least strength (rating gap, in the ratings' unit) of a preference; weaker ones are left out and
            reported, and so are rows of unknown strength if it is above 0. A pair that is given as chosen and rejected
            with equal ratings is no tie.
        seed: seed of "best_vs_random".
        bad_rows: "error" raises if a row is unusable; "drop" leaves such rows out and reports each.
        columns: our field -> the source's column, e.g. {"prompt": "question"}; "text" and "rating" name the fields
            of each rated response.
        ties: "drop" leaves out and reports rated responses, signed strengths, winners and votes that prefer neither;
            "keep" makes them preferences of strength 0, as those who are to label them need.

    Raises:
        DataError: unreadable source, unknown or ambiguous format, unusable rows, or no row left.
        ConfigError: an unknown option value.

    Example:
        >>> prefs = load_preferences([{"prompt": "2+2?", "chosen": "4", "rejected": "5", "margin": 2.0}])
        >>> len(prefs), prefs.strength.tolist(), prefs.report.columns_used["strength"]
        (1, [2.0], 'margin')
    """
    if bad_rows not in ("error", "drop"):
        raise ConfigError(f"bad_rows='{bad_rows}' is unknown. {did_you_mean(bad_rows, ['error', 'drop'])}")
    preferences, report = scan_preferences(
        source, format=format, split=split, pairs=pairs, min_gap=min_gap, seed=seed, columns=columns, ties=ties
    )
    if bad_rows == "error":
        raise_problems(report.problems, report.rows_in)
    if preferences is None:
        raise DataError(
            f"{report.source}: none of {report.rows_in} rows is usable.\n{describe_problems(report.problems)}\n"
            "Remedy: fix the rows named above."
            if report.rows_in
            else f"{report.source}: there are no rows. Remedy: give at least one."
        )
    return preferences


def scan_preferences(
    source: object,
    *,
    format: str = "auto",
    split: str | None = None,
    pairs: str = "best_vs_worst",
    min_gap: float = 0.0,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    ties: str = "drop",
) -> tuple[Preferences | None, LoadReport]:
    """Read everything and report every problem; the preferences are None if no row is usable.

    Args: as in `load_preferences`.

    Raises:
        DataError: unreadable source, or unknown or ambiguous format.
        ConfigError: an unknown option value.
    """
    check_pairing(pairs, min_gap)
    if format != "auto" and format not in FORMATS:
        raise ConfigError(f"format='{format}' is unknown. {did_you_mean(format, ['auto', *FORMATS])}")
    if ties not in ("drop", "keep"):
        raise ConfigError(f"ties='{ties}' is unknown. {did_you_mean(ties, ['drop', 'keep'])}")
    opened = open_source(source, split=split)
    collector = _Collector(opened, format, Reader({}, pairs=pairs, min_gap=min_gap, seed=seed, ties=ties), columns)
    for batch in opened.batches():
        collector.add(batch)
    return collector.finish()


@dataclass
class _Group:
    """The rated responses to one prompt, of a layout with one response a row."""

    row: dict[str, Any]
    place: "_Place"
    rows: int = 0


@dataclass(frozen=True)
class _Place:
    """Where a row is."""

    source: Source
    position: int


_CONTEXT = {alias for name in ("prompt", "system") for alias in ALIASES[name]} | {"history", "chat_history"}


class _Collector:
    """Turns raw batches into Arrow tables of the schema, and keeps the account of what was left out."""

    def __init__(self, source: Source, format: str, options: Reader, columns: Mapping[str, str] | None) -> None:
        self._source = source
        self._format_name = format
        self._reader = options
        self._columns = columns
        self._format: Format | None = None
        self._found: dict[str, None] = {}
        self._names: dict[str, str] = {}
        self._meaning: Meaning | None = None
        self._facts: dict[str, None] = {}
        self._groups: dict[str, _Group] = {}
        self._ids = IdGiver()
        self._conversational: bool | None = None
        self._tools = False
        self._tables: list[Any] = []
        self._problems: list[RowProblem] = []
        self._source_rows = self._rows_in = self._rows_kept = self._turned = 0

    def add(self, batch: RawBatch) -> None:
        """Read one batch."""
        source = batch.source or self._source
        self._source_rows += len(batch)
        self._facts.update(
            dict.fromkeys(batch.facts if batch.source is None else map(f"{source.name}: {{}}".format, batch.facts))
        )
        self._reader.notes.update(batch.notes)
        for position, error in batch.broken:
            self._reject(_Place(source, position), [error])
        if not batch.rows:
            return
        self._prepare(batch, source)
        kept: list[Draft] = []
        for row, position in zip(batch.rows, batch.positions, strict=True):
            kept += self._read(row, _Place(source, position))
        self._store(kept)

    def _read(self, row: Mapping[str, Any], place: _Place) -> list[Draft]:
        """The preferences of a row; what is none is reported."""
        entry, reader = cast(Format, self._format), self._reader
        try:
            if entry.single is not None:
                self._gather(row, *entry.single(row, reader), place)
                return []
            return self._accept(entry.read(row, reader), place)
        except RowError as error:
            return self._accept([error], place)

    def _accept(self, drafts: Sequence[Draft | RowError], place: _Place) -> list[Draft]:
        kept: list[Draft] = []
        for draft in drafts:
            errors = [draft] if isinstance(draft, RowError) else self._errors(draft)
            if errors:
                self._reject(place, errors)
            else:
                self._rows_in += 1
                kept.append(cast(Draft, draft))
        return kept

    def _store(self, kept: list[Draft]) -> None:
        if kept:
            self._rows_kept += len(kept)
            self._tools = self._tools or any(holds_tools([draft[name] for name in TEXT_COLUMNS]) for draft in kept)
            schema = arrow_schema(conversational=bool(self._conversational), tools=bool(self._conversational))
            self._tables.append(pa.Table.from_pylist(kept, schema=schema))

    def _gather(self, row: Mapping[str, Any], prompt: Text, response: Text, rating: float, place: _Place) -> None:
        """Put the rated response of a row to those of its prompt."""
        system, tools = self._reader.value(row, "system"), self._reader.value(row, "tools")
        key = json.dumps([prompt_key(prompt), str(system or ""), str(tools or "")])
        if key not in self._groups:
            gathered = {"prompt": prompt, "system": system, "tools": tools, "responses": [], "ratings": []}
            self._groups[key] = _Group(gathered, place)
        group = self._groups[key]
        group.rows += 1
        group.row["responses"].append(response)
        group.row["ratings"].append(rating)

    def _pair_groups(self) -> None:
        """Make preferences of the gathered responses, and say what became of the rows."""
        entry = cast(Format, self._format)
        names = {"prompt": "prompt"} | {name: name for name in ("system", "tools") if name in self._names}
        reader = replace(self._reader, names=names)
        kept: list[Draft] = []
        before, rows = self._rows_in, sum(group.rows for group in self._groups.values())
        for group in self._groups.values():
            try:
                drafts = entry.read(group.row, reader)
            except RowError as error:
                drafts = [error]
            kept += self._accept(drafts, group.place)
        self._store(kept)
        lone = sum(group.rows == 1 for group in self._groups.values())
        self._facts[
            f"rows with one rated response each: {rows}, prompts: {len(self._groups)}, prompts with a single row: "
            f"{lone}; candidate pairs ({reader.pairs}): {self._rows_in - before} = {len(kept)} kept + "
            f"{self._rows_in - before - len(kept)} reported"
        ] = None

    def _prepare(self, batch: RawBatch, source: Source) -> None:
        """Columns may first appear late in a file; the format and what a column means are those of the first batch."""
        rows, known = batch.rows, len(self._found)
        self._found.update(dict.fromkeys(str(name) for row in rows for name in row))
        found = list(self._found)
        nested = self._reader.nested
        try:
            if known != len(found):
                candidates, nested = self._resolve(rows, found)
                if self._format is None:
                    self._format = FORMATS.get(self._format_name) or detect_format(rows[:100], found, candidates)
                self._names = names_for(self._format, found, candidates)
        except DataError as error:
            raise DataError(f"{self._source.name}: {error}") from None
        self._reader = replace(
            self._reader, names=self._names, nested=nested, text_cells=source.text_cells,
            decimal_comma=batch.decimal_comma, ends=self._meaning.ends if self._meaning is not None else None,
        )  # fmt: skip

    def _resolve(
        self, rows: Sequence[Mapping[str, Any]], found: Sequence[str]
    ) -> tuple[dict[str, list[str]], dict[str, str]]:
        """Candidates for each field, with what is known about a column of winners or strengths."""
        candidates, nested = resolve_names(found, self._columns)
        if self._meaning is None:
            self._meaning = settle(rows, candidates, self._columns or {}, self._format_name)
            if self._meaning.note is not None:
                self._facts[self._meaning.note] = None
        for name, column in self._meaning.columns.items():
            candidates = {field: [hit for hit in hits if hit != column] for field, hits in candidates.items()}
            candidates[name] = [column]
        return {name: hits for name, hits in candidates.items() if hits}, nested

    def _errors(self, draft: Draft) -> list[RowError]:
        errors = check_draft(draft)
        conversational = not isinstance(draft["prompt"], str)
        if self._conversational is None:
            if errors:
                return errors
            self._conversational = conversational
        if conversational != self._conversational:
            kinds = ("text", "messages") if self._conversational else ("messages", "text")
            message = f"the row is {kinds[0]}, but earlier rows are {kinds[1]}."
            errors.append(RowError("mixed", message, "use the same form in all rows.", column="prompt"))
        turned = not errors and prefers_rejected(draft)
        if turned:
            exchange(draft)
        if not errors:
            errors += self._weak(draft)
        if not errors:
            try:
                draft["id"] = self._ids.give(draft)
            except RowError as error:
                errors.append(error)
        self._turned += turned and not errors
        return errors

    def _weak(self, draft: Draft) -> list[RowError]:
        minimum = self._reader.min_gap
        if minimum == 0:
            return []
        better, worse = draft["chosen_rating"], draft["rejected_rating"]
        gap = better - worse if better is not None and worse is not None else None
        strength = draft["strength"] if draft["strength"] is not None else gap
        if strength is not None and strength >= minimum:
            return []
        known = "unknown" if strength is None else f"{strength:g}"
        message = f"the strength is {known}, min_gap is {minimum:g}."
        return [RowError("below_min_gap", message, "lower min_gap to keep it.", column="strength", fatal=False)]

    def _reject(self, place: _Place, errors: Sequence[RowError]) -> None:
        candidate = self._rows_in
        self._rows_in += 1
        source = place.source
        for error in errors:
            column = self._column(error.column)
            self._problems.append(
                RowProblem(
                    source.name,
                    place.position,
                    source.by_line,
                    candidate,
                    column,
                    error.kind,
                    error.message,
                    error.remedy,
                    error.fatal,
                )
            )

    def _column(self, name: str | None) -> str | None:
        """The source's column for one of our names; what came out of a list of responses is that list's."""
        if name is None:
            return None
        return self._names.get(name) or self._names.get("responses") or name

    def _notes(self) -> Iterator[str]:
        used = self._names
        yield from self._facts
        if used.get("strength", "strength") != "strength":
            yield f"the column '{used['strength']}' is used as the strength"
        strength = used.get("strength") or used.get("preference")
        if strength is not None and "chosen_rating" not in used and self._tables:
            yield f"there are no ratings, so the column '{strength}' is the margin if an objective needs one"
        if self._turned:
            yield f"chosen and rejected swapped, since the soft label was below ½: {self._turned}"
        if self._ids.repeated_content:
            yield f"rows that repeat the texts of an earlier row (kept): {self._ids.repeated_content}"
        if self._ids.both_directions:
            yield (f"pairs that occur in both directions: {self._ids.both_directions}; both are kept and conflict")
        for column in unused_columns(list(self._found), used):
            if normal_name(column) in _CONTEXT:
                yield f"the column '{column}' is not used; it may belong to the prompt"
        for sentence, count in Counter(self._reader.notes).items():
            if count:
                yield f"{sentence} (rows: {count})"

    def finish(self) -> tuple[Preferences | None, LoadReport]:
        """The preferences and the report of all batches."""
        if self._groups:
            self._pair_groups()
        report = LoadReport(
            source=self._source.name,
            container=self._source.container,
            format=self._format.name if self._format is not None else self._format_name,
            source_rows=self._source_rows,
            rows_in=self._rows_in,
            rows_kept=self._rows_kept,
            problems=tuple(self._problems),
            columns_used=self._names,
            columns_unused=unused_columns(list(self._found), self._names),
            notes=tuple(self._notes()),
        )
        if report.rows_in != report.rows_kept + report.rows_reported:
            raise AssertionError(f"rows lost: {report}")
        if not self._tables:
            return None, report
        table = pa.concat_tables(self._tables)
        if not self._tools:
            table = table.cast(arrow_schema(conversational=bool(self._conversational)))
        # Given, because `datasets` would pickle and hash the whole table to make one.
        dataset = datasets.Dataset(InMemoryTable(table), fingerprint=self._ids.rolling.hexdigest())
        preferences = Preferences(dataset, report)
        _ = preferences.clusters  # now, not after training
        return preferences, report
