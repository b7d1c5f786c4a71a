"""Training rows, which refer to preferences, and the batches of distinct preferences they need.

Axis suffixes: P preferences, R training rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Sampler

from popmargin.engine.sequences import split_to_budget
from popmargin.tasks.base import Inputs


@dataclass(frozen=True)
class TrainingRows:
    """The rows of an epoch: row i trains preference `stronger[i]`, with the weaker side `weaker[i]` (−1: none).

    Attributes:
        stronger: preference of each row (R,).
        weaker: preference of its weaker side, −1 if there is none (R,).
        stronger_share: weight of the stronger side's own loss so that every preference counts once per epoch (R,).
        weaker_share: the same for the weaker side (R,).
        weight: how much each row counts (R,), besides what the data say; None if all count 1.
    """

    stronger: np.ndarray
    weaker: np.ndarray
    stronger_share: np.ndarray
    weaker_share: np.ndarray
    weight: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.stronger)

    def __getitem__(self, row: int) -> int:
        return row  # the collator looks up the row: workers need not copy it

    @staticmethod
    def of_preferences(count: int) -> "TrainingRows":
        """One row per preference."""
        ones = np.ones(count, dtype=np.float32)
        return TrainingRows(np.arange(count), np.full(count, -1), ones, np.zeros_like(ones))

    @staticmethod
    def of_edges(
        stronger: np.ndarray, weaker: np.ndarray, count: int, *, everyone: bool, weight: np.ndarray | None = None
    ) -> "TrainingRows":
        """One row per edge; with `everyone`, preferences in no edge become rows of their own, which count 1."""
        if everyone:
            present = np.zeros(count, dtype=bool)
            present[stronger] = True
            present[weaker[weaker >= 0]] = True
            lone = np.flatnonzero(~present)
            stronger, weaker = np.concatenate([stronger, lone]), np.concatenate([weaker, np.full(len(lone), -1)])
            weight = None if weight is None else np.concatenate([weight, np.ones(len(lone), dtype=np.float32)])
        matched = weaker >= 0
        degree = np.bincount(stronger, minlength=count) + np.bincount(weaker[matched], minlength=count)
        scale = len(stronger) / max(int((degree > 0).sum()), 1)
        stronger_share = scale / degree[stronger]
        weaker_share = np.where(matched, scale / degree[np.where(matched, weaker, 0)].clip(min=1), 0.0)
        return TrainingRows(
            stronger.astype(np.int64),
            weaker.astype(np.int64),
            stronger_share.astype(np.float32),
            weaker_share.astype(np.float32),
            weight,
        )

    def weights(self, columns: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """How much each row counts (R,): the data's weight of its preference times its own; None if there are none."""
        data = columns["weight"][self.stronger] if "weight" in columns else None
        if self.weight is None or data is None:
            return data if self.weight is None else self.weight
        return data * self.weight


@dataclass(frozen=True)
class Collator:
    """Turns row numbers into parts of a batch, each for one forward pass; any data loader can move them to a device.

    In a part the distinct preferences are numbered 0 … P−1, those that need a gradient first; `policy` has the inputs
    of these, `target` those of the others (absent if there are none). No preference is in it twice.

    Attributes:
        rows: the epoch's rows.
        inputs: the preferences, as inputs of the task's model.
        columns: further numbers per preference by name, (count,) each (margin, soft_label, weight …).
        weaker: what the objective needs of weaker sides: none, target, or gradient.
        target_forward: which weaker sides the target must forward: all, only those that the policy does not forward
            anyway (others), or none.
        tokens_per_batch: maximum tokens per part; None makes one part of all rows.
    """

    rows: TrainingRows
    inputs: Inputs
    columns: Mapping[str, np.ndarray]
    weaker: Literal["none", "target", "gradient"]
    target_forward: Literal["all", "others", "none"]
    tokens_per_batch: int | None = None

    @cached_property
    def _work(self) -> np.ndarray:
        return self.inputs.work()

    @cached_property
    def _weights(self) -> np.ndarray | None:
        return self.rows.weights(self.columns)

    @cached_property
    def _costs(self) -> np.ndarray:
        return self.inputs.costs()

    def __call__(self, numbers: Sequence[int]) -> dict[str, Any]:
        """These rows: `parts`, their `row_count`, and the sum of their weights if they have any."""
        parts = [list(numbers)]
        if self.tokens_per_batch is not None:
            costs = self._cost(np.asarray(numbers)).tolist()
            parts = [[numbers[i] for i in part] for part in split_to_budget(costs, self.tokens_per_batch)]
        batch: dict[str, Any] = {"parts": [self.part(part) for part in parts], "row_count": len(numbers)}
        if self._weights is not None:
            batch["weight"] = float(self._weights[np.asarray(numbers)].sum(dtype=float))
        return batch

    def _cost(self, numbers: np.ndarray) -> np.ndarray:
        """Maximum tokens that each row needs in one forward pass (R,)."""
        stronger, weaker = self.rows.stronger[numbers], self.rows.weaker[numbers]
        of_weaker = np.where(weaker >= 0, self._costs[np.maximum(weaker, 0)], 0)
        if self.weaker == "gradient":
            return self._costs[stronger] + of_weaker
        scored_apart = self.weaker == "target" and self.target_forward != "none"
        return np.maximum(self._costs[stronger], of_weaker) if scored_apart else self._costs[stronger]

    def part(self, numbers: Sequence[int]) -> dict[str, Any]:
        """One forward pass's rows."""
        stronger, weaker = self.rows.stronger[numbers], self.rows.weaker[numbers]
        used = weaker if self.weaker != "none" else np.full_like(weaker, -1)
        wanted = used[used >= 0]
        if self.weaker == "gradient":
            gradient = np.unique(np.concatenate([stronger, wanted]))
            others = np.empty(0, dtype=np.int64)
        else:
            gradient = np.unique(stronger)
            others = np.setdiff1d(wanted, gradient)
        preferences = np.concatenate([gradient, others])
        place = {int(preference): position for position, preference in enumerate(preferences)}
        batch: dict[str, Any] = {
            "policy": self.inputs.collate(gradient),
            "preferences": torch.from_numpy(preferences),
            "stronger": torch.tensor([place[int(i)] for i in stronger]),
            "weaker": torch.tensor([place.get(int(i), 0) if i >= 0 else 0 for i in used]),
            "has_weaker": torch.from_numpy(used >= 0),
            "stronger_share": torch.from_numpy(self.rows.stronger_share[numbers]),
            "weaker_share": torch.from_numpy(self.rows.weaker_share[numbers]),
            "row_count": len(numbers),
            "policy_tokens": int(self._work[gradient].sum()),
        }
        scored = {"all": np.unique(wanted), "others": others, "none": others[:0]}[self.target_forward]
        if self.weaker == "target" and len(scored):
            batch["target"] = self.inputs.collate(scored)
            batch["target_place"] = torch.tensor([place[int(i)] for i in scored])
        batch["columns"] = {name: torch.from_numpy(values[stronger]) for name, values in self.columns.items()}
        if self._weights is not None:
            batch["columns"]["weight"] = torch.from_numpy(self._weights[numbers])
        return batch


def clustered_order(rows: TrainingRows, batch_size: int, seed: int) -> list[int]:
    """An order of the rows in which a batch's edges share preferences as much as possible.

    Each batch grows from a random row by adding rows that share a preference with it, so most preferences are scored in
    one batch per epoch instead of one per edge.
    """
    random = np.random.default_rng(seed)
    touching: dict[int, list[int]] = {}
    for row in random.permutation(len(rows)):
        for side in (rows.stronger[row], rows.weaker[row]):
            if side >= 0:
                touching.setdefault(int(side), []).append(int(row))
    start = [int(row) for row in random.permutation(len(rows))]
    taken = np.zeros(len(rows), dtype=bool)
    order: list[int] = []
    while len(order) < len(rows):
        room, frontier = batch_size - len(order) % batch_size, list[int]()
        while room and (frontier or start):
            row = frontier.pop(0) if frontier else start.pop()
            if taken[row]:
                continue
            taken[row] = True
            order.append(row)
            room -= 1
            for side in (rows.stronger[row], rows.weaker[row]):
                frontier.extend(r for r in touching.get(int(side), []) if not taken[r])
    return order


class ClusteredSampler(Sampler[int]):
    """Edges in an order in which batches share preferences; a different order each epoch."""

    def __init__(self, rows: TrainingRows, batch_size: int, seed: int) -> None:
        self._rows, self._batch_size, self._seed, self._epoch = rows, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[int]:
        return iter(clustered_order(self._rows, self._batch_size, self._seed + self._epoch))
