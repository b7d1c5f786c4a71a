"""Votes of people and models as one probability for each item: pooled by Dawid–Skene, people's votes first.

Axis suffixes: N items, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from popmargin.errors import DataError, counted, first_few
from popmargin.label.export.judged_wrong import DECIDED
from popmargin.label.export.people_first import Models
from popmargin.statistics.dawid_skene import PooledVotes, dawid_skene

Pooling = Literal["dawid-skene"]
"""How votes are pooled."""
NO_WEIGHTS = "weights of annotators do not count here: pooling finds its own"
Chances = dict[str, float]
"""Verdict -> its probability."""


@dataclass(frozen=True)
class PooledItems:
    """What the votes say together.

    Attributes:
        chances: of each verdict, by item.
        right: how often each labeller is expected to say what is true, by name.
        held: items that people's votes decide, which models' votes leave as they are.
        filled: items that only models have voted on.
        equal: people and models count alike.
    """

    chances: Mapping[int, Chances]
    right: Mapping[str, float]
    held: int
    filled: int
    equal: bool

    def notes(self) -> list[str]:
        """What was done, in sentences."""
        best = sorted(self.right.items(), key=lambda pair: (-pair[1], pair[0]))
        shown = first_few([f"{name} {share:.0%}" for name, share in best])
        if self.equal:
            how = f"votes of people and models count alike on {counted(len(self.chances), 'item')}"
        else:
            how = f"people decide {counted(self.held, 'item')}, where models only show how often they are right"
            how += f"; models alone decide {self.filled}"
        said = f"votes are pooled by Dawid–Skene, so soft labels and confidences are its probabilities: {how}"
        return [said, f"expected right: {shown}"]


def pool_votes(rows: Sequence[Mapping[str, Any]], models: Models = "fill") -> PooledItems:
    """Pool the votes on items.

    Args:
        rows: labels of one kind, with item, annotator, annotator_kind, verdict and repeat_of; only decided ones count,
            and no repeats.
        models: "fill" first pools people's votes alone; where they have decided, the result stays, and shows how often
            each model is right, which weighs the models' votes on the other items. "equal" pools all votes at once.

    Raises:
        DataError: nobody has decided an item.
    """
    votes = [row for row in rows if row["verdict"] in DECIDED and row.get("repeat_of") is None]
    if not votes:
        raise DataError("There are no decided votes to pool. Let people or judges label first.")
    classes = [verdict for verdict in DECIDED if verdict != "tie" or any(row["verdict"] == "tie" for row in votes)]
    people = [row for row in votes if row["annotator_kind"] == "person"]
    if models == "fill":  # a person's "wrong" is a decision, too
        wrong = {row["item"] for row in rows if row["annotator_kind"] == "person" and row["verdict"] == "wrong"}
        wrong -= {row["item"] for row in people}
        votes = [row for row in votes if row["item"] not in wrong]
    if models == "equal" or len(people) in (0, len(votes)):
        pooled, items, names = _pool(votes, classes)
        decided = {row["item"] for row in people}
        return PooledItems(
            _chances(pooled, items, classes), _right(pooled, names), len(decided), len(items) - len(decided),
            equal=models == "equal",
        )  # fmt: skip
    first, items, names = _pool(people, classes)
    known = dict(zip(items, first.shares, strict=True))
    second, every, judges = _pool([row for row in votes if row["annotator_kind"] != "person"], classes, known)
    chances = _chances(second, every, classes) | _chances(first, items, classes)
    right = _right(first, names) | _right(second, judges)
    return PooledItems(chances, right, len(items), len(chances) - len(items), equal=False)


def _pool(
    votes: Sequence[Mapping[str, Any]], classes: Sequence[str], known: Mapping[int, Any] | None = None
) -> tuple[PooledVotes, list[int], list[str]]:
    """Pooled votes, their items and their labellers; known items are held."""
    items = sorted({row["item"] for row in votes})
    names = sorted({row["annotator"] for row in votes})
    item, name, vote = (
        np.array([order[row[key]] for row in votes], dtype=np.int64)
        for key, order in (("item", _numbers(items)), ("annotator", _numbers(names)), ("verdict", _numbers(classes)))
    )
    held = held_chances = None
    if known is not None:
        held = np.array([key in known for key in items])
        held_chances = np.stack([known.get(key, np.zeros(len(classes))) for key in items])
    pooled = dawid_skene(item, name, vote, classes=len(classes), held_N=held, held_NK=held_chances)
    return pooled, items, names


def _numbers(values: Sequence[Any]) -> dict[Any, int]:
    return {value: number for number, value in enumerate(values)}


def _chances(pooled: PooledVotes, items: Sequence[int], classes: Sequence[str]) -> dict[int, Chances]:
    rows = pooled.shares.tolist()
    return {key: dict(zip(classes, row, strict=True)) for key, row in zip(items, rows, strict=True)}


def _right(pooled: PooledVotes, names: Sequence[str]) -> dict[str, float]:
    """How often each is expected to say what is true: the diagonal of the confusion over the shares of classes."""
    diagonal = np.einsum("rkk,k->r", pooled.confusion, pooled.prior)
    return dict(zip(names, diagonal.tolist(), strict=True))


def soft_label(chances: Chances) -> float:
    """The probability that the first side is better, a tie being one half.

    Example:
        >>> soft_label({"first": 0.6, "second": 0.2, "tie": 0.2})
        0.7
    """
    return chances["first"] + 0.5 * chances.get("tie", 0.0)
