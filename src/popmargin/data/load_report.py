"""How preferences were loaded: what was kept, and what was dropped and why."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from popmargin.account import Step


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why one row was dropped.

    Attributes:
        source: file or data set the row came from.
        position: line number counted from 1 (`by_line`), else row number counted from 0.
        candidate: running number of the dropped preference; a row with several rated responses holds several, and one
            preference can have several problems.
        column: the source's column, if one is to blame.
        kind: short name of the problem, e.g. "empty", "identical", "duplicate_id", "tie".
        fatal: False for ties and pairs below `min_gap`, which are not errors in the data.
    """

    source: str
    position: int
    by_line: bool
    candidate: int
    column: str | None
    kind: str
    message: str
    remedy: str
    fatal: bool = True

    @property
    def place(self) -> str:
        """Where the row is, e.g. `prefs.jsonl:12`."""
        return f"{self.source}:{self.position}" if self.by_line else f"{self.source}, row {self.position} (from 0)"

    def __str__(self) -> str:
        column = f", column '{self.column}'" if self.column else ""
        return f"{self.place}{column}: {self.message} Remedy: {self.remedy}"

    def to_dict(self) -> dict[str, Any]:
        """The problem as JSON values."""
        names = ("source", "position", "by_line", "candidate", "column", "kind", "message", "remedy", "fatal")
        return {"place": self.place, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class LoadReport:
    """How preferences were loaded: rows_in == rows_kept + rows_reported, always.

    Attributes:
        source_rows: rows (or lines) read from the source.
        rows_in: candidate preferences. A row with several rated responses, or all rows of a prompt with one response
            each, count once per requested pair; every other row once.
        rows_kept: preferences that came out.
        problems: what was dropped and why.
        columns_used: our column -> the source's column.
        columns_kept: columns of the source outside the schema, kept under their own names.
        columns_unused: columns of the source that are neither read nor kept.
        notes: what was done to the kept rows, in sentences.
    """

    source: str
    container: str
    format: str
    source_rows: int
    rows_in: int
    rows_kept: int
    problems: tuple[RowProblem, ...] = ()
    columns_used: Mapping[str, str] = cast(Mapping[str, str], None)
    columns_kept: tuple[str, ...] = ()
    columns_unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns_used", dict(self.columns_used or {}))

    @property
    def rows_reported(self) -> int:
        """Number of dropped candidate preferences, each with at least one problem."""
        return len({problem.candidate for problem in self.problems})

    @property
    def fatal(self) -> tuple[RowProblem, ...]:
        """The problems that are errors in the data."""
        return tuple(problem for problem in self.problems if problem.fatal)

    @property
    def problem_counts(self) -> dict[str, int]:
        """Number of problems of each kind, most frequent first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())

    @property
    def left_out(self) -> dict[str, int]:
        """Kind of problem -> dropped candidates, each counted once, under its first problem; most frequent first."""
        first: dict[int, str] = {}
        for problem in self.problems:
            first.setdefault(problem.candidate, problem.kind)
        return dict(Counter(first.values()).most_common())

    def step(self, name: str | None = None, notes: Sequence[str] = ()) -> Step:
        """The report as a step of an account, without notes of its own; by default it has the source's name."""
        return Step(
            name=name or self.source,
            rows_in=self.rows_in,
            kept={"kept": self.rows_kept},
            left_out=self.left_out,
            notes=tuple(notes),
        )

    def to_dict(self, *, limit: int | None = None) -> dict[str, Any]:
        """The report as JSON values, with at most `limit` of its problems."""
        return {
            "source": self.source,
            "container": self.container,
            "format": self.format,
            "source_rows": self.source_rows,
            "rows_in": self.rows_in,
            "rows_kept": self.rows_kept,
            "rows_reported": self.rows_reported,
            "left_out": self.left_out,
            "problem_counts": self.problem_counts,
            "problems": [problem.to_dict() for problem in self.problems[:limit]],
            "columns_used": dict(self.columns_used),
            "columns_kept": list(self.columns_kept),
            "columns_unused": list(self.columns_unused),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        account = f"{self.rows_in} in = {self.rows_kept} kept + {self.rows_reported} left out"
        lines = [f"{self.source} ({self.container}, format '{self.format}'): {account}"]
        lines += [f"  left out, {kind}: {count}" for kind, count in self.left_out.items()]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)
