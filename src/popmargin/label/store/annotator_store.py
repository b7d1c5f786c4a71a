"""The annotators of a label store: who may label, their tokens, and whose labels count."""

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy.exc import IntegrityError

from popmargin.errors import DataError
from popmargin.label.store import access
from popmargin.label.store.database import Database
from popmargin.label.store.records import Annotator, AnnotatorKind, Project


class AnnotatorStore:
    """The part of a label store that is about annotators; every method is one small transaction.

    Args:
        database: an opened database; `LabelStore.open` makes one.
        clock: returns the time; for tests.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime] | None = None) -> None:
        self._database = database
        self._clock = clock or (lambda: datetime.now(UTC))

    def add_annotator(self, project: int, name: str, *, kind: AnnotatorKind = "person") -> tuple[Annotator, str]:
        """A new annotator and their token, which is not stored: only its SHA-256 is.

        Raises:
            DataError: the name is taken in this project, or there is no such project.
        """
        try:
            return self._database.write(
                lambda connection: access.add_annotator(connection, project, name, kind, self._clock())
            )
        except IntegrityError as error:
            raise DataError(f"The project already has an annotator '{name}'. Choose another name.") from error

    def new_token(self, annotator: int) -> str:
        """A new token for an annotator; the old one stops working."""
        return self._database.write(lambda connection: access.new_token(connection, annotator))

    def note_example(self, annotator: int) -> None:
        """Note that an annotator has read the worked example, which is not shown first again."""
        self._database.write(lambda connection: access.note_example(connection, annotator))

    def annotators(self, project: int) -> list[Annotator]:
        """All annotators of a project, oldest first."""
        with self._database.read() as connection:
            return access.annotators(connection, project)

    def set_active(self, annotator: int, active: bool) -> None:
        """Activate or deactivate an annotator; deactivating returns open items and refuses the token, and the answers
        still count. Activating also takes back what `discard` did."""
        self._database.write(lambda connection: access.set_active(connection, annotator, active, self._clock()))

    def discard(self, annotator: int) -> int:
        """Deactivate an annotator whose answers shall no longer count; returns how many places others get.

        Nothing is deleted: `label_history` has the answers, and `set_active` counts them again.

        Raises:
            DataError: there is no such annotator.
        """
        return self._database.write(lambda connection: access.discard(connection, annotator, self._clock()))

    def acknowledge(self, annotator: int, version: int) -> None:
        """Note that an annotator has read this version of the guidelines; the labels from now on are under it.

        Raises:
            DataError: there is no such annotator, or not yet such a version.
        """
        self._database.write(lambda connection: access.acknowledge(connection, annotator, version))

    def is_switched_off(self, token: str) -> bool:
        """Whether a token is that of an annotator who is not active."""
        with self._database.read() as connection:
            return access.is_switched_off(connection, token)

    def annotator_of(self, token: str) -> tuple[Project, Annotator] | None:
        """Project and annotator of a token; None if it is nobody's, or the annotator is not active."""
        with self._database.read() as connection:
            return access.annotator_of(connection, token)
