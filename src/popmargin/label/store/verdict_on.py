"""SQL: the verdict on a criterion after the first, out of the JSON beside a label."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, String, literal, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from popmargin.label.store.criteria import load_criteria, names_in
from popmargin.label.store.sql_tables import label, project


class verdict_on(FunctionElement[str]):  # noqa: N801 (a function of SQL)
    """`verdict_on(label.c.criteria, name)`; null for labels without one."""

    name = "verdict_on"
    type = String()
    inherit_cache = True


@compiles(verdict_on, "sqlite")
def _sqlite(element: Any, compiler: Any, **more: Any) -> str:
    column, name = (compiler.process(one, **more) for one in element.clauses)
    return f"json_extract({column}, '$.' || {name})"


@compiles(verdict_on, "postgresql")
def _postgresql(element: Any, compiler: Any, **more: Any) -> str:
    column, name = (compiler.process(one, **more) for one in element.clauses)
    return f"(CAST({column} AS JSON) ->> CAST({name} AS TEXT))"


def question_names(connection: Connection, number: int) -> list[str]:
    """Names of the criteria of a project; one that is empty for a single question."""
    stored = connection.execute(select(project.c.criteria).where(project.c.id == number)).scalar()
    return names_in(load_criteria(stored))


def answers_in(connection: Connection, number: int) -> dict[str, ColumnElement[Any]]:
    """Criterion of a project -> its verdict in the table of labels; one without a name for a single question."""
    names = question_names(connection, number)
    others = {name: verdict_on(label.c.criteria, literal(name)) for name in names[1:]}
    return {names[0]: label.c.verdict, **others}
