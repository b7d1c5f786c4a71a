"""The answer that both responses are bad, where a project offers it."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

_KNOWN = "'first', 'second', 'tie', 'unsure', 'wrong'"
_RATINGS = "'1', '2', '3', '4', '5', '6', '7', '8', '9', '10'"


def upgrade() -> None:
    places = (("item", "gold"), ("label", "verdict"))
    checks = {
        f"{column} IN ({_KNOWN}, {_RATINGS})": f"{column} IN ({_KNOWN}, 'both_bad', {_RATINGS})" for _, column in places
    }
    if op.get_bind().dialect.name == "sqlite":
        make_anew("project", ["both_bad BOOLEAN"])
        for table, _ in places:
            make_anew(table, [], checks)
        return
    op.add_column("project", sa.Column("both_bad", sa.Boolean(), nullable=True))
    for (table, column), condition in zip(places, checks.values(), strict=True):
        op.drop_constraint(op.f(f"ck_{table}_{column}"), table, type_="check")
        op.create_check_constraint(op.f(f"ck_{table}_{column}"), table, condition)
