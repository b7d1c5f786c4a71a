"""Tables of the label store. A change here needs a revision in `migrations/versions` and its number in `REVISION`."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from popmargin.data.questions import KINDS, SIDES, VERDICTS
from popmargin.label.store.records import ANNOTATOR_KINDS, API_ROLES, WRONGS

REVISION = "0090"
"""Newest schema revision: the one these tables follow."""


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC; SQLite stores no time zone, so it is removed and restored."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC).replace(tzinfo=None) if value and dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
# SQLite numbers rows only if the key is INTEGER; elsewhere ids have room for years of labels.
_ID = BigInteger().with_variant(Integer, "sqlite")


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in values)})", name=column)


def _reference(name: str, target: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, _ID, ForeignKey(f"{target}.id"), nullable=nullable)


def _flag(name: str) -> Column[Any]:
    return Column(name, Boolean, nullable=False)


project = Table(
    "project",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("overlap", Integer, nullable=False),
    CheckConstraint("overlap >= 1", name="overlap"),
    Column("seed", BigInteger, nullable=False),
    Column("lease_seconds", Integer, nullable=False),
    CheckConstraint("lease_seconds >= 1", name="lease"),
    Column("guidelines", Text, nullable=False),
    # Counts changes from 1; null where there was none. An annotator has acknowledged `guidelines_seen`.
    Column("guidelines_version", Integer),
    Column("repeat_share", Float, nullable=False),
    # Counters, so that progress needs no count over all rows.
    Column("items", Integer, nullable=False, default=0),
    Column("gold_items", Integer, nullable=False, default=0),
    Column("wanted", BigInteger, nullable=False, default=0),
    Column("preferences", Integer, nullable=False, default=0),
    Column("conversational", Boolean),
    Column("scale", Integer),
    # Whether responses are images; null before the first import, and in projects older than images.
    Column("images", Boolean),
    # What a response should be more of, as a comparative, and whether it is asked by how much; null: better, no.
    Column("wording", Text),
    Column("grades", Boolean),
    # Gold items that everybody gets first, with feedback, and the share of them to get right; null means none.
    Column("training", Integer),
    Column("passing", Float),
    # Whether tasks are given out: one of records.STATES; null means open.
    Column("state", String(20)),
    # Whether adjudicators decide without seeing the votes; null means no.
    Column("votes_hidden", Boolean),
    # A JSON list of columns of the data that are shown with a task; null: none.
    Column("shown", Text),
    # Whether an answer about two responses may be that both are bad; null means no.
    Column("both_bad", Boolean),
    # A JSON list of names and questions, of which the first is that of the verdicts; null: a single question.
    Column("criteria", Text),
    # Of the annotators' pages: the tag of a shipped language, or all texts as a JSON object; null: English.
    Column("language", Text),
    Column("created_at", UtcDateTime, nullable=False),
)

preference = Table(
    "preference",
    metadata,
    Column("id", _ID, primary_key=True),
    _reference("project", "project"),
    Column("position", Integer, nullable=False),
    Column("key", Text, nullable=False),
    # Texts are JSON, even plain strings: messages keep their structure, and every character can be stored.
    Column("prompt", Text, nullable=False),
    Column("chosen", Text, nullable=False),
    Column("rejected", Text, nullable=False),
    Column("chosen_rating", Float),
    Column("rejected_rating", Float),
    Column("strength", Float),
    Column("soft_label", Float),
    Column("annotator", Text),
    # A JSON object of all other non-empty columns; null if there are none.
    Column("extra", Text),
    UniqueConstraint("project", "key"),
    UniqueConstraint("project", "position"),
)

# Every distinct image once, in however many preferences and projects it is; bytes last, so the rest is read without.
image = Table(
    "image",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("media_type", String(100), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    # PNG files: the pixels that training reads, if a browser would show others; and smaller, if there are too many.
    Column("reduced", LargeBinary),
    Column("converted", LargeBinary),
    Column("content", LargeBinary, nullable=False),
)

project_image = Table(
    "project_image",
    metadata,
    Column("project", _ID, ForeignKey("project.id"), primary_key=True),
    Column("image", _ID, ForeignKey("image.id"), primary_key=True),
)

item = Table(
    "item",
    metadata,
    Column("id", _ID, primary_key=True),
    _reference("project", "project"),
    Column("position", Integer, nullable=False),
    Column("kind", String(20), nullable=False),
    _one_of("kind", KINDS),
    _reference("first", "preference"),
    _reference("second", "preference", nullable=True),
    # Of a ranking: a JSON list of the keys of the preferences after the first; null in other kinds.
    Column("others", Text),
    Column("response", String(20)),
    _one_of("response", SIDES),
    Column("gold", String(20)),
    CheckConstraint(f"gold IN ({', '.join(map(repr, VERDICTS))}) OR gold LIKE '_>%'", name="gold"),
    # Known answers by criterion, a JSON object; null: `gold` is about the only question, or the first criterion.
    Column("gold_criteria", Text),
    Column("overlap", Integer, nullable=False),
    Column("taken", Integer, nullable=False),
    _flag("returned"),
    # Place in a run of items of which each shares a preference with the one before; null: in none.
    Column("link", Integer),
    # Only for people whom it is offered to (table offer); null means for everybody.
    Column("reserved", Boolean),
    # More may be taken than are wanted, if the overlap was lowered.
    CheckConstraint("taken >= 0", name="taken"),
)
OPEN = "taken < overlap AND gold IS NULL AND reserved IS NULL"
"""Items that anybody may get: the condition of their index, which a database uses only if a query repeats it."""
START = f"{OPEN} AND (link IS NULL OR link = 0)"
for _name, _condition in (
    ("ix_item_open", OPEN),
    ("ix_item_returned", "returned"),
    ("ix_item_gold", "gold IS NOT NULL"),
    ("ix_item_start", START),
):
    Index(_name, item.c.project, item.c.position, sqlite_where=text(_condition), postgresql_where=text(_condition))
Index(
    "ix_item_reserved",
    item.c.project,
    item.c.taken,
    item.c.overlap,
    sqlite_where=text("reserved IS NOT NULL"),
    postgresql_where=text("reserved IS NOT NULL"),
)

annotator = Table(
    "annotator",
    metadata,
    Column("id", _ID, primary_key=True),
    _reference("project", "project"),
    Column("name", String(200), nullable=False),
    Column("kind", String(20), nullable=False),
    _one_of("kind", ANNOTATOR_KINDS),
    _flag("active"),
    Column("token", String(64), nullable=False, unique=True),
    Column("cursor", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("repeats_done", Integer, nullable=False),
    # Answers are kept but do not count, and hold no places; null means no.
    Column("discarded", Boolean),
    Column("guidelines_seen", Integer),
    # Whether the worked example was read; null where there was none.
    Column("example_seen", Boolean),
    # Got too few training items right and waits for the lead; null while that is not decided.
    Column("held", Boolean),
    # Decides items on which others disagree; null means no.
    Column("adjudicator", Boolean),
    # Answers they are asked for in all; null means no limit.
    Column("quota", Integer),
    # Sees the project's admin pages; null means no.
    Column("lead", Boolean),
    # How much each of their labels counts in what is made of them; null means 1.
    Column("weight", Float),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("project", "name"),
)

# Items that a person gets before all others; `waiting` until they have got it.
offer = Table(
    "offer",
    metadata,
    Column("annotator", _ID, ForeignKey("annotator.id"), primary_key=True),
    Column("item", _ID, ForeignKey("item.id"), primary_key=True),
    Column("position", Integer, nullable=False),
    _flag("waiting"),
    Index("ix_offer_item", "item"),
)
Index(
    "ix_offer_waiting",
    offer.c.annotator,
    offer.c.position,
    sqlite_where=text("waiting"),
    postgresql_where=text("waiting"),
)

assignment = Table(
    "assignment",
    metadata,
    Column("id", _ID, primary_key=True),
    _reference("project", "project"),
    _reference("item", "item"),
    _reference("annotator", "annotator"),
    Column("number", Integer, nullable=False),
    Column("state", String(20), nullable=False),
    _one_of("state", ("leased", "done", "skipped", "expired")),
    Column("expires_at", UtcDateTime),
    Column("revision", Integer, nullable=False),
    _flag("takes_place"),
    _reference("repeat_of", "assignment", nullable=True),
    _flag("is_repeat"),
    _flag("swap_pairs"),
    _flag("swap_first"),
    _flag("swap_second"),
    Column("changed_at", UtcDateTime, nullable=False),
    # First sent to the annotator, and seconds since in which it was not open.
    Column("shown_at", UtcDateTime),
    Column("idle", Float),
    # The label decides an item on which others disagree; null means no.
    Column("adjudicates", Boolean),
    # A gold item that came first, with feedback; null means no.
    Column("training", Boolean),
    # True for answers given elsewhere on a screen that is not known: the swaps are then drawn, and mean nothing.
    Column("order_unknown", Boolean),
    # Of a ranking: the numbers of its preferences as they stood on the screen, written as an answer; null: no ranking.
    Column("shown_order", String(20)),
    UniqueConstraint("annotator", "item", "is_repeat"),
    UniqueConstraint("annotator", "number"),
)
Index("ix_assignment_item", assignment.c["item"])
Index("ix_assignment_state", assignment.c.annotator, assignment.c.state, assignment.c.number)
LEASED = text("assignment.state = 'leased'")
"""The condition of the lease index: a database uses the index only if a query repeats it without parameters."""
Index(
    "ix_assignment_lease",
    assignment.c.project,
    assignment.c.expires_at,
    sqlite_where=text("state = 'leased'"),
    postgresql_where=text("state = 'leased'"),
)

label = Table(
    "label",
    metadata,
    Column("id", _ID, primary_key=True),
    _reference("assignment", "assignment"),
    _reference("annotator", "annotator"),
    Column("revision", Integer, nullable=False),
    Column("verdict", String(20)),
    CheckConstraint(f"verdict IN ({', '.join(map(repr, VERDICTS))}) OR verdict LIKE '_>%'", name="verdict"),
    Column("wrong", String(20)),
    _one_of("wrong", WRONGS),
    Column("confidence", Float),
    # By how much the better response is better: 1 to 3; null if it was not asked or not said.
    Column("grade", Integer),
    Column("note", Text, nullable=False),
    Column("seconds", Float),
    Column("idle", Float),
    Column("request", String(200), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # Version that the annotator had acknowledged; null without one, for models, and in labels older than versions.
    Column("guidelines_version", Integer),
    # Verdicts on the project's criteria after the first, a JSON object; null: none.
    Column("criteria", Text),
    UniqueConstraint("assignment", "revision"),
    UniqueConstraint("annotator", "request"),
    Index("ix_label_annotator", "annotator", "id"),
)

Index(
    "ix_label_note",
    label.c.assignment,
    sqlite_where=text("note <> ''"),
    postgresql_where=text("note <> ''"),
)

# What was changed while people labelled: settings and guidelines, as texts.
project_change = Table(
    "project_change",
    metadata,
    Column("id", _ID, primary_key=True),
    _reference("project", "project"),
    Column("at", UtcDateTime, nullable=False),
    Column("who", String(200), nullable=False),
    Column("setting", String(40), nullable=False),
    Column("value_before", Text, nullable=False),
    Column("value_after", Text, nullable=False),
    Index("ix_project_change_project_id", "project", "id"),
)

api_token = Table(
    "api_token",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("role", String(20), nullable=False),
    _one_of("role", API_ROLES),
    # SHA-256 of the token, which is not stored.
    Column("token", String(64), nullable=False, unique=True),
    Column("created_at", UtcDateTime, nullable=False),
)

webhook = Table(
    "webhook",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("project", _ID, ForeignKey("project.id"), nullable=False, unique=True),
    Column("url", Text, nullable=False),
    Column("secret", String(100), nullable=False),
    # Whether addresses that only this network reaches are allowed.
    _flag("private"),
    # Failures since the last success; not before `due_at` is it tried again.
    Column("attempts", Integer, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("error", Text, nullable=False),
    Column("given_up", Integer, nullable=False),
)

# What waits to be delivered, in this order; deleted once it is.
webhook_event = Table(
    "webhook_event",
    metadata,
    Column("id", _ID, primary_key=True),
    _reference("webhook", "webhook"),
    Column("event", String(40), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index("ix_webhook_event_webhook_id", "webhook", "id"),
)
