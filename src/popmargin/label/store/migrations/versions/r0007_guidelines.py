"""Guidelines that change: their version, and the one that each annotator has worked with."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        make_anew("project", ["guidelines_version INTEGER"])
        make_anew("annotator", ["guidelines_seen INTEGER"])
        return
    op.add_column("project", sa.Column("guidelines_version", sa.Integer(), nullable=True))
    op.add_column("annotator", sa.Column("guidelines_seen", sa.Integer(), nullable=True))
