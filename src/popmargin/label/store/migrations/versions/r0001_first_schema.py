"""The first schema: projects, preferences, items, annotators, assignments and labels."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "project",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("lease_seconds", sa.Integer(), nullable=False),
        sa.Column("guidelines", sa.Text(), nullable=False),
        sa.Column("repeat_share", sa.Float(), nullable=False),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.Column("gold_items", sa.Integer(), nullable=False),
        sa.Column("wanted", sa.BigInteger(), nullable=False),
        sa.Column("preferences", sa.Integer(), nullable=False),
        sa.Column("conversational", sa.Boolean(), nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.CheckConstraint("lease_seconds >= 1", name=op.f("ck_project_lease")),
        sa.CheckConstraint("overlap >= 1", name=op.f("ck_project_overlap")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
        sa.UniqueConstraint("name", name=op.f("uq_project_name")),
    )
    op.create_table(
        "annotator",
        sa.Column("id", _ID, nullable=False),
        sa.Column("project", _ID, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("cursor", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("repeats_done", sa.Integer(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.CheckConstraint("kind IN ('person', 'ratings', 'reward', 'judge')", name=op.f("ck_annotator_kind")),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_annotator_project")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotator")),
        sa.UniqueConstraint("project", "name", name=op.f("uq_annotator_project_name")),
        sa.UniqueConstraint("token", name=op.f("uq_annotator_token")),
    )
    op.create_table(
        "preference",
        sa.Column("id", _ID, nullable=False),
        sa.Column("project", _ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("chosen", sa.Text(), nullable=False),
        sa.Column("rejected", sa.Text(), nullable=False),
        sa.Column("chosen_rating", sa.Float(), nullable=True),
        sa.Column("rejected_rating", sa.Float(), nullable=True),
        sa.Column("strength", sa.Float(), nullable=True),
        sa.Column("soft_label", sa.Float(), nullable=True),
        sa.Column("annotator", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_preference_project")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_preference")),
        sa.UniqueConstraint("project", "key", name=op.f("uq_preference_project_key")),
        sa.UniqueConstraint("project", "position", name=op.f("uq_preference_project_position")),
    )
    op.create_table(
        "item",
        sa.Column("id", _ID, nullable=False),
        sa.Column("project", _ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("first", _ID, nullable=False),
        sa.Column("second", _ID, nullable=True),
        sa.Column("gold", sa.String(length=20), nullable=True),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("taken", sa.Integer(), nullable=False),
        sa.Column("returned", sa.Boolean(), nullable=False),
        sa.CheckConstraint("gold IN ('first', 'second', 'tie', 'unsure', 'wrong')", name=op.f("ck_item_gold")),
        sa.CheckConstraint("kind IN ('preference', 'pop')", name=op.f("ck_item_kind")),
        sa.CheckConstraint("taken >= 0 AND taken <= overlap", name=op.f("ck_item_taken")),
        sa.ForeignKeyConstraint(["first"], ["preference.id"], name=op.f("fk_item_first")),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_item_project")),
        sa.ForeignKeyConstraint(["second"], ["preference.id"], name=op.f("fk_item_second")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_item")),
    )
    op.create_index(
        "ix_item_gold",
        "item",
        ["project", "position"],
        unique=False,
        sqlite_where=sa.text("gold IS NOT NULL"),
        postgresql_where=sa.text("gold IS NOT NULL"),
    )
    op.create_index(
        "ix_item_open",
        "item",
        ["project", "position"],
        unique=False,
        sqlite_where=sa.text("taken < overlap AND gold IS NULL"),
        postgresql_where=sa.text("taken < overlap AND gold IS NULL"),
    )
    op.create_index(
        "ix_item_returned",
        "item",
        ["project", "position"],
        unique=False,
        sqlite_where=sa.text("returned"),
        postgresql_where=sa.text("returned"),
    )
    op.create_table(
        "assignment",
        sa.Column("id", _ID, nullable=False),
        sa.Column("project", _ID, nullable=False),
        sa.Column("item", _ID, nullable=False),
        sa.Column("annotator", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("expires_at", _TIME, nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("takes_place", sa.Boolean(), nullable=False),
        sa.Column("repeat_of", _ID, nullable=True),
        sa.Column("is_repeat", sa.Boolean(), nullable=False),
        sa.Column("swap_pairs", sa.Boolean(), nullable=False),
        sa.Column("swap_first", sa.Boolean(), nullable=False),
        sa.Column("swap_second", sa.Boolean(), nullable=False),
        sa.Column("changed_at", _TIME, nullable=False),
        sa.CheckConstraint("state IN ('leased', 'done', 'skipped', 'expired')", name=op.f("ck_assignment_state")),
        sa.ForeignKeyConstraint(["annotator"], ["annotator.id"], name=op.f("fk_assignment_annotator")),
        sa.ForeignKeyConstraint(["item"], ["item.id"], name=op.f("fk_assignment_item")),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_assignment_project")),
        sa.ForeignKeyConstraint(["repeat_of"], ["assignment.id"], name=op.f("fk_assignment_repeat_of")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assignment")),
        sa.UniqueConstraint("annotator", "item", "is_repeat", name=op.f("uq_assignment_annotator_item_is_repeat")),
        sa.UniqueConstraint("annotator", "number", name=op.f("uq_assignment_annotator_number")),
    )
    op.create_index(
        "ix_assignment_lease",
        "assignment",
        ["project", "expires_at"],
        unique=False,
        sqlite_where=sa.text("state = 'leased'"),
        postgresql_where=sa.text("state = 'leased'"),
    )
    op.create_index("ix_assignment_state", "assignment", ["annotator", "state", "number"], unique=False)
    op.create_table(
        "label",
        sa.Column("id", _ID, nullable=False),
        sa.Column("assignment", _ID, nullable=False),
        sa.Column("annotator", _ID, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(length=20), nullable=True),
        sa.Column("wrong", sa.String(length=20), nullable=True),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("request", sa.String(length=200), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.CheckConstraint("verdict IN ('first', 'second', 'tie', 'unsure', 'wrong')", name=op.f("ck_label_verdict")),
        sa.CheckConstraint("wrong IN ('first', 'second', 'both')", name=op.f("ck_label_wrong")),
        sa.ForeignKeyConstraint(["annotator"], ["annotator.id"], name=op.f("fk_label_annotator")),
        sa.ForeignKeyConstraint(["assignment"], ["assignment.id"], name=op.f("fk_label_assignment")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label")),
        sa.UniqueConstraint("annotator", "request", name=op.f("uq_label_annotator_request")),
        sa.UniqueConstraint("assignment", "revision", name=op.f("uq_label_assignment_revision")),
    )
    op.create_index("ix_label_annotator", "label", ["annotator", "id"], unique=False)
