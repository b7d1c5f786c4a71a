"""The language of the annotators' pages of a project."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0070"
down_revision = "0060"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        make_anew("project", ["language TEXT"])
    else:
        op.add_column("project", sa.Column("language", sa.Text(), nullable=True))
