"""The annotators of a label store: who may label, their tokens, and whose labels count."""

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime

from sqlalchemy.exc import IntegrityError

from popmargin.errors import DataError
from popmargin.label.store import access, offers
from popmargin.label.store.api_tokens import ApiTokens
from popmargin.label.store.database import Database
from popmargin.label.store.disputes import (
    Disputed,
    Vote,
    count_disputed,
    disputed_by_criterion,
    disputed_items,
    votes_on,
)
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

    def now(self) -> datetime:
        """The time, by the store's clock."""
        return self._clock()

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
        self._database.write(lambda connection: access.set_quota(connection, annotator, quota, self._clock()))

    def set_lead(self, annotator: int, lead: bool) -> None:
        """Let a person see the admin pages of their project with their own link, or not any more.

        Raises:
            DataError: there is no such annotator, or it is a model.
        """
        self._database.write(lambda connection: access.set_lead(connection, annotator, lead, self._clock()))

    def set_weight(self, annotator: int, weight: float, *, who: str = "") -> None:
        """Let each label of an annotator count so much wherever something is made of labels; it is logged.

        Raises:
            ConfigError: the weight is not above 0 and at most 1.
            DataError: there is no such annotator.
        """
        self._database.write(lambda connection: access.set_weight(connection, annotator, weight, who, self._clock()))

    def give(self, annotator: int, items: Sequence[int], *, exclusive: bool = False) -> offers.Given:
        """Give items to a person, who gets them first; with `exclusive`, nobody gets them who was not given them.

        Raises:
            DataError: no such annotator or item, a model, an adjudicator, or somebody who is not active.
        """
        return self._database.write(lambda c: offers.give(c, annotator, items, exclusive=exclusive))

    def take_back(self, annotator: int, items: Sequence[int] | None = None) -> list[int]:
        """Take back what a person was given and has neither answered nor open; None for all. Returns the items."""
        return self._database.write(lambda connection: offers.take_back(connection, annotator, items))

    def reassign(self, annotator: int, to: int, items: Sequence[int] | None = None) -> offers.Given:
        """Give to another person what one was given and has neither answered nor open; reserved items stay reserved.

        Raises:
            DataError: as for `give`; nothing is changed then.
        """
        return self._database.write(lambda connection: offers.reassign(connection, annotator, to, items))

    def free_runs(self, project: int, items: Collection[int]) -> list[list[int]]:
        """Some items that want labels and were given to nobody, in runs of a chain, or one by one."""
        with self._database.read() as connection:
            return offers.free_runs(connection, project, items)

    def given(self, project: int) -> dict[int, int]:
        """Annotator -> how many items that were given to them they have still to get; only those with some."""
        with self._database.read() as connection:
            return offers.waiting_for(connection, project)

    def votes_on(self, item: int) -> list[Vote]:
        """What people, whose labels count, say of an item; without names."""
        with self._database.read() as connection:
            return votes_on(connection, item)

    def disputed(self, project: int) -> int:
        """How many items on which people disagree wait for an adjudicator."""
        with self._database.read() as connection:
            return count_disputed(connection, project)

    def disputed_by_criterion(self, project: int) -> dict[str, int]:
        """Criterion -> how many of these items people disagree on in it; empty for a project with a single question."""
        with self._database.read() as connection:
            return disputed_by_criterion(connection, project)

    def disputed_items(self, project: int, limit: int) -> list[Disputed]:
        """The first items on which people disagree and that wait for an adjudicator."""
        with self._database.read() as connection:
            return disputed_items(connection, project, limit)

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
        self._database.write(lambda connection: access.let_in(connection, annotator, self._clock()))

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
