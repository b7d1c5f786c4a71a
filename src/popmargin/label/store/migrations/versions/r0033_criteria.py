"""Several criteria a task: their questions, and verdicts on those after the first."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("project", "label"):
        if op.get_bind().dialect.name == "sqlite":
            make_anew(table, ["criteria TEXT"])
        else:
            op.add_column(table, sa.Column("criteria", sa.Text(), nullable=True))
