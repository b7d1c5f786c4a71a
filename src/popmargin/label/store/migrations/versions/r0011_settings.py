"""Settings that change while people label, and training items that come first, with feedback.

An overlap that is lowered leaves items with more places taken than it asks for, so there is no limit to them any more.
"""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        make_anew("project", ["training INTEGER", "passing FLOAT"])
        make_anew("annotator", ["held BOOLEAN"])
        make_anew("assignment", ["training BOOLEAN"])
        make_anew("item", [], {"taken >= 0 AND taken <= overlap": "taken >= 0"})
        return
    op.add_column("project", sa.Column("training", sa.Integer(), nullable=True))
    op.add_column("project", sa.Column("passing", sa.Float(), nullable=True))
    op.add_column("annotator", sa.Column("held", sa.Boolean(), nullable=True))
    op.add_column("assignment", sa.Column("training", sa.Boolean(), nullable=True))
    op.drop_constraint(op.f("ck_item_taken"), "item", type_="check")
    op.create_check_constraint(op.f("ck_item_taken"), "item", "taken >= 0")
