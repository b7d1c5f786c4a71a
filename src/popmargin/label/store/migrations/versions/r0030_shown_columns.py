"""Columns of the data that people see with a task."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0030"
down_revision = "0050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        make_anew("project", ["shown TEXT"])
        return
    op.add_column("project", sa.Column("shown", sa.Text(), nullable=True))
