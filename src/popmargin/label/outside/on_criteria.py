"""Labels on several criteria in a table: a column for each, as `label export --as labels` writes them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from popmargin.errors import ConfigError
from popmargin.label.outside.outside_label import LeftOut, OutsideLabel, Rows
from popmargin.label.store.records import Criterion

TABLES = ("csv", "jsonl")


def check_format(criteria: Sequence[Criterion], format: str, question: str | None) -> None:
    """Refuse what has one answer a label, for a project with criteria.

    Raises:
        ConfigError: the format is no table, or a column of answers is named.
    """
    if criteria and format not in TABLES:
        raise ConfigError(
            "The project asks about several criteria, whose labels are read from tables with a column for each. "
            f"Convert the labels from {format} to CSV or JSONL."
        )
    if criteria and question is not None:
        raise ConfigError(
            "--question names one column, but the project has several criteria: use --column NAME=COLUMN."
        )


def answer_on(cells: Mapping[str, Any], name: str, columns: Mapping[str, str]) -> Any:
    """The cell with the answer on a criterion; None without one."""
    names = (columns[name],) if name in columns else (f"criterion_{name}", name)
    return next((cells[column] for column in names if cells.get(column) not in (None, "")), None)


def with_verdict(rows: Rows, criteria: Sequence[Criterion], columns: Mapping[str, str]) -> Rows:
    """The rows with the answer on the first criterion as their verdict."""
    for place, row in rows:
        first = answer_on(row, criteria[0].name, columns)
        yield place, {**row, "verdict": first} if first is not None else row


def verdicts_on(
    outside: OutsideLabel,
    criteria: Sequence[Criterion],
    columns: Mapping[str, str],
    meaning: Callable[[Any], Any],
) -> dict[str, Any] | LeftOut:
    """Criterion after the first -> verdict, or what is missing.

    Args:
        outside: the label.
        criteria: of the project.
        columns: the caller's names of columns, criterion -> column.
        meaning: from a value in a cell to a verdict, None if it is none.
    """
    found: dict[str, Any] = {}
    for one in criteria[1:]:
        value = answer_on(outside.cells, one.name, columns)
        verdict = None if value is None else meaning(value)
        if verdict is None:
            said = "it has no answer on" if value is None else f"'{str(value)[:40]}' is no answer on"
            remedy = (
                f"give each criterion a column: --column {one.name}=COLUMN."
                if value is None
                else "say what it means: --answer 'WORD=…'."
            )
            return LeftOut(
                place=outside.place,
                reason="a criterion without an answer",
                message=f"{said} criterion '{one.name}'.",
                remedy=remedy,
            )
        found[one.name] = verdict
    return found
