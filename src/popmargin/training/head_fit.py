"""A reward head on features that stay as they are, fitted to an objective in full batches: a fit takes milliseconds.

The objective, its rows and its shares are those of a run (`Loss`, `TrainingRows`); only the optimizer differs.

Axis suffixes: U responses, D features, P preferences, R rows, K weights of a head, H hidden units, L ridges.
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

_CURVATURE = 0.25  # of a log-loss in standardized features, at most
_SETTINGS = {"maxcor": 20, "ftol": 1e-7, "gtol": 1e-6}
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
            weights_1K = torch.from_numpy(self.weights)[None]
            return _rewards(weights_1K, torch.from_numpy(features), self.hidden)[0].numpy()


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
        [1.63, 0.0, 0.0]
    """
    if not ridges or not all(0 < ridge < math.inf for ridge in ridges):
        raise ConfigError(f"ridges are {list(ridges)}; give finite numbers above 0.")
    if not len(data.rows):
        raise DataError("There are no rows to fit a head to. Give a preference, or an edge.")
    start = _start(data.features.shape[1], hidden, seed)
    # All ridges in one fit, unless the loss of a row depends on the rows beside it.
    together = [list(ridges)]
    if loss.objective.uses_batch_statistics(loss.options):
        together = [[ridge] for ridge in ridges]
    heads: list[Head] = []
    for some in together:
        weights_LK, converged = _minimum(_Batch.of(data, loss, len(some)), loss, some, start, hidden, rounds, steps)
        heads += [
            Head(weights=weights, features=data.features.shape[1], hidden=hidden, ridge=ridge, converged=converged)
            for weights, ridge in zip(weights_LK, some, strict=True)
        ]
    return heads


@dataclass(frozen=True)
class _Batch:
    """All rows at once, one copy of them for each ridge, and the features of the responses that they use.

    Places of the copies follow each other: preference p of copy l is l·P + p.
    """

    features: Tensor
    chosen: Tensor
    rejected: Tensor
    part: dict[str, Any]
    copies: int

    @staticmethod
    def of(data: HeadData, loss: Loss, copies: int) -> "_Batch":
        used, places = np.unique(np.concatenate([data.chosen, data.rejected]), return_inverse=True)
        count = len(data.chosen)
        stronger, weaker = data.rows.stronger, data.rows.weaker
        known = weaker if loss.needs.weaker != "none" else np.full_like(weaker, -1)

        def of_copies(rows: np.ndarray, step: int = 0) -> Tensor:
            return torch.from_numpy((rows + step * np.arange(copies)[:, None]).ravel())

        def repeated(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.tile(values, copies))

        part: dict[str, Any] = {
            "stronger": of_copies(stronger, count),
            "weaker": of_copies(np.maximum(known, 0), count),
            "has_weaker": repeated(known >= 0),
            "stronger_share": repeated(data.rows.stronger_share.astype(np.float64)),
            "weaker_share": repeated(data.rows.weaker_share.astype(np.float64)),
            "columns": {name: repeated(values[stronger]) for name, values in data.columns.items()},
        }
        weights = data.rows.weights(data.columns)
        if weights is not None:
            part["columns"]["weight"] = repeated(weights)
        features = torch.from_numpy(np.ascontiguousarray(data.features[used]))
        return _Batch(
            features, of_copies(places[:count], len(used)), of_copies(places[count:], len(used)), part, copies
        )

    def scores(self, rewards_LU: Float[Tensor, "L U"]) -> PairScores:
        """Of the preferences of all copies (L·P)."""
        flat = rewards_LU.flatten()
        return PairScores(flat[self.chosen], flat[self.rejected])

    def means(self, loss: Loss, rewards_LU: Tensor, target: Tensor | None) -> Float[Tensor, " L"]:
        """The (weighted) mean loss of the rows of each copy, as of an optimizer step that has them all."""
        rows = loss.rows(self.part, self.scores(rewards_LU), target, progress=1.0, state={}, gather=_same)
        loss_LR = loss.of_rows(rows, loss.less_margin(rows)).view(self.copies, -1)
        weight = rows.columns.get("weight")
        if weight is None:
            return loss_LR.mean(dim=1)
        weight_LR = weight.view(self.copies, -1)
        return (weight_LR * loss_LR).sum(dim=1) / weight_LR.sum(dim=1)


def _same(values: Tensor) -> Tensor:
    return values


def _minimum(
    batch: _Batch, loss: Loss, ridges: Sequence[float], start: np.ndarray, hidden: int, rounds: int, steps: int
) -> tuple[Float64[np.ndarray, "L K"], bool]:
    from scipy.optimize import minimize

    moving = loss.needs.weaker == "target"
    ridge_L = torch.tensor(ridges, dtype=torch.float64)
    # The optimizer's variables, in which all ridges have about the same curvature.
    unit_L1 = (ridge_L + _CURVATURE).rsqrt()[:, None]
    shape = (len(ridges), len(start))
    weights = (torch.from_numpy(start) / unit_L1).flatten().numpy()
    converged = True
    target = torch.zeros(len(batch.chosen), dtype=torch.float64) if moving else None

    def heads_of(at: np.ndarray) -> Tensor:
        return unit_L1 * torch.from_numpy(at).view(shape)

    def value(at: np.ndarray) -> tuple[float, np.ndarray]:
        theta_LK = heads_of(at).requires_grad_()
        penalty_L = ridge_L / 2 * theta_LK.square().sum(dim=1)
        whole = (batch.means(loss, _rewards(theta_LK, batch.features, hidden), target) + penalty_L).sum()
        (slope_LK,) = torch.autograd.grad(whole, theta_LK)
        return float(whole.detach()), (unit_L1 * slope_LK).flatten().numpy()

    for turn in range(rounds if moving else 1):
        if turn:
            with torch.no_grad():
                target = batch.scores(_rewards(heads_of(weights), batch.features, hidden)).gap
        options = {"maxiter": steps, **_SETTINGS}
        done: Any = minimize(value, weights, jac=True, method="L-BFGS-B", options=options)
        weights, converged = np.asarray(done.x, dtype=np.float64), bool(done.success)
    return heads_of(weights).numpy(), converged


def _start(features: int, hidden: int, seed: int) -> Float64[np.ndarray, " K"]:
    """Zeros for a linear head; small random numbers for a hidden layer, which would never leave zero."""
    if not hidden:
        return np.zeros(features)
    rng = np.random.default_rng(seed)
    inner = rng.normal(0.0, 1 / math.sqrt(features), hidden * features)
    return np.concatenate([inner, np.zeros(hidden), rng.normal(0.0, 1 / math.sqrt(hidden), hidden)])


def _rewards(theta_LK: Float[Tensor, "L K"], features: Float[Tensor, "U D"], hidden: int) -> Float[Tensor, "L U"]:
    """Rewards of each head."""
    if not hidden:
        return theta_LK @ features.T
    width = hidden * features.shape[1]
    inner_LHD = theta_LK[:, :width].view(len(theta_LK), hidden, -1)
    bias_LH, outer_LH = theta_LK[:, width : width + hidden], theta_LK[:, width + hidden :]
    units_LUH = torch.tanh(features @ inner_LHD.transpose(1, 2) + bias_LH[:, None])
    return (units_LUH @ outer_LH[:, :, None])[:, :, 0]
