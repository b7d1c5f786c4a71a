"""Ratings: a scale of the project, items that ask about one response, numbers as verdicts."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.sqlite import make_anew

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
        make_anew("item", ["response VARCHAR(20)", f"CONSTRAINT ck_item_response CHECK ({_SIDES})"], _CHECKS)
        make_anew("label", [], _CHECKS)
        return
    op.add_column("project", sa.Column("scale", sa.Integer(), nullable=True))
    op.add_column("item", sa.Column("response", sa.String(length=20), nullable=True))
    op.create_check_constraint(op.f("ck_item_response"), "item", _SIDES)
    for table, column, _, new in _CHECKS:
        op.drop_constraint(op.f(f"ck_{table}_{column}"), table, type_="check")
        op.create_check_constraint(op.f(f"ck_{table}_{column}"), table, f"{column} IN ({new})")
