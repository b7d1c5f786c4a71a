"""When an item was first shown, and time spent away, apart from the time of an answer."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        make_anew("assignment", ["shown_at DATETIME", "idle FLOAT"])
        make_anew("label", ["idle FLOAT"])
        return
    op.add_column("assignment", sa.Column("shown_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("assignment", sa.Column("idle", sa.Float(), nullable=True))
    op.add_column("label", sa.Column("idle", sa.Float(), nullable=True))
