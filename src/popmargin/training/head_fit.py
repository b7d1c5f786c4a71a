"""A reward head on features that stay as they are, fitted to an objective in full batches: a fit takes milliseconds.

The objective, its rows and its shares are those of a run (`Loss`, `TrainingRows`); only the optimizer differs.

Axis suffixes: U responses, D features, P preferences, K weights of a head.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from popmargin.engine.scores import PairScores
from popmargin.errors import ConfigError, DataError
from popmargin.objectives.base import OBJECTIVES
from popmargin.training.batches import TrainingRows
from popmargin.training.loss import Loss

_SETTINGS = {"maxcor": 20, "ftol": 1e-8, "gtol": 1e-6}
"""Of L-BFGS: pairs that it keeps of its curvature, and when it ends."""


@dataclass(frozen=True, kw_only=True)
class HeadData:
    """What a head is fitted to.

    Attributes:
        features: of each response (U, D).
        chosen: the response that each preference prefers (P,), a row of `features`.
        rejected: the other one (P,).
        rows: preferences, or edges between them.
        columns: numbers of each preference by name (P,): `soft_label`, `margin`, `scale`, `weight` …
    """

    features: Float64[np.ndarray, "U D"]
    chosen: Int64[np.ndarray, " P"]
    rejected: Int64[np.ndarray, " P"]
    rows: TrainingRows
    columns: Mapping[str, Float64[np.ndarray, " P"]] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class Head:
    """A reward of features: w·x, or w·tanh(Wx + b) with one hidden layer.

    Attributes:
        weights: all of them (K,).
        features: D.
        hidden: units of the hidden layer; 0 for none.
        ridge: it was fitted with.
        converged: whether the optimizer came to its end before its last step.
    """

    weights: Float64[np.ndarray, " K"]
    features: int
    hidden: int = 0
    ridge: float = 0.0
    converged: bool = True

    def rewards(self, features: Float64[np.ndarray, "U D"]) -> Float64[np.ndarray, " U"]:
        """The reward of each response (U,)."""
        with torch.no_grad():
            return _rewards(torch.from_numpy(self.weights), torch.from_numpy(features), self.hidden).numpy()


def simple_loss(objective: str, **options: Any) -> Loss:
    """The loss of one objective by its name, without margin, regularizers or tokens.

    Raises:
        ConfigError: an unknown objective or option, or one that needs more than the rewards of whole responses.

    Example:
        >>> simple_loss("dpo", beta=1.0).beta
        1.0
    """
    found = OBJECTIVES.get(objective)
    made = found.make_options(options)
    unmet = found.requires(made) - {"log_ratio", "reward"}
    if unmet or found.init_state is not None or found.uses_token_counts(made):
        raise ConfigError(
            f"The objective '{objective}' needs {', '.join(sorted(unmet)) or 'more than rewards'}; a head on features "
            "only has rewards. Take one that works with task: reward."
        )
    return Loss(objective=found, options=made, provides=frozenset({"log_ratio", "reward"}))


def fit_heads(
    data: HeadData,
    loss: Loss,
    ridges: Sequence[float],
    *,
    hidden: int = 0,
    seed: int = 0,
    rounds: int = 4,
    steps: int = 200,
) -> list[Head]:
    """One head for each ridge: the minimum of the loss of all rows plus ridge/2·|weights|², by L-BFGS.

    Objectives whose target is the current gap of the weaker side (`pop`) are fitted in rounds: the target is that of
    the last round's head, and 0 in the first one.

    Args:
        data: features, preferences and rows.
        loss: of a row; `simple_loss` makes one.
        ridges: above 0.
        hidden: units of a hidden layer (tanh); 0 for a linear head.
        seed: of the start of a hidden layer.
        rounds: for objectives with a target.
        steps: the most iterations of a fit.

    Raises:
        ConfigError: a ridge that is not above 0.
        DataError: no rows.

    Example:
        >>> features = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> rows = TrainingRows.of_preferences(2)
        >>> data = HeadData(features=features, chosen=np.array([0, 0]), rejected=np.array([1, 2]), rows=rows)
        >>> [head] = fit_heads(data, simple_loss("dpo", beta=1.0), [0.1])
        >>> head.rewards(features).round(2).tolist()
        [1.54, 0.0, 0.0]
    """
    if not ridges or not all(0 < ridge < math.inf for ridge in ridges):
        raise ConfigError(f"ridges are {list(ridges)}; give finite numbers above 0.")
    if not len(data.rows):
        raise DataError("There are no rows to fit a head to. Give a preference, or an edge.")
    batch = _Batch.of(data, loss)
    start = _start(data.features.shape[1], hidden, seed)
    found: dict[float, Head] = {}
    for ridge in sorted(set(ridges), reverse=True):
        weights, converged = _minimum(batch, loss, ridge, start, hidden, rounds, steps)
        found[ridge] = Head(
            weights=weights, features=data.features.shape[1], hidden=hidden, ridge=ridge, converged=converged
        )
        if not hidden:  # the problem is convex: begin the next one where this one ended
            start = weights
    return [found[ridge] for ridge in ridges]


@dataclass(frozen=True)
class _Batch:
    """All rows at once, and the features of the responses that they use."""

    features: Tensor
    chosen: Tensor
    rejected: Tensor
    part: dict[str, Any]

    @staticmethod
    def of(data: HeadData, loss: Loss) -> "_Batch":
        used, places = np.unique(np.concatenate([data.chosen, data.rejected]), return_inverse=True)
        count = len(data.chosen)
        stronger, weaker = data.rows.stronger, data.rows.weaker
        known = weaker if loss.needs.weaker != "none" else np.full_like(weaker, -1)
        part: dict[str, Any] = {
            "stronger": torch.from_numpy(stronger),
            "weaker": torch.from_numpy(np.maximum(known, 0)),
            "has_weaker": torch.from_numpy(known >= 0),
            "stronger_share": torch.from_numpy(data.rows.stronger_share.astype(np.float64)),
            "weaker_share": torch.from_numpy(data.rows.weaker_share.astype(np.float64)),
            "columns": {name: torch.from_numpy(values[stronger]) for name, values in data.columns.items()},
        }
        return _Batch(
            torch.from_numpy(np.ascontiguousarray(data.features[used])),
            torch.from_numpy(places[:count]),
            torch.from_numpy(places[count:]),
            part,
        )

    def scores(self, rewards_U: Tensor) -> PairScores:
        return PairScores(rewards_U[self.chosen], rewards_U[self.rejected])

    def mean(self, loss: Loss, rewards_U: Tensor, target_P: Tensor | None) -> Tensor:
        """The (weighted) mean loss of the rows, as of an optimizer step that has them all."""
        rows = loss.rows(self.part, self.scores(rewards_U), target_P, progress=1.0, state={}, gather=_same)
        loss_R = loss.of_rows(rows, loss.less_margin(rows))
        weight_R = rows.columns.get("weight")
        return loss_R.mean() if weight_R is None else (weight_R * loss_R).sum() / weight_R.sum()


def _same(values: Tensor) -> Tensor:
    return values


def _minimum(
    batch: _Batch, loss: Loss, ridge: float, start: np.ndarray, hidden: int, rounds: int, steps: int
) -> tuple[Float64[np.ndarray, " K"], bool]:
    from scipy.optimize import minimize

    moving = loss.needs.weaker == "target"
    weights, converged = start, True
    target_P = torch.zeros(len(batch.chosen), dtype=torch.float64) if moving else None

    def value(at: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.from_numpy(at).requires_grad_()
        whole = batch.mean(loss, _rewards(theta, batch.features, hidden), target_P)
        whole = whole + ridge / 2 * theta.square().sum()
        (slope,) = torch.autograd.grad(whole, theta)
        return float(whole.detach()), slope.numpy()

    for turn in range(rounds if moving else 1):
        if turn:
            with torch.no_grad():
                gaps = batch.scores(_rewards(torch.from_numpy(weights), batch.features, hidden))
            target_P = gaps.gap
        options = {"maxiter": steps, **_SETTINGS}
        done: Any = minimize(value, weights, jac=True, method="L-BFGS-B", options=options)
        weights, converged = np.asarray(done.x, dtype=np.float64), bool(done.success)
    return weights, converged


def _start(features: int, hidden: int, seed: int) -> Float64[np.ndarray, " K"]:
    """Zeros for a linear head; small random numbers for a hidden layer, which would never leave zero."""
    if not hidden:
        return np.zeros(features)
    rng = np.random.default_rng(seed)
    inner = rng.normal(0.0, 1 / math.sqrt(features), hidden * features)
    return np.concatenate([inner, np.zeros(hidden), rng.normal(0.0, 1 / math.sqrt(hidden), hidden)])


def _rewards(theta: Float[Tensor, " K"], features: Float[Tensor, "U D"], hidden: int) -> Float[Tensor, " U"]:
    if not hidden:
        return features @ theta
    width = hidden * features.shape[1]
    inner = torch.tanh(features @ theta[:width].view(hidden, -1).T + theta[width : width + hidden])
    return inner @ theta[width + hidden :]
