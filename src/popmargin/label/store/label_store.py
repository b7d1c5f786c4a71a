"""The label store: projects, items, assignments and labels in SQLite or PostgreSQL."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from popmargin.data.questions import Kind, PreferenceText, Side, Verdict
from popmargin.data.schema import Preferences, holds_images
from popmargin.errors import DataError
from popmargin.label.store import (
    access,
    answers,
    assign,
    image_rows,
    item_list,
    items,
    outside_answers,
    queries,
    sql_tables,
)
from popmargin.label.store.browse import BrowsedItem, BrowsedPage, ItemState, browse, load_items
from popmargin.label.store.database import Database
from popmargin.label.store.known import Known
from popmargin.label.store.project_events import note
from popmargin.label.store.project_store import ProjectStore
from popmargin.label.store.records import (
    Adjudication,
    Annotator,
    Assignment,
    Label,
    Progress,
    State,
    Wrong,
)
from popmargin.label.store.shown_images import images_of

MANY = 5_000
OUTSIDE = 1_000


class LabelStore(ProjectStore):
    """A store of labels that are never lost or overwritten; every method is one or several small transactions.

    Safe for several threads and processes. All times are UTC.

    Args:
        database: an opened database; `LabelStore.open` makes one.
        clock: returns the time; for tests.
    """

    @staticmethod
    def open(url: str | Path) -> "LabelStore":
        """Open a store, creating it or migrating its schema.

        Args:
            url: a path or `sqlite:///path`, or `postgresql://user@host/name`.

        Raises:
            ConfigError: a URL of another kind.
            RunError: the database cannot be opened, contains something else, or was written by a newer popmargin.
            MissingExtraError: PostgreSQL's driver is not installed.
        """
        return LabelStore(Database(url))

    def close(self) -> None:
        """Close all connections; a SQLite file then holds everything by itself."""
        self._database.close()

    def __enter__(self) -> "LabelStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What is labelled

    def import_preferences(self, project: int, preferences: Preferences) -> int:
        """Store preferences with every column they have, and the files of their images; returns how many.

        Raises:
            DataError: the project already has one of the ids, or has the other kind of responses, and nothing is
                stored; or an image cannot be read, and no preference is stored.
        """
        database = self._database
        self._store_images(project, preferences)
        return database.write(lambda c: items.import_preferences(database, c, project, preferences))

    def add_items(
        self,
        project: int,
        kind: Kind,
        first: Sequence[str],
        second: Sequence[str] | None = None,
        *,
        gold: Sequence[Known | None] | None = None,
        overlap: int | None = None,
        response: Sequence[Side] | None = None,
        chained: bool = False,
        others: Sequence[Sequence[str]] | None = None,
    ) -> int:
        """Ask for labels of preferences ("preference"), pairs ("pop"), rankings ("rank") or responses ("rating").

        Args:
            project: id of the project.
            kind: what is asked.
            first: ids of preferences (N,).
            second: ids of the preferences they are compared with (N,); only for "pop".
            gold: known answers (N,), None where unknown; with criteria also criterion -> answer. A gold item goes to
                every person, whatever the overlap, at the rate of the gold items' share of all items.
            overlap: people who label each of these items; None for the project's.
            response: which response of each `first` is rated (N,); only for "rating".
            chained: keep this order, in which pairs share a preference with the one before; one annotator goes through
                a run of such pairs in order. Otherwise the order is shuffled.
            others: ids of the preferences that are ranked with each `first` (N,); only for "rank".

        Returns:
            How many items.

        Raises:
            DataError: an id the project does not have, a preference compared with itself, or columns of different
                lengths.
            ConfigError: an unknown kind, or an overlap out of range.
        """
        database = self._database

        def add(connection: Connection) -> int:
            count = items.add_items(
                database, connection, project, kind, first, second, gold, overlap, response, chained, others
            )
            note(connection, project, "project.changed", {"setting": "items"}, self._clock())
            return count

        return database.write(add)

    def append(
        self,
        project: int,
        preferences: Preferences,
        kind: Kind,
        first: Sequence[str],
        second: Sequence[str] | None = None,
        *,
        response: Sequence[Side] | None = None,
        chained: bool = False,
        others: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """`import_preferences` and `add_items` in one transaction, so that no appended row is left without its items.

        Args and errors: as there.
        """
        database = self._database
        self._store_images(project, preferences)

        def add(connection: Connection) -> None:
            items.import_preferences(database, connection, project, preferences)
            items.add_items(database, connection, project, kind, first, second, None, None, response, chained, others)
            note(connection, project, "project.changed", {"setting": "items"}, self._clock())

        database.write(add)

    def _store_images(self, project: int, preferences: Preferences) -> None:
        """Store images, in transactions of a few: an import that ends early is repeated without harm."""
        if holds_images(preferences):
            self._database.write(lambda c: items.check_import(c, project, preferences))
            for images in images_of(preferences):
                self._database.write(lambda c, images=images: image_rows.add_images(c, project, images))

    def items(self, project: int, *, unlabelled_by: int | None = None) -> Iterator[Any]:
        """Items in Arrow batches of `item_list.ITEM_SCHEMA`; optionally only those an annotator has not labelled."""
        return item_list.item_batches(self._database, project, unlabelled_by)

    def first_kind(self, project: int) -> Kind | None:
        """The kind of a project's first item; None before there are any."""
        with self._database.read() as connection:
            return items.first_kind(connection, project)

    def texts(self, project: int, ids: Sequence[str]) -> dict[str, PreferenceText]:
        """Texts of preferences, by id, in the order of the ids. A DataError if the project lacks one of them."""
        with self._database.read() as connection:
            return items.texts(connection, project, ids)

    def some_texts(self, project: int, most: int) -> dict[str, PreferenceText]:
        """Texts of at most so many preferences, by id, evenly spread over the import."""
        with self._database.read() as connection:
            return items.some_texts(connection, project, most)

    def image_file(self, project: int, name: str, *, reduced: bool = False) -> tuple[str, bytes] | None:
        """The media type and the bytes of an image as a browser is given them, or of its smaller copy, if there is one;
        None if the project does not have it."""
        with self._database.read() as connection:
            return image_rows.image_file(connection, project, name, reduced=reduced)

    def images(self, names: Sequence[str]) -> dict[str, bytes]:
        """The files of images by name, byte for byte as they were imported. A DataError if the store lacks one."""
        with self._database.read() as connection:
            return dict(image_rows.image_contents(connection, names))

    def preference_columns(self, project: int) -> dict[str, list[Any]]:
        """The imported preferences as columns, those of the schema and the data's own, in the order of import."""
        with self._database.read() as connection:
            return items.preference_columns(connection, project)

    def browse(
        self, project: int, *, state: ItemState | None = None, words: str = "", after: int = 0, limit: int = 50
    ) -> BrowsedPage:
        """Items in their order with everybody's labels, for a lead; args and errors as of `browse.browse`."""
        with self._database.read() as connection:
            return browse(connection, project, state=state, words=words, after=after, limit=limit)

    def browsed(self, project: int, item: int) -> BrowsedItem:
        """One item with everybody's labels. A DataError if the project does not have it."""
        with self._database.read() as connection:
            return load_items(connection, project, [item])[0]

    # Labelling

    def next_assignment(self, annotator: int) -> Assignment | None:
        """The annotator's current assignment; None if nothing is left.

        The same assignment is returned, with its lease renewed, until it is answered, skipped or expired.

        Raises:
            DataError: no such annotator, or one who is not active.
        """

        def take(connection: Connection) -> Assignment | None:
            found = assign.next_assignment(connection, annotator, self._clock())
            return None if found is None else queries.load_assignments(connection, annotator, [found])[0]

        return self._database.write(take)

    def assignment(self, annotator: int, assignment: int) -> Assignment:
        """An assignment of this annotator.

        Raises:
            DataError: there is no such assignment, or it is someone else's.
        """
        with self._database.read() as connection:
            return queries.load_assignments(connection, annotator, [assignment])[0]

    def record(
        self,
        annotator: int,
        assignment: int,
        verdict: Verdict,
        *,
        request: str,
        wrong: Wrong | None = None,
        confidence: float | None = None,
        note: str = "",
        seconds: float | None = None,
        idle: float | None = None,
        seen: int | None = None,
        grade: int | None = None,
        criteria: Mapping[str, Verdict] | None = None,
    ) -> Label:
        """Store an answer; it is on disk when this returns.

        The same request stores nothing more and returns the same label. Another request for the same assignment adds a
        revision, and the newest one counts. An answer after the lease expired counts if nobody has taken the slot.

        Args:
            annotator, assignment: whose answer to what.
            verdict: the answer.
            request: the client's own id of this answer, such as a random UUID made when the item was shown.
            wrong: with verdict "wrong": which of the two preferences is wrong.
            confidence: in [0, 1].
            note: free text.
            seconds: from the item's first appearance to the answer, without idle time.
            idle: seconds in which the item was not open, or the annotator was away.
            seen: the revision that the annotator saw (`Assignment.revision`): another answer that was given since then
                is not replaced. None replaces it.
            grade: with first or second of kind "preference": by how much it is better, 1 (slightly) to 3 (much).
            criteria: verdicts on the criteria of the project after the first, by name: all of them, or none is stored.

        Raises:
            DataError: an invalid answer, someone else's assignment, a slot that others have taken since, or a request
                that already stored a different answer.
            StaleAnswerError: a DataError: there is an answer that the annotator did not see.
        """
        answer = answers.Answer(
            verdict=verdict, request=request, wrong=wrong, confidence=confidence, note=note, seconds=seconds, idle=idle,
            grade=grade, criteria=criteria or {},
        )  # fmt: skip

        def save(connection: Connection) -> Label:
            return answers.record(connection, annotator, assignment, answer, self._clock(), seen=seen)

        return self._database.write(save)

    def skip(self, annotator: int, assignment: int) -> None:
        """Skip an item: it is not done, others may take it, and it comes back to this annotator last.

        Raises:
            DataError: someone else's assignment, or an answered one.
        """
        self._database.write(lambda c: answers.skip(c, annotator, assignment, self._clock()))

    def undo(self, annotator: int) -> Assignment | None:
        """Withdraw the newest answer and reopen its item; None if there is no answer.

        The answer stays in the history; a revision without a verdict is added. Calling it again withdraws the previous
        answer.
        """

        def withdraw(connection: Connection) -> Assignment | None:
            found = answers.undo(connection, annotator, self._clock())
            return None if found is None else queries.load_assignments(connection, annotator, [found])[0]

        return self._database.write(withdraw)

    def resume(self, annotator: int, assignment: int) -> None:
        """Open a skipped item again: it is the next one.

        Raises:
            DataError: someone else's assignment, an answered one, or a place that others have taken since.
        """
        self._database.write(lambda c: answers.resume(c, annotator, assignment, self._clock()))

    def take_disputed(self, annotator: int, item: int) -> None:
        """Open a disputed item that an adjudicator has chosen: it is the next one.

        Raises:
            DataError: no adjudicator, or the item is not disputed any more.
        """
        self._database.write(lambda c: assign.take_disputed(c, annotator, item, self._clock()))

    def history(
        self,
        annotator: int,
        *,
        limit: int = 50,
        before: int | None = None,
        states: Sequence[State] = ("done", "skipped"),
    ) -> list[Assignment]:
        """Answered and skipped assignments, newest first; `before` is the id of the last one on the previous page."""
        with self._database.read() as connection:
            return queries.history(connection, annotator, limit, before, states)

    def progress(self, project: int, annotator: int | None = None) -> Progress:
        """Progress of the project and of this annotator."""
        with self._database.read() as connection:
            return queries.progress(connection, project, annotator)

    def record_many(self, annotator: int, verdicts: Any) -> int:
        """Store a model's answers, which take no slots from people; returns how many were new.

        Args:
            annotator: an annotator of kind ratings, reward or judge.
            verdicts: Arrow table with columns item, verdict and request; optional wrong, confidence, seconds, note and,
                if the model saw the item in another order, swap_pairs, swap_first, swap_second. Rows of known
                requests are left alone, so that an interrupted run can be repeated.

        Raises:
            DataError: a column is missing, or a row is not a valid answer; rows before its batch of 5,000 are stored.
            ConfigError: the annotator is a person.
        """
        rows = answers.answer_rows(verdicts)
        database = self._database
        stored = 0
        for start in range(0, len(rows), MANY):
            part = rows[start : start + MANY]
            stored += database.write(
                lambda c, part=part: answers.record_many(database, c, annotator, part, self._clock())
            )
        return stored

    def record_judge(self, project: int, name: str, verdicts: Any) -> tuple[Annotator, int]:
        """Store a judge's answers as `record_many` does, all or none; a new name is added.

        Raises:
            DataError: the name is not that of a judge, or as of `record_many`.
        """
        rows = answers.answer_rows(verdicts)

        def save(connection: Connection) -> tuple[Annotator, int]:
            items.lock_project(connection, project)
            now = self._clock()
            known = {found.name: found for found in access.annotators(connection, project)}
            who = known.get(name) or access.add_annotator(connection, project, name, "judge", now)[0]
            if who.kind != "judge":
                raise DataError(f"'{name}' is a {who.kind} in this project, not a judge. Choose another name.")
            return who, answers.record_many(self._database, connection, who.id, rows, now)

        return self._database.write(save)

    def record_outside(
        self, project: int, name: str, rows: Sequence[outside_answers.OutsideAnswer]
    ) -> list[str | None]:
        """Store answers that a person gave elsewhere, to different items; unknown people are added, and cannot sign in.

        Returns:
            For each answer None, or the verdict of this person that stands in its place.

        Raises:
            ConfigError: the name is that of a model, empty or too long.
        """
        database = self._database
        who = database.write(lambda c: outside_answers.outside_annotator(c, project, name, self._clock()))
        found: list[str | None] = []
        for start in range(0, len(rows), OUTSIDE):
            part = rows[start : start + OUTSIDE]
            found += database.write(
                lambda c, part=part: outside_answers.record_outside(database, c, who, part, self._clock())
            )
        return found

    # Reading

    def labels(
        self,
        project: int,
        *,
        columns: Sequence[str] | None = None,
        without: Collection[str] = (),
        discarded: bool = False,
        adjudication: Adjudication | None = None,
    ) -> Any:
        """Arrow table of the current labels that count, one per answered assignment.

        Args:
            project: id of the project.
            columns: names from `queries.LABEL_SCHEMA`, None for all; a few are read much faster.
            without: names of annotators whose labels are left out.
            discarded: also those of annotators who are discarded.
            adjudication: of items that an adjudicator has decided, "wins" has only that label and "ignore" only the
                others; None has all.

        Raises:
            DataError: the project has no annotator of a name in `without`.
        """
        with self._database.read() as connection:
            access.refuse_unknown(connection, project, without)
            left_out = None if discarded and not without else (without, discarded)
            return queries.label_table(
                connection, project, columns, every_revision=False, left_out=left_out, adjudication=adjudication
            )

    def newest_label(self) -> int:
        """Number of the newest revision of any label, 0 without one: if it is the same, so are all labels."""
        with self._database.read() as connection:
            return connection.execute(select(func.max(sql_tables.label.c.id))).scalar() or 0

    def label_history(self, project: int) -> Any:
        """Every revision of every label, withdrawn ones with a null verdict; columns as of `labels`."""
        with self._database.read() as connection:
            return queries.label_table(connection, project, None, every_revision=True)
