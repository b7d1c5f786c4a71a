"""Known answers that are the order of a ranking."""

from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0090"
down_revision = "0080"
branch_labels = None
depends_on = None

_NUMBERS = "'1', '2', '3', '4', '5', '6', '7', '8', '9', '10'"
_KNOWN = f"gold IN ('first', 'second', 'tie', 'unsure', 'wrong', 'both_bad', {_NUMBERS})"


def upgrade() -> None:
    new = f"{_KNOWN} OR gold LIKE '_>%'"
    if op.get_bind().dialect.name == "sqlite":
        make_anew("item", [], {_KNOWN: new})
        return
    op.drop_constraint(op.f("ck_item_gold"), "item", type_="check")
    op.create_check_constraint(op.f("ck_item_gold"), "item", new)
