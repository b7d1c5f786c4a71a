"""Annotators whose answers no longer count, though they are kept."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        make_anew("annotator", ["discarded BOOLEAN"])
        return
    op.add_column("annotator", sa.Column("discarded", sa.Boolean(), nullable=True))
