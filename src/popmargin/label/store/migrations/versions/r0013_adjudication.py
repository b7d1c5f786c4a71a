"""Adjudicators, who decide items on which people disagree."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        make_anew("project", ["votes_hidden BOOLEAN"])
        make_anew("annotator", ["adjudicator BOOLEAN"])
        make_anew("assignment", ["adjudicates BOOLEAN"])
        return
    op.add_column("project", sa.Column("votes_hidden", sa.Boolean(), nullable=True))
    op.add_column("annotator", sa.Column("adjudicator", sa.Boolean(), nullable=True))
    op.add_column("assignment", sa.Column("adjudicates", sa.Boolean(), nullable=True))
