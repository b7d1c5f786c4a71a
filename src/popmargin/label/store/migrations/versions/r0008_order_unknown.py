"""Labels that were given elsewhere: the order on their screens may be unknown."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        make_anew("assignment", ["order_unknown BOOLEAN"])
        return
    op.add_column("assignment", sa.Column("order_unknown", sa.Boolean(), nullable=True))
