"""Ratings: a scale of the project, items that ask about one response, numbers as verdicts."""

import re
from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_VERDICTS = "'first', 'second', 'tie', 'unsure', 'wrong'"
_RATED = f"{_VERDICTS}, '1', '2', '3', '4', '5', '6', '7', '8', '9', '10'"
_CHECKS = (
    ("item", "kind", "'preference', 'pop'", "'preference', 'pop', 'rating'"),
    ("item", "gold", _VERDICTS, _RATED),
    ("label", "verdict", _VERDICTS, _RATED),
)
_SIDES = "response IN ('chosen', 'rejected')"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        make_anew("project", ["scale INTEGER"])
        make_anew("item", ["response VARCHAR(20)", f"CONSTRAINT ck_item_response CHECK ({_SIDES})"])
        make_anew("label", [])
        return
    op.add_column("project", sa.Column("scale", sa.Integer(), nullable=True))
    op.add_column("item", sa.Column("response", sa.String(length=20), nullable=True))
    op.create_check_constraint(op.f("ck_item_response"), "item", _SIDES)
    for table, column, _, new in _CHECKS:
        op.drop_constraint(op.f(f"ck_{table}_{column}"), table, type_="check")
        op.create_check_constraint(op.f(f"ck_{table}_{column}"), table, f"{column} IN ({new})")


def make_anew(table: str, lines: list[str], checks: Mapping[str, str] | None = None) -> None:
    """SQLite changes no constraint: a new table gets the rows, the old one's name and its indexes.

    Args:
        table: its name.
        lines: columns and constraints to add.
        checks: conditions to replace, old -> new.
    """
    connection = op.get_bind()
    found = connection.execute(
        sa.text("SELECT type, sql FROM sqlite_master WHERE tbl_name = :name AND sql IS NOT NULL"), {"name": table}
    ).all()
    (statement,) = (row.sql for row in found if row.type == "table")
    for owner, column, old, new in _CHECKS:
        if owner == table:
            statement = statement.replace(f"CHECK ({column} IN ({old}))", f"CHECK ({column} IN ({new}))")
    for old, new in (checks or {}).items():
        statement = statement.replace(f"CHECK ({old})", f"CHECK ({new})")
    start, constraint, rest = statement.partition("\tCONSTRAINT ")
    statement = "".join([start, *(f"\t{line}, \n" for line in lines), constraint, rest])
    columns = connection.execute(sa.text(f"SELECT name FROM pragma_table_info('{table}')")).scalars()
    names = ", ".join(f'"{name}"' for name in columns)
    # Once renamed, SQLite quotes the name.
    op.execute(re.sub(rf'^CREATE TABLE "?{table}"? ', f"CREATE TABLE {table}_anew ", statement))
    op.execute(f"INSERT INTO {table}_anew ({names}) SELECT {names} FROM {table}")
    op.execute(f"DROP TABLE {table}")
    op.execute(f"ALTER TABLE {table}_anew RENAME TO {table}")
    for row in found:
        if row.type == "index":
            op.execute(row.sql)
