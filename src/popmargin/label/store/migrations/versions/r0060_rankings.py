"""Rankings of several preferences: which ones an item has, their order on the screen, and orders as answers."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0060"
down_revision = "0040"
branch_labels = None
depends_on = None

_KINDS = "kind IN ('preference', 'pop', 'rating'"
_NUMBERS = "'1', '2', '3', '4', '5', '6', '7', '8', '9', '10'"
_VERDICTS = f"verdict IN ('first', 'second', 'tie', 'unsure', 'wrong', 'both_bad', {_NUMBERS})"
_CHECKS = {
    "item": ("kind", f"{_KINDS})", f"{_KINDS}, 'rank')"),
    "label": ("verdict", _VERDICTS, f"{_VERDICTS} OR verdict LIKE '_>%'"),
}


def upgrade() -> None:
    added = {"item": ("others", sa.Text()), "assignment": ("shown_order", sa.String(length=20))}
    if op.get_bind().dialect.name == "sqlite":
        make_anew("item", ["others TEXT"], {_CHECKS["item"][1]: _CHECKS["item"][2]})
        make_anew("assignment", ["shown_order VARCHAR(20)"])
        make_anew("label", [], {_CHECKS["label"][1]: _CHECKS["label"][2]})
        return
    for table, (column, kind) in added.items():
        op.add_column(table, sa.Column(column, kind, nullable=True))
    for table, (column, _, condition) in _CHECKS.items():
        op.drop_constraint(op.f(f"ck_{table}_{column}"), table, type_="check")
        op.create_check_constraint(op.f(f"ck_{table}_{column}"), table, condition)
