"""Several criteria a task: known answers of items on each of them."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0080"
down_revision = "0070"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        make_anew("item", ["gold_criteria TEXT"])
    else:
        op.add_column("item", sa.Column("gold_criteria", sa.Text(), nullable=True))
