"""Images: their bytes once each, which projects show them, and whether a project's responses are images."""

import sqlalchemy as sa
from alembic import op

from popmargin.label.store.migrations.versions.r0002_ratings import make_anew

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "image",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("media_type", sa.String(length=100), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("reduced", sa.LargeBinary(), nullable=True),
        sa.Column("converted", sa.LargeBinary(), nullable=True),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image")),
        sa.UniqueConstraint("name", name=op.f("uq_image_name")),
    )
    op.create_table(
        "project_image",
        sa.Column("project", _ID, nullable=False),
        sa.Column("image", _ID, nullable=False),
        sa.ForeignKeyConstraint(["image"], ["image.id"], name=op.f("fk_project_image_image")),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_project_image_project")),
        sa.PrimaryKeyConstraint("project", "image", name=op.f("pk_project_image")),
    )
    if op.get_bind().dialect.name == "sqlite":
        make_anew("project", ["images BOOLEAN"])
        return
    op.add_column("project", sa.Column("images", sa.Boolean(), nullable=True))
