"""How many answers each person is asked for."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        make_anew("annotator", ["quota INTEGER"])
        return
    op.add_column("annotator", sa.Column("quota", sa.Integer(), nullable=True))
