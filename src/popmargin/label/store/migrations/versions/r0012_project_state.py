"""Projects that are paused or archived."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        make_anew("project", ["state VARCHAR(20)"])
        return
    op.add_column("project", sa.Column("state", sa.String(length=20), nullable=True))
