"""Answers: recorded once, even if a request is repeated; changed by adding revisions, never overwritten.

Every function runs inside one write transaction.
"""

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Connection, select, update

from popmargin.data.questions import RATINGS, VERDICTS, Kind, Verdict, is_order
from popmargin.errors import ConfigError, DataError, counted, did_you_mean
from popmargin.label.store.assign import (
    end_lease,
    lease,
    lock_annotator,
    next_training,
    own_assignment,
    refuse_archived,
    shown,
    take_place,
)
from popmargin.label.store.criteria import check_verdicts, dump_verdicts, load_criteria, load_verdicts
from popmargin.label.store.database import Database
from popmargin.label.store.project_events import note_labels
from popmargin.label.store.ranked_items import check_order
from popmargin.label.store.records import SWAPS, WRONGS, Label, Wrong
from popmargin.label.store.sql_tables import annotator, assignment, item, label
from popmargin.label.store.training import qualify

NOTE_CHARACTERS = 10_000
REQUEST_CHARACTERS = 200
GRADES = (1, 2, 3)


class StaleAnswerError(DataError):
    """An answer to a page that is older than the answer that stands."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an annotator said about an item, checked.

    Raises:
        DataError: an invalid answer; the message names the value.
    """

    verdict: Verdict
    request: str
    wrong: Wrong | None = None
    confidence: float | None = None
    note: str = ""
    seconds: float | None = None
    idle: float | None = None
    grade: int | None = None
    criteria: Mapping[str, Verdict] = field(default_factory=dict[str, Verdict])

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS and not is_order(self.verdict):
            raise DataError(f"verdict is {self.verdict!r}. {did_you_mean(str(self.verdict), VERDICTS)}")
        if self.wrong is not None and (self.wrong not in WRONGS or self.verdict != "wrong"):
            raise DataError(
                f"wrong is {self.wrong!r}; with verdict 'wrong' it must be one of {', '.join(WRONGS)}; otherwise "
                "omit it."
            )
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise DataError(f"confidence is {self.confidence}; give a number from 0 to 1, or omit it.")
        for name, value in (("seconds", self.seconds), ("idle", self.idle)):
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise DataError(f"{name} is {value}; give a number ≥ 0, or omit it.")
        if self.grade is not None and (self.grade not in GRADES or self.verdict not in ("first", "second")):
            raise DataError(
                f"grade is {self.grade!r} with verdict '{self.verdict}'; give 1 (slightly), 2 (clearly) or 3 (much) "
                "with first or second, or omit it."
            )
        object.__setattr__(self, "request", clean(self.request))
        if not 1 <= len(self.request) <= REQUEST_CHARACTERS:
            raise DataError(
                f"request has {counted(len(self.request), 'character')}; it needs 1 to {REQUEST_CHARACTERS}."
            )
        object.__setattr__(self, "note", clean(self.note))
        if len(self.note) > NOTE_CHARACTERS:
            raise DataError(
                f"note has {counted(len(self.note), 'character')}; the limit is {NOTE_CHARACTERS}. Shorten it."
            )

    def columns(self) -> dict[str, Any]:
        """The answer as columns of the table of labels."""
        return {**self.__dict__, "criteria": dump_verdicts(self.criteria)}

    def check(self, kind: Kind, scale: int | None = None, others: str | None = None) -> None:
        """Refuse anything that is not an answer to an item of this kind, or not a number on the scale.

        Args:
            kind: of the item.
            scale: of the project.
            others: the preferences of a ranking, as the item keeps them.
        """
        if kind == "rank":
            check_order(self.verdict, others)
        elif is_order(self.verdict):
            raise DataError(
                f"'{self.verdict}' is an order of several preferences, which items of kind '{kind}' do not ask for."
            )
        numbers = RATINGS[:scale]
        if kind == "rating" and self.verdict not in (*numbers, "unsure"):
            raise DataError(f"'{self.verdict}' is not a rating; give a number from 1 to {numbers[-1]}, or 'unsure'.")
        if kind != "rating" and self.verdict in RATINGS:
            raise DataError(f"'{self.verdict}' is a rating, but items of kind '{kind}' do not ask for one.")
        if self.grade is not None and kind != "preference":
            raise DataError(f"A grade says how much better one of two responses is; items of kind '{kind}' have none.")
        if self.verdict == "wrong" and kind == "preference":
            raise DataError(
                "'wrong' is an answer about a pair of preferences; for a single preference choose 'second'."
            )
        if self.verdict == "both_bad" and kind != "preference":
            raise DataError(f"'both_bad' is an answer about two responses; items of kind '{kind}' do not take it.")


def clean(words: str) -> str:
    """Text that a database can store: NUL and halves of surrogate pairs become U+FFFD."""
    return words.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def record(
    connection: Connection, who: int, number: int, answer: Answer, now: datetime, *, seen: int | None = None
) -> Label:
    """Store an answer, or find the one already stored by the same request; `seen` is the revision on its page."""
    person = lock_annotator(connection, who)
    stored = connection.execute(
        select(label).where(label.c.annotator == who, label.c.request == answer.request)
    ).one_or_none()
    if stored is not None:
        if stored.assignment != number:
            raise DataError(
                f"request {answer.request!r} already answered assignment {stored.assignment}, not {number}."
            )
        had = (stored.verdict, stored.wrong, stored.grade, stored.criteria)
        if had != (answer.verdict, answer.wrong, answer.grade, dump_verdicts(answer.criteria)):
            raise DataError(
                f"request {answer.request!r} already stored a different answer to assignment {number}, which is "
                "kept. Send the new answer with a new request key (on the page: edit the answer in your list)."
            )
        return label_of(stored)
    refuse_archived(person)
    given = own_assignment(connection, who, number)
    asked = connection.execute(select(item.c.kind, item.c.others).where(item.c.id == given.item)).one()
    kind = asked.kind
    answer.check(kind, person.scale, asked.others)
    if answer.verdict == "both_bad" and not person.both_bad:
        raise DataError(
            "The project does not offer the answer 'both_bad'. Offer it with: popmargin label set --both-bad."
        )
    criteria = load_criteria(person.criteria)
    check_verdicts(criteria, answer.criteria, kind, person.scale, both_bad=bool(person.both_bad))
    if seen is not None and given.state == "done" and given.revision != seen:
        raise StaleAnswerError(
            f"Assignment {number} was answered since this page was loaded (revision {given.revision}, not {seen}). "
            "Nothing was changed. Load it again, and send the new answer with its revision."
        )
    if given.state in ("expired", "skipped") and given.takes_place and not take_place(connection, given.item):
        raise DataError(
            f"Assignment {number} was given back and others have since labelled the item, so this answer was not "
            "stored. Continue with the next item."
        )
    if given.state != "done":
        _count(connection, person.id, given, 1)
    values = {**answer.columns(), "guidelines_version": person.guidelines_seen or None}
    made = _add_revision(connection, given, values, "done", now)
    if given.training:
        qualify(connection, person, more=next_training(connection, person) is not None)
    return made


def skip(connection: Connection, who: int, number: int, now: datetime) -> None:
    """Put an assignment at the end of the annotator's queue; its place is free for others meanwhile."""
    refuse_archived(lock_annotator(connection, who))
    given = own_assignment(connection, who, number)
    if given.state == "done":
        raise DataError(f"Assignment {number} is already answered and cannot be skipped. Undo the answer first.")
    if given.state == "leased":
        end_lease(connection, given, "skipped", now)
    elif given.state == "expired":
        connection.execute(
            update(assignment).where(assignment.c.id == number).values(state="skipped", changed_at=now)
        )  # fmt: skip


def resume(connection: Connection, who: int, number: int, now: datetime) -> None:
    """Open a skipped assignment again."""
    person = lock_annotator(connection, who)
    refuse_archived(person)
    given = own_assignment(connection, who, number)
    if given.state == "leased":
        return
    if given.state == "done":
        raise DataError(f"Assignment {number} is already answered. Change the answer instead.")
    if person.project_state == "paused" or person.held or (person.quota is not None and person.done >= person.quota):
        raise DataError("There are no tasks for you at the moment, so this one was not opened.")
    if given.takes_place and not take_place(connection, given.item):
        raise DataError(f"Others have labelled the item of assignment {number} since it was skipped.")
    lease(connection, number, person, now, since=given.changed_at)


def undo(connection: Connection, who: int, now: datetime) -> int | None:
    """Withdraw the newest current answer and lease its item again; None if there is no answer."""
    person = lock_annotator(connection, who)
    refuse_archived(person)
    found = connection.execute(
        select(label.c.assignment, label.c.note, label.c.confidence)
        .join(assignment, (assignment.c.id == label.c.assignment) & (assignment.c.revision == label.c.revision))
        .where(label.c.annotator == who, label.c.verdict.is_not(None))
        .order_by(label.c.id.desc())
        .limit(1)
    ).one_or_none()
    if found is None:
        return None
    given = own_assignment(connection, who, found.assignment)
    # Note and confidence stay, for the next answer.
    beside = {"note": found.note, "confidence": found.confidence}
    withdrawn = {"verdict": None, "request": f"undo-{secrets.token_hex(16)}", **beside}
    _count(connection, person.id, given, -1)
    _add_revision(connection, given, withdrawn, "leased", now)
    lease(connection, given.id, person, now, since=given.changed_at)
    return int(given.id)


def _count(connection: Connection, who: int, given: Any, step: int) -> None:
    connection.execute(
        update(annotator)
        .where(annotator.c.id == who)
        .values(
            done=annotator.c.done + step,
            repeats_done=annotator.c.repeats_done + (step if given.is_repeat or given.adjudicates else 0),
        )
    )


def _add_revision(connection: Connection, given: Any, values: Mapping[str, Any], state: str, now: datetime) -> Label:
    revision = given.revision + 1
    stored = connection.execute(
        label.insert()
        .values(**values, assignment=given.id, annotator=given.annotator, revision=revision, created_at=now)
        .returning(label)
    ).one()
    connection.execute(
        update(assignment)
        .where(assignment.c.id == given.id)
        .values(state=state, revision=revision, expires_at=None, changed_at=now)
    )
    note_labels(connection, given.annotator, [stored.request], now)
    return label_of(stored)


def label_of(row: Any) -> Label:
    """The record of a row of the table of labels."""
    return Label(
        id=row.id,
        assignment=row.assignment,
        revision=row.revision,
        verdict=row.verdict,
        wrong=row.wrong,
        confidence=row.confidence,
        note=row.note,
        seconds=row.seconds,
        request=row.request,
        created_at=row.created_at,
        idle=row.idle,
        guidelines_version=row.guidelines_version,
        grade=row.grade,
        criteria=load_verdicts(row.criteria),
    )


def answer_rows(verdicts: Any) -> list[dict[str, Any]]:
    """Rows of a table of a model's answers, checked.

    Raises:
        DataError: a column is missing or unknown, an item comes twice, or a row is not a valid answer.
    """
    known = ("item", "verdict", "request", "wrong", "confidence", "seconds", "note")
    order = ("swap_pairs", "swap_first", "swap_second")
    for name in verdicts.column_names:
        if name not in known + order:
            raise DataError(f"verdicts: unknown column '{name}'. {did_you_mean(name, known + order)}")
    for name in known[:3]:
        if name not in verdicts.column_names:
            raise DataError(f"verdicts: no column '{name}'. Give item, verdict and request.")
    rows: list[dict[str, Any]] = []
    seen: set[int] = set()
    for number, row in enumerate(verdicts.to_pylist()):
        if row["item"] in seen:
            raise DataError(f"verdicts: row {number}: item {row['item']} appears twice. Keep one row.")
        seen.add(row["item"])
        values: dict[str, Any] = {name: row.get(name) for name in known[1:]}
        try:
            values |= {"request": values["request"] or "", "note": values["note"] or ""}
            answer = Answer(**values)
        except DataError as error:
            raise DataError(f"verdicts: row {number}: {error}") from error
        shown = {name: row.get(name) for name in order}
        rows.append({"row": number, "item": row["item"], "request": answer.request, "answer": answer, **shown})
    return rows


def record_many(
    database: Database, connection: Connection, who: int, rows: Sequence[Mapping[str, Any]], now: datetime
) -> int:
    """Store a model's answers, to any items; rows of known requests are skipped."""
    person = lock_annotator(connection, who)
    refuse_archived(person)
    if person.kind == "person":
        raise ConfigError(f"'{person.name}' is a person: people answer one assignment at a time, from next_assignment.")
    if person.criteria:
        raise ConfigError(
            "The project asks about several criteria, and models give one verdict. Label it in a project of one."
        )
    requests = [row["request"] for row in rows]
    known = set(
        connection.execute(
            select(label.c.request).where(label.c.annotator == who, label.c.request.in_(requests))
        ).scalars()
    )  # fmt: skip
    fresh = [row for row in rows if row["request"] not in known]
    if not fresh:
        return 0
    numbers = [row["item"] for row in fresh]
    _check_answers(connection, person, fresh)
    had = {
        row.item: row
        for row in connection.execute(
            select(assignment).where(
                assignment.c.annotator == who, assignment.c.item.in_(numbers), ~assignment.c.is_repeat
            )
        )
    }  # fmt: skip
    given = {number: (row.id, row.revision) for number, row in had.items()}
    new = [row for row in fresh if row["item"] not in had]
    if new:
        given |= _give_done(database, connection, person, new, now)
    labels = [
        {
            **row["answer"].columns(),
            "assignment": given[row["item"]][0],
            "annotator": who,
            "revision": given[row["item"]][1] + 1,
            "created_at": now,
        }
        for row in fresh
    ]
    database.insert(connection, label, labels)
    for row in had.values():
        connection.execute(
            update(assignment)
            .where(assignment.c.id == row.id)
            .values(state="done", revision=row.revision + 1, changed_at=now)
        )
    reopened = sum(row.state != "done" for row in had.values())
    connection.execute(
        update(annotator)
        .where(annotator.c.id == who)
        .values(done=annotator.c.done + len(new) + reopened, number=person.number + len(new))
    )
    note_labels(connection, who, [row["request"] for row in fresh], now)
    return len(fresh)


def _check_answers(connection: Connection, person: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    numbers = [row["item"] for row in rows]
    kinds: dict[int, tuple[Kind, str | None]] = {
        row.id: (cast(Kind, row.kind), row.others)
        for row in connection.execute(
            select(item.c.id, item.c.kind, item.c.others).where(
                item.c.project == person.project, item.c.id.in_(numbers)
            )
        )
    }
    for row in rows:
        if row["item"] not in kinds:
            raise DataError(
                f"row {row['row']}: the project has no item {row['item']}. Take items from LabelStore.items."
            )
        try:
            kind, others = kinds[row["item"]]
            row["answer"].check(kind, person.scale, others)
        except DataError as error:
            raise DataError(f"row {row['row']}: {error}") from error


def _give_done(
    database: Database, connection: Connection, person: Any, rows: Sequence[Mapping[str, Any]], now: datetime
) -> dict[int, tuple[int, int]]:
    """Assignments for these rows, answered with revision 1; item -> (assignment, revision before)."""
    made: list[dict[str, Any]] = []
    for place, row in enumerate(rows, 1):
        drawn = shown(person.seed, person.id, row["item"], repeat=False)
        order = {
            name: getattr(drawn, name) if row[name] is None else bool(row[name]) for name in SWAPS
        }  # fmt: skip
        made.append(
            {
                "project": person.project,
                "item": row["item"],
                "annotator": person.id,
                "number": person.number + place,
                "state": "done",
                "expires_at": None,
                "revision": 1,
                "takes_place": False,
                "repeat_of": None,
                "is_repeat": False,
                **order,
                "changed_at": now,
            }
        )
    database.insert(connection, assignment, made)
    found = connection.execute(
        select(assignment.c.item, assignment.c.id).where(
            assignment.c.annotator == person.id, assignment.c.number > person.number
        )
    )
    return {row.item: (row.id, 0) for row in found}
