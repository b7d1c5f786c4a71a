"""The annotators of a label store: who may label, their tokens, and whose labels count."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime

from sqlalchemy.exc import IntegrityError

from popmargin.errors import DataError
from popmargin.label.store import access
from popmargin.label.store.api_tokens import ApiTokens
from popmargin.label.store.database import Database
from popmargin.label.store.disputes import Vote, count_disputed, votes_on
from popmargin.label.store.records import Annotator, AnnotatorKind, Project
from popmargin.label.store.training import Trained, trained
from popmargin.label.store.webhooks import Webhooks


class AnnotatorStore:
    """The part of a label store that is about annotators; every method is one small transaction.

    Args:
        database: an opened database; `LabelStore.open` makes one.
        clock: returns the time; for tests.

    Attributes:
        api_tokens: tokens of the lead's API.
        webhooks: where events are sent, and those that wait.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime] | None = None) -> None:
        self._database = database
        self._clock = clock or (lambda: datetime.now(UTC))
        self.api_tokens = ApiTokens(database, self._clock)
        self.webhooks = Webhooks(database, self._clock)

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

    def refuse_unknown(self, project: int, names: Collection[str]) -> None:
        """Raise a DataError if the project has no annotator of one of these names."""
        with self._database.read() as connection:
            access.refuse_unknown(connection, project, names)

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

    def set_adjudicator(self, annotator: int, adjudicator: bool) -> None:
        """Let a person decide items on which others disagree, and no others; or label like others again.

        Raises:
            DataError: there is no such annotator, or it is a model.
        """
        self._database.write(
            lambda connection: access.set_adjudicator(connection, annotator, adjudicator, self._clock())
        )

    def set_quota(self, annotator: int, quota: int | None) -> None:
        """Ask an annotator for this many answers in all, repeated items included; None for no limit. A higher one gives
        the next batch.

        Raises:
            ConfigError: the number is below 0.
            DataError: there is no such annotator.
        """
        self._database.write(lambda connection: access.set_quota(connection, annotator, quota))

    def votes_on(self, item: int) -> list[Vote]:
        """What people, whose labels count, say of an item; without names."""
        with self._database.read() as connection:
            return votes_on(connection, item)

    def disputed(self, project: int) -> int:
        """How many items on which people disagree wait for an adjudicator."""
        with self._database.read() as connection:
            return count_disputed(connection, project)

    def forget(self, annotator: int) -> str:
        """Remove an annotator's name, notes and access for good; the labels stay under a pseudonym, which is returned.

        Copies of the store and exported files still have them.

        Raises:
            DataError: there is no such annotator.
        """
        return self._database.write(lambda connection: access.forget(connection, annotator, self._clock()))

    def let_in(self, annotator: int) -> None:
        """Let an annotator go on who got too few training items right.

        Raises:
            DataError: there is no such annotator.
        """
        self._database.write(lambda connection: access.let_in(connection, annotator))

    def trained(self, project: int) -> dict[int, Trained]:
        """Annotator -> how they did in training, for those who have got training items."""
        with self._database.read() as connection:
            return trained(connection, project)

    def is_switched_off(self, token: str) -> bool:
        """Whether a token is that of an annotator who is not active."""
        with self._database.read() as connection:
            return access.is_switched_off(connection, token)

    def annotator_of(self, token: str) -> tuple[Project, Annotator] | None:
        """Project and annotator of a token; None if it is nobody's, or the annotator is not active."""
        with self._database.read() as connection:
            return access.annotator_of(connection, token)
