"""Runs of items that share a preference; the wording of the question, grades of answers, the worked example."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_START = "taken < overlap AND gold IS NULL AND (link IS NULL OR link = 0)"
_NEW = {
    "project": {"wording": sa.Text(), "grades": sa.Boolean()},
    "item": {"link": sa.Integer()},
    "annotator": {"example_seen": sa.Boolean()},
    "label": {"grade": sa.Integer()},
}


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    for table, columns in _NEW.items():
        if sqlite:
            make_anew(table, [f"{name} {kind}" for name, kind in columns.items()])
            continue
        for name, kind in columns.items():
            op.add_column(table, sa.Column(name, kind, nullable=True))
    condition = sa.text(_START)
    op.create_index(
        "ix_item_start", "item", ["project", "position"], sqlite_where=condition, postgresql_where=condition
    )
