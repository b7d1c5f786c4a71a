"""Reading sequences of items: one row a user, or one row an event; JSONL, JSON, CSV, TSV, RecBole's .inter, Parquet."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from popmargin.account import Step
from popmargin.data.load_report import RowProblem
from popmargin.data.locate import container_of, open_source
from popmargin.data.ragged import Ragged
from popmargin.data.sources import FILE_READERS, RawBatch, Source, read_file
from popmargin.data.validate import RowError, describe_problems
from popmargin.errors import DataError, a_kind, counted
from popmargin.files import no_such_file
from popmargin.recommend.event_columns import item_id, number, resolve_columns, split_name
from popmargin.recommend.item_sequences import Catalogue, ReadingReport, Sequences
from popmargin.safe_reading import check_regular

_Row = Mapping[str, Any]


def load_sequences(
    source: str | Path | list[dict[str, Any]],
    *,
    columns: Mapping[str, str] | None = None,
    grades: Mapping[str, float] | None = None,
    bad_rows: Literal["raise", "drop"] = "raise",
) -> Sequences:
    """Read what users did.

    A row is a user (`items`, a list; `user`, `split` and lists `time` and `feedback` if there are any) or an event
    (`user`, `item`, and `time` and `feedback` if there are any). Events are sorted by time, those of one time stay in
    the order of the file; without times, the file's order counts. An event that repeats user, item and time is left
    out as a duplicate.

    Args:
        source: a file, plain or gzip, or rows in memory.
        columns: our name -> the source's column, where it is not recognised.
        grades: feedback that is written as text -> its number, such as {"click": 1, "cart": 2}.
        bad_rows: "raise" for an error that names the first bad rows; "drop" leaves them out and reports them.

    Raises:
        DataError: unreadable, no such columns, or a bad row; the message names file, row, column and remedy.

    Example:
        >>> rows = [{"user": "ann", "item": 7, "time": 2}, {"user": "ann", "item": 9, "time": 1}]
        >>> data = load_sequences(rows)
        >>> [data.catalogue.names[number - 1] for number in data.items[0]], data.report.step.arithmetic
        (['9', '7'], '2 in = 2 kept')
    """
    if bad_rows not in ("raise", "drop"):
        raise DataError(f"bad_rows is {bad_rows!r}. Remedy: write 'raise' or 'drop'.")
    opened = _open(source)
    reading = _Reading(opened, columns, grades)
    for batch in opened.batches():
        reading.add(batch)
    reading.drop_duplicates()
    fatal = [problem for problem in reading.problems if problem.fatal]
    if fatal and bad_rows == "raise":
        raise DataError(
            f"{opened.name}: {len(fatal)} of {counted(reading.count, 'row')} cannot be used.\n"
            f"{describe_problems(fatal)}\nFix these rows, or leave them out and report them: bad_rows='drop'."
        )
    if not reading.rows:
        if not reading.problems:
            raise DataError(f"{opened.name}: it has no rows. Remedy: give a file with at least one event.")
        raise DataError(f"{opened.name}: no row can be used.\n{describe_problems(reading.problems)}")
    return reading.sequences()


def _open(source: object) -> Source:
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if not path.is_dir():
            check_regular(path, DataError)
        if not path.exists():
            raise DataError(no_such_file(source))
        if ".inter" in [suffix.lower() for suffix in path.suffixes[-2:]]:
            return Source(path.name, "tsv", True, True, lambda: read_file(path, FILE_READERS["tsv"]))
        if path.is_file() and container_of(path) is None:
            known = ".jsonl, .json, .csv, .tsv, .inter or .parquet (each also with .gz)"
            raise DataError(f"{path}: unknown file type. Remedy: the name must end in {known}.")
    return open_source(source, split=None)


@dataclass(frozen=True)
class _Kept:
    """A row that can be used: its place, and what it says."""

    candidate: int
    position: int
    source: Source
    user: str
    items: list[str]
    split: str | None
    times: list[float]
    feedback: list[float]


@dataclass
class _Reading:
    """Rows on their way in."""

    opened: Source
    named: Mapping[str, str] | None
    grades: Mapping[str, float] | None
    count: int = 0
    rows: list[_Kept] = field(default_factory=list[_Kept])
    problems: list[RowProblem] = field(default_factory=list[RowProblem])
    columns: dict[str, str] = field(default_factory=dict[str, str])
    notes: dict[str, int] = field(default_factory=dict[str, int])
    facts: list[str] = field(default_factory=list[str])

    @property
    def by_user(self) -> bool:
        return "items" in self.columns

    def add(self, batch: RawBatch) -> None:
        """Take the rows of a batch."""
        source = batch.source or self.opened
        self.facts += batch.facts
        for note, rows in batch.notes.items():
            self.notes[note] = self.notes.get(note, 0) + rows
        if len(batch.positions) and not self.columns:
            self._resolve(batch.names(), source)
        for position, error in batch.broken:
            self._report(source, position, _own_words(error))
        for position, row in zip(batch.positions, batch.read(set(self.columns.values())), strict=True):
            try:
                kept = self._row(row, source, position)
            except RowError as error:
                self._report(source, position, error)
            else:
                self.rows.append(kept)
                self.count += 1

    def _resolve(self, found: list[str], source: Source) -> None:
        columns = resolve_columns(found, self.named, source.name)
        if "items" not in columns and not {"user", "item"} <= columns.keys():
            listed = ", ".join(found) or "none"
            hint = ""
            if any(name.endswith("_list:token_seq") for name in found):
                hint = " RecBole's files of prepared histories are not read: give the file of single events."
            raise DataError(
                f"{source.name}: neither sequences (items) nor events (user, item). Columns: {listed}.{hint} Remedy: "
                "name them, e.g. columns={'user': 'customer', 'item': 'sku', 'time': 'bought_at'}."
            )
        if "items" in columns and "item" in columns:
            raise DataError(
                f"{source.name} has both '{columns['items']}' and '{columns['item']}': a row is a user or an event. "
                "Remedy: rename the column that does not count."
            )
        if "items" not in columns and "split" in columns:
            raise DataError(
                f"{source.name}: the column '{columns['split']}' splits single events. Remedy: rename it, and split "
                "with split_by_time or leave_one_out."
            )
        self.columns = columns

    def _report(self, source: Source, position: int, error: RowError) -> None:
        column = self.columns.get(error.column or "", error.column)
        place = (source.name, position, source.by_line, self.count, column)
        self.problems.append(RowProblem(*place, error.kind, error.message, error.remedy, error.fatal))
        self.count += 1

    def _row(self, row: _Row, source: Source, position: int) -> _Kept:
        def cell(name: str) -> Any:
            return row.get(self.columns[name]) if name in self.columns else None

        if not self.by_user:
            user, items = item_id(cell("user"), "user"), [item_id(cell("item"))]
            times = [number(cell("time"), "time")] if "time" in self.columns else []
            missing = cell("feedback") is None
            graded = [np.nan if missing else number(cell("feedback"), "feedback", self.grades)]
            return _Kept(self.count, position, source, user, items, None, times, graded)
        items = [item_id(value, "items") for value in _listed(cell("items"), "items")]
        if not items:
            raise RowError("empty", "the list of items is empty.", "remove the row.", column="items")
        user = item_id(cell("user"), "user") if "user" in self.columns else str(self.count)
        split = split_name(cell("split")) if "split" in self.columns else None
        times = self._beside(cell("time"), "time", items)
        if any(later < earlier for earlier, later in itertools.pairwise(times)):
            raise RowError("order", "the times go back.", "write the oldest event first.", column="time")
        graded = self._beside(cell("feedback"), "feedback", items)
        return _Kept(self.count, position, source, user, items, split, times, graded or [np.nan] * len(items))

    def _beside(self, value: Any, column: str, items: list[str]) -> list[float]:
        """The numbers of each item of a row; none if the data have no such column."""
        if column not in self.columns:
            return []
        values = _listed(value, column)
        if len(values) != len(items):
            message = f"{counted(len(values), 'value')} for {counted(len(items), 'item')}."
            raise RowError("length", message, "write one for each item.", column=column)
        if column == "feedback":
            return [np.nan if each is None else number(each, column, self.grades) for each in values]
        return [number(each, column) for each in values]

    def drop_duplicates(self) -> None:
        """Leave out events at the same time as an equal one, and users that come twice."""
        if not self.by_user and "time" not in self.columns:
            return
        seen: set[Any] = set()
        kept: list[_Kept] = []
        for row in self.rows:
            key = row.user if self.by_user else (row.user, row.items[0], row.times[0])
            if key not in seen:
                seen.add(key)
                kept.append(row)
                continue
            if self.by_user:
                error = RowError("duplicate_user", f"the user '{row.user}' has an earlier row.",
                                 "write one row a user, or one row an event.", column="user")  # fmt: skip
            else:
                error = RowError("duplicate", "an earlier row has the same user, item and time.",
                                 "remove one of them.", fatal=False)  # fmt: skip
            column = self.columns.get(error.column or "", error.column)
            place = (row.source.name, row.position, row.source.by_line, row.candidate, column)
            self.problems.append(RowProblem(*place, error.kind, error.message, error.remedy, error.fatal))
        self.rows = kept

    def sequences(self) -> Sequences:
        """What was read."""
        catalogue = Catalogue.of(name for row in self.rows for name in row.items)
        users: dict[str, int] = {}
        of_row = [users.setdefault(row.user, len(users)) for row in self.rows]
        lengths = [len(row.items) for row in self.rows]
        user_T = np.repeat(np.array(of_row, dtype=np.int64), lengths)
        item_T = catalogue.numbers([name for row in self.rows for name in row.items])
        timed = "time" in self.columns
        time_T = np.array([time for row in self.rows for time in row.times], dtype=np.float64) if timed else None
        feedback_T = np.array([grade for row in self.rows for grade in row.feedback], dtype=np.float64)
        order = np.lexsort(((time_T,) if time_T is not None else ()) + (user_T,))  # stable
        offsets = np.concatenate([[0], np.cumsum(np.bincount(user_T, minlength=len(users)))]).astype(np.int64)
        splits = tuple(cast(str, row.split) for row in self.rows) if "split" in self.columns else None
        return Sequences(
            catalogue, tuple(users), Ragged(item_T[order], offsets), splits,
            None if time_T is None else time_T[order],
            feedback_T[order] if "feedback" in self.columns else None,
            self._account(user_T, time_T, len(catalogue)),
        )  # fmt: skip

    def _account(self, user_T: np.ndarray, time_T: np.ndarray | None, items: int) -> ReadingReport:
        notes = [*dict.fromkeys(self.facts), *(f"{note} ({counted(n, 'row')})" for note, n in self.notes.items())]
        users = int(user_T.max()) + 1
        notes.append(f"{counted(users, 'user')}, {counted(items, 'item')}, {counted(len(user_T), 'event')}")
        if not self.by_user:
            if time_T is None:
                notes.append("the data have no times: the order of the rows counts")
            else:
                at_once = len(user_T) - len(np.unique(np.stack([user_T.astype(np.float64), time_T]), axis=1).T)
                if at_once:
                    notes.append(f"{counted(at_once, 'event')} at the time of another of the same user: file order")
        left: dict[str, int] = {}
        for problem in self.problems:
            left[problem.kind] = left.get(problem.kind, 0) + 1
        unit = "users" if self.by_user else "events"
        step = Step(name=self.opened.name, rows_in=self.count, kept={"kept": len(self.rows)}, left_out=left,
                    notes=tuple(notes), unit=unit)  # fmt: skip
        return ReadingReport(step, tuple(self.problems), tuple(self.columns.items()))


def _listed(value: Any, column: str) -> list[Any]:
    if isinstance(value, list | tuple | np.ndarray):
        return list(cast(Any, value))
    what = "missing" if value is None else a_kind(value)
    remedy = "write a list, oldest first; in CSV write one row an event instead."
    raise RowError("type", f"the {column} are {what}.", remedy, column=column)


def _own_words(error: RowError) -> RowError:
    """A row that is no object, with the remedy for items."""
    if error.kind != "type":
        return error
    return RowError("type", error.message, 'write {"items": […]} or {"user": …, "item": …}.')
