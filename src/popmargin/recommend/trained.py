"""The front door of a trained recommender: load a run's model, and rank items by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from popmargin.data.ragged import Ragged
from popmargin.errors import RunError, counted
from popmargin.files import no_such_file
from popmargin.recommend.denoising.item_denoiser import DenoisingRecommender, ItemDenoiser
from popmargin.recommend.denoising.saved_denoiser import ITEMS, load_item_denoiser
from popmargin.recommend.item_sequences import Catalogue, ItemId
from popmargin.recommend.ranks import recommend_items


@dataclass(frozen=True, eq=False)
class TrainedRecommender:
    """A trained model and its items.

    Attributes:
        model: in evaluation mode.
        catalogue: the items that it knows.
    """

    model: ItemDenoiser
    catalogue: Catalogue

    def scores(self, histories: Ragged, users: Sequence[str]) -> Float[np.ndarray, "B I"]:
        """Scores of all items by number (B, I), as every `Recommender` gives them."""
        return DenoisingRecommender(self.model).scores(histories, users)

    def rank(
        self,
        histories: Sequence[Sequence[ItemId]],
        k: int = 10,
        *,
        users: Sequence[str] | None = None,
        exclude_history: bool = True,
        draw: int = 0,
    ) -> list[list[str]]:
        """The best items for each history, best first.

        Args:
            histories: ids, oldest first.
            k: how many; fewer are given if the catalogue has no more.
            users: names of the users, which fix the noise of sampling; by default their positions.
            exclude_history: items of a history are not recommended again.
            draw: of the noise; another number gives another ranking.

        Raises:
            DataError: an unknown item, or a history without any.

        Example:
            >>> import torch
            >>> _ = torch.manual_seed(0)
            >>> shop = TrainedRecommender(ItemDenoiser(3, dimension=4).eval(), Catalogue.of(["cup", "milk", "tea"]))
            >>> [sorted(items) for items in shop.rank([["milk"], ["cup", "tea"]], k=2)]
            [['cup', 'tea'], ['milk']]
        """
        recommender = DenoisingRecommender(self.model, draw=draw)
        return recommend_items(
            recommender, self.catalogue, histories, users=users, count=k, exclude_history=exclude_history
        )


def load(folder: str | Path) -> TrainedRecommender:
    """The model that `popmargin recommend train` (or `popmargin train` with the task `items`) has trained.

    Args:
        folder: a run directory, or its folder `model`.

    Raises:
        RunError: there is no such folder, or no trained model in it.
    """
    path = Path(folder)
    if not path.is_dir():
        raise RunError(no_such_file(path, what="folder"))
    inside = path / "model"
    if not (path / ITEMS).is_file() and not inside.is_dir():
        if (path / "config.yaml").is_file():
            raise RunError(f"{folder} has not finished training. Go on with --resume.")
        runs = sorted(path.glob("runs/*/seed-*/model"))
        near = f" Did you mean {runs[0].parent}?" if runs else ""
        raise RunError(
            f"{folder} is neither a run nor a model.{near} Give a run directory of popmargin recommend train, or its "
            "folder model."
        )
    if inside.is_dir() and not (inside / ITEMS).is_file():
        raise RunError(f"{inside} holds no recommender of items. Give a run of popmargin recommend train.")
    model, catalogue = load_item_denoiser(inside if inside.is_dir() else path)
    return TrainedRecommender(model, catalogue)


def rank(
    model: TrainedRecommender | str | Path,
    histories: Sequence[Sequence[ItemId]],
    k: int = 10,
    *,
    users: Sequence[str] | None = None,
    exclude_history: bool = True,
) -> list[list[str]]:
    """The best items for each history, best first: `load` and `TrainedRecommender.rank` in one call.

    Args:
        model: a trained recommender, or the folder of its run.
        histories, k, users, exclude_history: as in `TrainedRecommender.rank`.

    Raises:
        RunError: the folder holds no trained model.
        DataError: an unknown item, or a history without any.
    """
    found = model if isinstance(model, TrainedRecommender) else load(model)
    return found.rank(histories, k, users=users, exclude_history=exclude_history)


def describe(model: TrainedRecommender) -> str:
    """What a model is, in a few words for a table of facts."""
    width = model.model.table.shape[1]
    kind = "given" if model.model.given else "learned"
    return f"{counted(len(model.catalogue), 'item')}, {kind} vectors of {width} dimensions"
