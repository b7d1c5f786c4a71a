"""What else preferences came with, as one JSON object: clusters, weights, margins and columns of the data's own."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        make_anew("preference", ["extra TEXT"])
        return
    op.add_column("preference", sa.Column("extra", sa.Text(), nullable=True))
