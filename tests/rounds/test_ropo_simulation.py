"""What the note's simulation says of ROPO's loss and filters, with our losses and our filter.

Exact softmax policies over 12 candidates, 24 features, 600 prompts, labels sampled from Bradley–Terry at temperature ½
and then flipped; α 14, β 0.2, three rounds, f = the flip rate (0.2 on clean data). Values are pair accuracy on new
prompts and the expected gold reward; the note's standard errors are at most .03 of the reward, .06 at 30% of flips.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_softmax

from popmargin.objectives.base import OBJECTIVES, Rows
from popmargin.rounds.stages.rank_rows import keep_rows, robust_loss
from popmargin.statistics.intervals import Clusters
from popmargin.statistics.roc import roc_area

PROMPTS, CANDIDATES, FEATURES, BETA, SEEDS = 600, 12, 24, 0.2, 3
NOTE = {
    0.0: {"dpo": (0.936, 1.585), "ropo": (0.930, 1.584), "dpo, loss": (0.917, 1.568), "ropo, loss": (0.912, 1.561),
          "samples": (0.909, 1.556), "reversed": (0.891, 1.531), "ropo, oracle": (0.966, 1.616), "auc": 0.97},
    0.2: {"dpo": (0.868, 1.390), "ropo": (0.880, 1.505), "dpo, loss": (0.872, 1.490), "ropo, loss": (0.871, 1.489),
          "samples": (0.871, 1.488), "reversed": (0.869, 1.486), "ropo, oracle": (0.963, 1.615), "auc": 0.95},
    0.3: {"dpo": (0.791, 1.095), "ropo": (0.790, 1.270), "dpo, loss": (0.795, 1.293), "ropo, loss": (0.783, 1.259),
          "samples": (0.780, 1.248), "reversed": (0.782, 1.258), "ropo, oracle": (0.963, 1.614), "auc": 0.87},
}  # fmt: skip
"""The note's table."""


class World:
    """Prompts, labels and a gold reward of one seed."""

    def __init__(self, seed: int, flips: float) -> None:
        self.rng = rng = np.random.default_rng(seed)
        gold = rng.standard_normal(FEATURES)
        self.gold = gold / np.linalg.norm(gold)
        self.features = rng.standard_normal((PROMPTS, CANDIDATES, FEATURES))
        gap = (self.features[:, 0] - self.features[:, 1]) @ self.gold
        label = np.where(rng.random(PROMPTS) < expit(gap / 0.5), 1, -1)
        label = np.where(rng.random(PROMPTS) < flips, -label, label)
        self.rows = (self.features[:, 0] - self.features[:, 1]) * label[:, None]
        self.wrong = gap * label < 0
        self.new = rng.standard_normal((800, CANDIDATES, FEATURES))

    def measured(self, policy: np.ndarray) -> tuple[float, float]:
        """Pair accuracy on new prompts, and the expected gold reward."""
        scores, gold = self.new @ policy, self.new @ self.gold
        right = (scores[:, 0] - scores[:, 1]) * (gold[:, 0] - gold[:, 1]) > 0
        return float(right.mean()), float((np.exp(log_softmax(scores, axis=1)) * gold).sum(axis=1).mean())

    def sampled(self, policy: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """The best against the worst of four samples of each dropped prompt, where the gap is large enough."""
        scores = self.features @ policy  # the implicit reward but for a constant of the prompt
        least, rows = np.median((self.rows @ policy)[kept]), list[np.ndarray]()
        for prompt in np.flatnonzero(~kept):
            chances = np.exp(log_softmax(scores[prompt]))
            drawn = self.rng.choice(CANDIDATES, size=4, p=chances)
            best, worst = (
                max(drawn, key=lambda one: scores[prompt, one]),
                min(drawn, key=lambda one: scores[prompt, one]),
            )
            if best != worst and scores[prompt, best] - scores[prompt, worst] >= max(0.0, least):
                rows.append(self.features[prompt, best] - self.features[prompt, worst])
        return np.array(rows).reshape(-1, FEATURES)


def fitted(rows: np.ndarray, name: str) -> np.ndarray:
    """The policy that minimises the mean loss."""
    objective, matrix = OBJECTIVES.get(name), torch.from_numpy(rows)
    options: Any = objective.make_options({"beta": BETA} | ({"alpha": 14.0} if name == "ropo" else {}))

    def mean_loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        policy = torch.from_numpy(values).requires_grad_()
        gap = matrix @ policy
        loss = objective.function(Rows(chosen=gap, rejected=torch.zeros_like(gap)), options).mean()
        loss.backward()
        assert policy.grad is not None
        return float(loss.detach()), policy.grad.numpy()

    return minimize(mean_loss, np.zeros(FEATURES), jac=True, method="L-BFGS-B").x


def looped(world: World, name: str, share: float, replaced: Callable[..., np.ndarray] | None = None) -> np.ndarray:
    """The policy after three rounds of ranking all rows, dropping, and training again from the start."""
    policy = fitted(world.rows, name)
    for _ in range(3):
        kept = keep_rows(robust_loss(BETA * world.rows @ policy, 14.0), share, by="loss")
        more = np.zeros((0, FEATURES)) if replaced is None else replaced(world, policy, kept)
        policy = fitted(np.concatenate([world.rows[kept], more]), name)
    return policy


@lru_cache
def simulated(flips: float) -> dict[str, np.ndarray]:
    """Every column of the table, a row each seed."""
    found: dict[str, list[Any]] = {name: [] for name in NOTE[flips]}
    share = flips or 0.2
    for seed in range(SEEDS):
        world = World(seed, flips)
        policies = {name: fitted(world.rows, name) for name in ("dpo", "ropo")}
        policies |= {f"{name}, loss": looped(world, name, share) for name in ("dpo", "ropo")}
        policies["samples"] = looped(world, "ropo", share, World.sampled)
        policies["reversed"] = looped(world, "ropo", share, lambda world, policy, kept: -world.rows[~kept])
        oracle = keep_rows(np.zeros(PROMPTS), 0.0, by="oracle", wrong=world.wrong)
        policies["ropo, oracle"] = fitted(world.rows[oracle], "ropo")
        for name, policy in policies.items():
            found[name].append(world.measured(policy))
        loss = robust_loss(BETA * world.rows @ policies["ropo"], 14.0)
        found["auc"].append(roc_area(loss, world.wrong, Clusters(range(PROMPTS))).estimate)
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("flips", NOTE)
def test_the_rows_of_the_table(flips: float) -> None:
    found, error = simulated(flips), {0.0: 0.01, 0.2: 0.03, 0.3: 0.06}[flips]
    for name, said in NOTE[flips].items():
        mean, own = found[name].mean(axis=0), found[name].std(axis=0, ddof=1) / SEEDS**0.5
        if name == "auc":
            assert abs(mean - said) < 3 * np.hypot(own, 0.005) + 0.005, (name, mean)
        else:
            assert abs(mean[1] - said[1]) < 3 * np.hypot(own[1], error), (name, mean)
            assert abs(mean[0] - said[0]) < 3 * np.hypot(own[0], error / 2), (name, mean)


def test_the_loss_does_the_work_and_the_filter_lifts_dpo_alone() -> None:
    """Seed by seed, on the same data: rewards at 20% and 30% of flips."""
    for flips in (0.2, 0.3):
        reward = {name: values[:, 1] for name, values in simulated(flips).items() if name != "auc"}
        assert (reward["ropo"] > reward["dpo"]).all() and (reward["dpo, loss"] > reward["dpo"]).all()
        assert (reward["ropo, loss"] - reward["ropo"]).mean() < 0.03  # the filter adds nothing to the loss
        assert (reward["ropo, oracle"] > reward["ropo"] + 0.05).all()  # the room that a better detector has
    clean = {name: values[:, 0] for name, values in simulated(0.0).items() if name != "auc"}
    for name in ("dpo", "ropo"):  # one or two points of accuracy on clean data
        assert 0 < (clean[name] - clean[f"{name}, loss"]).mean() < 0.03
    assert (clean["ropo, loss"] - clean["reversed"]).mean() > 0  # reversing costs more
