"""Preferences from files, data sets and memory, in any of the known formats."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import datasets
import pyarrow as pa
from datasets.table import InMemoryTable

from popmargin.data.formats import (
    FORMATS,
    Format,
    Reader,
    detect_format,
    names_for,
    resolve_names,
    unused_columns,
)
from popmargin.data.pairs import Pairing, check_pairing
from popmargin.data.schema import LoadReport, Preferences, RowProblem, arrow_schema
from popmargin.data.sources import RawBatch, Source, open_source
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


def load_preferences(
    source: str | Path | datasets.Dataset | datasets.DatasetDict | list[dict[str, Any]],
    *,
    format: str = "auto",
    split: str | None = None,
    pairs: Pairing = "best_vs_worst",
    min_gap: float = 0.0,
    seed: int = 0,
    bad_rows: BadRows = "error",
    columns: Mapping[str, str] | None = None,
) -> Preferences:
    """Load preferences; every row is kept or reported (`.report`), none is skipped silently.

    Where `soft_label`, the probability that chosen is better, is below ½, chosen and rejected change places with their
    ratings, the label becomes 1 − p and a strength changes its sign; the report counts these rows. Ratings or a
    strength that say the opposite of the label make a row unusable.

    Args:
        source: a file (.jsonl, .json, .csv, .tsv, .parquet, each also .gz), a folder of `Dataset.save_to_disk`, a hub
            id, a `datasets.Dataset`, or a list of dictionaries.
        format: a name in `popmargin.data.formats.FORMATS`, or "auto" to detect it from the columns.
        split: the split of a data set that has several.
        pairs: how rated responses become pairs: "best_vs_worst", "best_vs_random" or "all".
        min_gap: least strength (rating gap, in the ratings' unit) of a preference; weaker ones are left out and
            reported, and so are rows of unknown strength if it is above 0. Ties of rated responses, signed strengths
            and votes are always left out; a pair that is given as chosen and rejected with equal ratings is kept.
        seed: seed of "best_vs_random".
        bad_rows: "error" raises if a row is unusable; "drop" leaves such rows out and reports each.
        columns: our field -> the source's column, e.g. {"prompt": "question"}; "text" and "rating" name the fields
            of each rated response.

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
        source, format=format, split=split, pairs=pairs, min_gap=min_gap, seed=seed, columns=columns
    )
    if bad_rows == "error":
        raise_problems(report.problems, report.rows_in)
    if preferences is None:
        raise DataError(
            f"{report.source}: no row is left of {report.rows_in}.\n{describe_problems(report.problems)}\n"
            "Remedy: fix the rows named above."
            if report.rows_in
            else f"{report.source}: there is no row. Remedy: give at least one."
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
    opened = open_source(source, split=split)
    collector = _Collector(opened, format, Reader({}, pairs=pairs, min_gap=min_gap, seed=seed), columns)
    for batch in opened.batches():
        collector.add(batch)
    return collector.finish()


class _Collector:
    """Turns raw batches into Arrow tables of the schema, and keeps the account of what was left out."""

    def __init__(self, source: Source, format: str, options: Reader, columns: Mapping[str, str] | None) -> None:
        self._source = source
        self._format_name = format
        self._options = options
        self._columns = columns
        self._format: Format | None = None
        self._found: dict[str, None] = {}
        self._names: dict[str, str] = {}
        self._ids = IdGiver()
        self._conversational: bool | None = None
        self._tables: list[Any] = []
        self._problems: list[RowProblem] = []
        self._source_rows = self._rows_in = self._rows_kept = self._turned = 0

    def add(self, batch: RawBatch) -> None:
        """Read one batch."""
        self._source_rows += len(batch)
        for position, error in batch.broken:
            self._reject(position, [error])
        if not batch.rows:
            return
        reader, entry = self._reader(batch.rows)
        kept: list[Draft] = []
        for row, position in zip(batch.rows, batch.positions, strict=True):
            try:
                drafts = entry.read(row, reader)
            except RowError as error:
                drafts = [error]
            for draft in drafts:
                errors = [draft] if isinstance(draft, RowError) else self._errors(draft)
                if errors:
                    self._reject(position, errors)
                else:
                    self._rows_in += 1
                    kept.append(cast(Draft, draft))
        if kept:
            self._rows_kept += len(kept)
            schema = arrow_schema(conversational=bool(self._conversational))
            self._tables.append(pa.Table.from_pylist(kept, schema=schema))

    def _reader(self, rows: Sequence[Mapping[str, Any]]) -> tuple[Reader, Format]:
        """Reader for a batch: columns may first appear late in a file, the format is that of the first batch."""
        known = len(self._found)
        self._found.update(dict.fromkeys(str(name) for row in rows for name in row))
        found = list(self._found)
        try:
            candidates, nested = resolve_names(found, self._columns)
            entry = self._format or FORMATS.get(self._format_name) or detect_format(rows[:100], found, candidates)
            if known != len(found):
                self._names = names_for(entry, found, candidates)
        except DataError as error:
            raise DataError(f"{self._source.name}: {error}") from None
        self._format = entry
        options = self._options
        reader = Reader(
            self._names, nested, self._source.text_cells, options.pairs, options.min_gap, options.seed, options.notes
        )
        return reader, entry

    def _errors(self, draft: Draft) -> list[RowError]:
        errors = check_draft(draft)
        conversational = not isinstance(draft["prompt"], str)
        if self._conversational is None:
            if errors:
                return errors
            self._conversational = conversational
        if conversational != self._conversational:
            kinds = ("text", "messages") if self._conversational else ("messages", "text")
            message = f"the row is {kinds[0]}, the rows before are {kinds[1]}."
            errors.append(RowError("mixed", message, "write all rows the same way.", column="prompt"))
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
        minimum = self._options.min_gap
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

    def _reject(self, position: int, errors: Sequence[RowError]) -> None:
        candidate = self._rows_in
        self._rows_in += 1
        source = self._source
        for error in errors:
            column = self._column(error.column)
            self._problems.append(
                RowProblem(
                    source.name,
                    position,
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
        if used.get("strength", "strength") != "strength":
            yield f"the column '{used['strength']}' is used as the strength"
        if self._turned:
            yield f"chosen and rejected exchanged, since the soft label was below ½: {self._turned}"
        if self._ids.repeated_content:
            yield f"rows that repeat the texts of an earlier one, kept: {self._ids.repeated_content}"
        for sentence, count in Counter(self._options.notes).items():
            if count:
                yield f"{sentence} (rows: {count})"

    def finish(self) -> tuple[Preferences | None, LoadReport]:
        """The preferences and the report of all batches."""
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
        # Given, because `datasets` would pickle and hash the whole table to make one.
        dataset = datasets.Dataset(InMemoryTable(table), fingerprint=self._ids.rolling.hexdigest())
        preferences = Preferences(dataset, report)
        _ = preferences.clusters  # now, not after training
        return preferences, report
