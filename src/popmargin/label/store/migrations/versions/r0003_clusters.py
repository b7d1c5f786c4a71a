"""Clusters: which preferences depend on each other, as the data name it."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.sqlite import make_anew

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        make_anew("preference", ["cluster TEXT"])
        return
    op.add_column("preference", sa.Column("cluster", sa.Text(), nullable=True))
