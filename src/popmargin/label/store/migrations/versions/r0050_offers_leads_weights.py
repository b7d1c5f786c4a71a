"""Items that are given to a person, first or alone; leads of a project; labels that count less."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0050"
down_revision = "0014"
branch_labels = None
depends_on = None

_NEW: dict[str, dict[str, Any]] = {
    "item": {"reserved": sa.Boolean()},
    "annotator": {"lead": sa.Boolean(), "weight": sa.Float()},
}
_OPEN = "taken < overlap AND gold IS NULL AND reserved IS NULL"
_INDEXES = {"ix_item_open": _OPEN, "ix_item_start": f"{_OPEN} AND (link IS NULL OR link = 0)"}


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    for table, columns in _NEW.items():
        if sqlite:
            make_anew(table, [f"{name} {kind}" for name, kind in columns.items()])
            continue
        for name, kind in columns.items():
            op.add_column(table, sa.Column(name, kind, nullable=True))
    for name, condition in _INDEXES.items():
        op.drop_index(name, "item")
        _index(name, "item", ["project", "position"], condition)
    _index("ix_item_reserved", "item", ["project", "taken", "overlap"], "reserved IS NOT NULL")
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "offer",
        sa.Column("annotator", number, nullable=False),
        sa.Column("item", number, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("waiting", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["annotator"], ["annotator.id"], name=op.f("fk_offer_annotator")),
        sa.ForeignKeyConstraint(["item"], ["item.id"], name=op.f("fk_offer_item")),
        sa.PrimaryKeyConstraint("annotator", "item", name=op.f("pk_offer")),
    )
    op.create_index("ix_offer_item", "offer", ["item"])
    _index("ix_offer_waiting", "offer", ["annotator", "position"], "waiting")


def _index(name: str, table: str, columns: list[str], condition: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(condition), postgresql_where=sa.text(condition))
