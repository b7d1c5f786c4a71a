"""Changes of a table that SQLite has no statement for, or writes otherwise than a new table."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op


def make_anew(table: str, lines: Sequence[str], checks: Sequence[tuple[str, str, str, str]] = ()) -> None:
    """SQLite changes no constraint: a new table gets the rows, the old one's name and its indexes.

    Args:
        table: its name.
        lines: further columns, and a constraint on them.
        checks: table, column, and the values that it may have before and after.
    """
    connection = op.get_bind()
    found = connection.execute(
        sa.text("SELECT type, sql FROM sqlite_master WHERE tbl_name = :name AND sql IS NOT NULL"), {"name": table}
    ).all()
    (statement,) = (row.sql for row in found if row.type == "table")
    for owner, column, old, new in checks:
        if owner == table:
            statement = statement.replace(f"CHECK ({column} IN ({old}))", f"CHECK ({column} IN ({new}))")
    start, constraint, rest = statement.partition("\tCONSTRAINT ")
    statement = "".join([start, *(f"\t{line}, \n" for line in lines), constraint, rest])
    columns = connection.execute(sa.text(f"SELECT name FROM pragma_table_info('{table}')")).scalars()
    names = ", ".join(f'"{name}"' for name in columns)
    op.execute(statement.replace(f"CREATE TABLE {table} ", f"CREATE TABLE {table}_anew ", 1))
    op.execute(f"INSERT INTO {table}_anew ({names}) SELECT {names} FROM {table}")
    op.execute(f"DROP TABLE {table}")
    op.execute(f"ALTER TABLE {table}_anew RENAME TO {table}")
    for row in found:
        if row.type == "index":
            op.execute(row.sql)
