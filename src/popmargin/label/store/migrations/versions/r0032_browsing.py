"""Indexes by which a lead looks through items: their labels, and labels with notes."""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    noted = sa.text("note <> ''")
    op.create_index("ix_assignment_item", "assignment", ["item"])
    op.create_index("ix_label_note", "label", ["assignment"], sqlite_where=noted, postgresql_where=noted)
