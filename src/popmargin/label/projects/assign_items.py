"""Giving items to a person, moving them from another, or taking them back: one rule for command line, page and API."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from popmargin.errors import ConfigError
from popmargin.label.projects.choose_items import choose_items
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.offers import Given
from popmargin.label.store.records import Annotator, Project


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """What `assign_items` did.

    Attributes:
        given: what became of items that were given or moved; None if they were taken back.
        taken_back: how many were.
        waiting: given items that the person has still to get.
    """

    given: Given | None
    taken_back: int = 0
    waiting: int = 0


def assign_items(
    store: LabelStore,
    project: Project,
    who: Annotator,
    *,
    ids: Collection[str] = (),
    where: Mapping[str, str] | None = None,
    share: float | None = None,
    exclusive: bool = False,
    source: Annotator | None = None,
    take_back: bool = False,
) -> Assigned:
    """Give items to a person, who gets them before all others.

    Args:
        store: the store.
        project: whose items.
        who: gets them.
        ids, where, share: which items, as of `choose_items`.
        exclusive: nobody else gets them.
        source: move what this person was given and has neither answered nor open; without a choice, all of it.
        take_back: take back what `who` was given instead; without a choice, all of it.

    Raises:
        ConfigError: options that do not go together, or no choice of items.
        DataError: as for `choose_items` and `LabelStore.give`.
    """
    moved, chosen = source is not None or take_back, bool(ids or where or share is not None)
    if source is not None and take_back:
        raise ConfigError("Items are moved from somebody, or taken back, not both. Choose one.")
    if moved and share is not None:
        raise ConfigError("A share is drawn among items that nobody was given: none is moved or taken back. Omit it.")
    if moved and exclusive:
        raise ConfigError("Items that are moved stay as they are: reserved or not. Omit `exclusive`.")
    if not (chosen or moved):
        raise ConfigError("Which items? Name preferences, a column and its value, or a share.")
    if source is not None and source.id == who.id:
        raise ConfigError(f"'{who.name}' has these items already. Name another person to move them from.")
    items = choose_items(store, project, ids=ids, where=where, share=share) if chosen else None
    given = None
    if take_back:
        back = len(store.take_back(who.id, items))
        return Assigned(given=None, taken_back=back, waiting=store.given(project.id).get(who.id, 0))
    if source is not None:
        given = store.reassign(source.id, who.id, items)
    else:
        given = store.give(who.id, items or [], exclusive=exclusive)
    return Assigned(given=given, waiting=store.given(project.id).get(who.id, 0))
