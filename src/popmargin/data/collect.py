"""Raw rows become preferences: checked one by one, with an account of what was dropped and of their other columns."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa

from popmargin.data.conversation import Text, holds_tools, prompt_key
from popmargin.data.exchange import exchange, partner
from popmargin.data.extra import ExtraColumns, as_dataset, columns_of
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
from popmargin.data.formats.image_cells import beside, image_fields
from popmargin.data.formats.unlabelled import columns_added, told
from popmargin.data.images import COLUMNS as IMAGE_COLUMNS
from popmargin.data.load_report import LoadReport, RowProblem
from popmargin.data.schema import COLUMNS, OPTIONAL_COLUMNS, TEXT_COLUMNS, Preferences, arrow_schema
from popmargin.data.sources import RawBatch, Source
from popmargin.data.validate import Draft, IdGiver, RowError, check_draft, prefers_rejected, speaks_for_rejected
from popmargin.errors import DataError

_RESERVED = {*COLUMNS, *OPTIONAL_COLUMNS}


@dataclass
class _Group:
    """The rated responses to one prompt, in a layout with one response per row, with the rest of their rows."""

    row: dict[str, Any]
    place: "_Place"
    rows: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])


@dataclass(frozen=True)
class _Place:
    """Where a row is."""

    source: Source
    position: int


_AGAINST = "labels kept although the row's numbers say that rejected is better"
_CONTEXT = {alias for name in ("prompt", "system") for alias in ALIASES[name]} | {"history", "chat_history"}


class Collector:
    """Turns raw batches into Arrow tables of the schema, and accounts for dropped rows."""

    def __init__(self, source: Source, format: str, options: Reader, columns: Mapping[str, str] | None) -> None:
        self._source = source
        self._format_name = format
        self._reader = options
        self._columns = columns
        self._format: Format | None = None
        self._found: dict[str, None] = {}
        self._names: dict[str, str] = {}
        self._meaning: Meaning | None = None
        self._image_fields: frozenset[str] | None = None
        self._facts: dict[str, None] = {}
        self._groups: dict[str, _Group] = {}
        self._ids = IdGiver()
        self._conversational: bool | None = None
        self._tools = False
        self._tables: list[Any] = []
        self._extra = ExtraColumns()
        self._shared: list[str] = []
        self._own: list[str] = []
        self._sides = _of_sides(options.fields)
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
        if not batch.positions:
            return
        self._prepare(batch, source)
        # Of one response a row, all columns are looked at when the rows are paired.
        everything = cast(Format, self._format).single is not None
        images = (beside(self._names[name]) for name in self._reader.image_fields)
        read = batch.read(None if everything else {*self._names.values(), *images})
        kept: list[Draft] = []
        numbers: list[int] = []
        for number, (row, position) in enumerate(zip(read, batch.positions, strict=True)):
            kept += self._read(row, _Place(source, position))
            numbers += [number] * (len(kept) - len(numbers))
        names = list(dict.fromkeys([*self._kept_columns(), *self._sides]))
        table = None if batch.table is None else columns_of(batch.table, names, numbers)
        rows = [
            read[number] | draft["fields"] if "fields" in draft else read[number]
            for number, draft in zip(numbers, kept, strict=True)
        ]
        self._store(kept, rows, table, names)
        if not everything:
            self._reader.images.found.clear()

    def _read(self, row: Mapping[str, Any], place: _Place) -> list[Draft]:
        """The preferences of a row; anything else is reported."""
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
            if self._image_fields and not errors:
                self._reader.images.put_beside(cast(Draft, draft))
            if errors:
                self._reject(place, errors)
            else:
                self._rows_in += 1
                kept.append(cast(Draft, draft))
        return kept

    def _store(self, kept: list[Draft], rows: Sequence[Mapping[str, Any]], table: Any, names: Sequence[str]) -> None:
        """Add preferences, along with their rows, whose other columns are kept."""
        if not kept:
            return
        self._rows_kept += len(kept)
        self._tools = self._tools or any(holds_tools([draft[name] for name in TEXT_COLUMNS]) for draft in kept)
        talks = bool(self._conversational)
        schema = arrow_schema(conversational=talks, tools=talks, more=OPTIONAL_COLUMNS)
        self._tables.append(pa.Table.from_pylist(kept, schema=schema))
        turned = np.array([bool(draft.get("turned")) for draft in kept])
        for column in self._extra.add(rows, table, names, turned, IMAGE_COLUMNS if self._image_fields else ()):
            for chunk in column.chunks:
                for buffer in chunk.buffers():
                    self._ids.rolling.update(buffer if buffer is not None else b"")

    def _kept_columns(self) -> list[str]:
        """Columns that no field is read from, and that do not have the name of a field."""
        return [name for name in unused_columns(list(self._found), self._names) if normal_name(name) not in _RESERVED]

    def _gather(self, row: Mapping[str, Any], prompt: Text, response: Text, rating: float, place: _Place) -> None:
        """Add a row's rated response to those of its prompt."""
        system, tools = self._reader.value(row, "system"), self._reader.value(row, "tools")
        key = json.dumps([prompt_key(prompt), str(system or ""), str(tools or "")])
        if key not in self._groups:
            gathered = {"prompt": prompt, "system": system, "tools": tools, "responses": [], "ratings": [], "ids": []}
            self._groups[key] = _Group(gathered, place)
        group = self._groups[key]
        group.rows.append(row)
        group.row["responses"].append(response)
        group.row["ratings"].append(rating)
        group.row["ids"].append(self._reader.label(row, "id"))

    def _pair_groups(self) -> None:
        """Turn the collected responses into preferences, and report what happened to the rows."""
        entry = cast(Format, self._format)
        names = {"prompt": "prompt"} | {name: name for name in ("system", "tools") if name in self._names}
        reader = replace(self._reader, names=names)
        kept: list[Draft] = []
        rows: list[dict[str, Any]] = []
        before, count = self._rows_in, sum(len(group.rows) for group in self._groups.values())
        columns = self._kept_columns()
        self._shared = [name for name in columns if all(_alike(group.rows, name) for group in self._groups.values())]
        self._own = own = [name for name in columns if name not in self._shared]
        for group in self._groups.values():
            try:
                drafts = entry.read(group.row, reader)
            except RowError as error:
                drafts = [error]
            accepted = self._accept(drafts, group.place)
            kept += accepted
            for draft in accepted:
                row = {name: group.rows[0].get(name) for name in self._shared}
                for side, number in zip(("chosen", "rejected"), draft["pair"], strict=False):
                    row |= {f"{side}_{name}": group.rows[number].get(name) for name in own}
                rows.append(row | draft.get("fields", {}))
        self._sides = [*_of_sides(own), *columns_added(entry), *(IMAGE_COLUMNS if self._image_fields else ())]
        self._store(kept, rows, None, list(dict.fromkeys([*self._shared, *self._sides])))
        if columns_added(entry):
            return  # `told` says what was made of them
        lone = sum(len(group.rows) == 1 for group in self._groups.values())
        self._facts[
            f"rows with one rated response each: {count}, prompts: {len(self._groups)}, prompts with a single row: "
            f"{lone}; candidate pairs ({reader.pairs}): {self._rows_in - before} = {len(kept)} kept + "
            f"{self._rows_in - before - len(kept)} reported"
        ] = None

    def _prepare(self, batch: RawBatch, source: Source) -> None:
        """Columns may first appear late in a file; the first batch decides the format and the meaning of columns."""
        known = len(self._found)
        self._found.update(dict.fromkeys(batch.names()))
        found = list(self._found)
        nested = self._reader.nested
        try:
            if known != len(found) or self._format is None:  # rows may have no column at all
                rows = batch.read()
                candidates, nested = self._resolve(rows, found)
                if self._format is None:
                    wanted = self._reader.unlabelled is not None
                    self._format = FORMATS.get(self._format_name) or detect_format(
                        rows[:100], found, candidates, nested, unlabelled=wanted
                    )
                    self._sides += columns_added(self._format, candidates)
                self._names = names_for(self._format, found, candidates)
                if self._image_fields is None:
                    self._image_fields = image_fields(rows[:100], self._names, source.folder)
                    self._sides += IMAGE_COLUMNS if self._image_fields else ()
        except DataError as error:
            raise DataError(f"{self._source.name}: {error}") from None
        self._reader = replace(
            self._reader, names=self._names, nested=nested, text_cells=source.text_cells,
            decimal_comma=batch.decimal_comma, ends=self._meaning.ends if self._meaning is not None else None,
            image_fields=self._image_fields or frozenset(),
        )  # fmt: skip
        self._reader.images.folder = source.folder

    def _resolve(
        self, rows: Sequence[Mapping[str, Any]], found: Sequence[str]
    ) -> tuple[dict[str, list[str]], dict[str, str]]:
        """Candidate columns for each field, including the meaning of a column of winners or strengths."""
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
        conversational = not isinstance(draft["prompt"], str)
        if conversational and self._image_fields:
            return [RowError("type", "the prompt of images is messages.", "write it as text.", column="prompt")]
        keep = self._reader.contradictions == "keep"
        errors = check_draft(draft, contradictions=self._reader.contradictions)
        if self._conversational is None:
            if errors:
                return errors
            self._conversational = conversational
        if conversational != self._conversational:
            kinds = ("text", "messages") if self._conversational else ("messages", "text")
            message = f"the row is {kinds[0]}, but earlier rows are {kinds[1]}."
            errors.append(RowError("mixed", message, "use the same form in all rows.", column="prompt"))
        against = not errors and keep and speaks_for_rejected(draft)
        turned = not errors and not keep and prefers_rejected(draft)
        if turned:
            exchange(draft)
            draft["turned"] = True
        if not errors:
            errors += self._weak(draft)
        if not errors:
            try:
                draft["id"] = self._ids.give(draft)
            except RowError as error:
                errors.append(error)
        self._turned += turned and not errors
        self._reader.notes[_AGAINST] += against and not errors
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
        at = (source.name, place.position, source.by_line, candidate)
        for error in errors:
            said = (error.kind, error.message, error.remedy, error.fatal)
            self._problems.append(RowProblem(*at, self._column(error.column), *said))

    def _column(self, name: str | None) -> str | None:
        """The source's column for one of our names; for values from a list of responses, the list's column."""
        if name is None:
            return None
        return self._names.get(name) or self._names.get("responses") or name

    def _notes(self) -> Iterator[str]:
        used = self._names
        yield from self._facts
        if said := told(self._reader):
            yield said
        yield from self._reader.images.notes()
        if used.get("strength", "strength") != "strength":
            yield f"the column '{used['strength']}' is used as the strength"
        strength = used.get("strength") or used.get("preference")
        if strength is not None and "chosen_rating" not in used and self._tables:
            yield f"there are no ratings, so the column '{strength}' is the margin if an objective needs one"
        if self._reader.rated[True] and not self._reader.rated[False]:
            yield from self._maybe_ranks()
        if self._turned:
            yield f"chosen and rejected swapped, since the soft label was below ½: {self._turned}"
        if self._ids.repeated_content:
            yield f"rows that repeat the texts of an earlier row (kept): {self._ids.repeated_content}"
        if self._ids.both_directions:
            yield (
                f"pairs that occur in both directions: {self._ids.both_directions}; both rows are kept and cancel out"
            )
        for column in unused_columns(list(self._found), used):
            if normal_name(column) in _RESERVED:
                yield (
                    f"the column '{column}' is not kept: it has the name of a field, which the format does not read; "
                    "rename it to keep it"
                )
            if normal_name(column) in _CONTEXT:
                yield f"the column '{column}' is not used; it may belong to the prompt"
        for sentence, count in Counter(self._reader.notes).items():
            if count:
                yield f"{sentence} (rows: {count})"

    def _maybe_ranks(self) -> Iterator[str]:
        """The note if the ratings of every row are 1 to n without ties, unless the caller named the column."""
        given, used = self._columns or {}, self._names
        where = next((name for name in ("ratings", "label") if name in used), None)
        if "rating" in given or where in given:
            return
        named = f"the column '{used[where]}' holds" if where is not None else "the responses' ratings are"
        remedy = f"say --column ranks={used[where]}" if where == "ratings" else "name the field rank"
        yield (
            f"{named} 1 to n without ties in every row, which may be ranks; read as ratings, higher is better. If 1 is "
            f"the best, {remedy}"
        )

    def finish(self) -> tuple[Preferences | None, LoadReport]:
        """The preferences and the report of all batches."""
        if self._groups:
            self._pair_groups()
        unused = unused_columns(list(self._found), self._names)
        # A column can turn out to be a field if another one appears late in a file.
        names = [*(name for name in self._kept_columns() if not self._groups or name in self._shared), *self._sides]
        extra, notes = self._extra.finish(names)
        known = {*names, *map(partner, names)}  # swapping adds the partner of a one-sided column
        extra = {name: column for name, column in extra.items() if name in known}
        report = LoadReport(
            source=self._source.name,
            container=self._source.container,
            format=self._format.name if self._format is not None else self._format_name,
            source_rows=self._source_rows,
            rows_in=self._rows_in,
            rows_kept=self._rows_kept,
            problems=tuple(self._problems),
            columns_used=self._names,
            columns_kept=tuple(extra),
            columns_unused=tuple(name for name in unused if name not in extra and name not in self._own),
            notes=(*self._notes(), *notes),
        )
        if report.rows_in != report.rows_kept + report.rows_reported:
            raise AssertionError(f"rows lost: {report}")
        if not self._tables:
            return None, report
        table: Any = pa.concat_tables(self._tables)
        held = [name for name in OPTIONAL_COLUMNS if table[name].null_count < len(table)]
        conversational = bool(self._conversational)
        schema = arrow_schema(conversational=conversational, tools=conversational and self._tools, more=held)
        table = table.select(schema.names).cast(schema)
        for name, (column, _) in extra.items():
            table = table.append_column(name, column)
        # Given explicitly: `datasets` would pickle and hash the whole table to compute one.
        features = {name: feature for name, (_, feature) in extra.items()}
        preferences = Preferences(as_dataset(table, features, self._ids.rolling.hexdigest()), report)
        _ = preferences.clusters  # now, not after training
        return preferences, report


def _alike(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    return all(row.get(name) == rows[0].get(name) for row in rows)


def _of_sides(fields: Sequence[str]) -> list[str]:
    """The columns made from the fields of each response."""
    names = [f"{side}_{name}" for side in ("chosen", "rejected") for name in fields]
    return [name for name in names if normal_name(name) not in _RESERVED]
