"""What tests of objectives share: a file's contract, NumPy's side of a formula, and rows by their gaps."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from popmargin.objectives.base import OBJECTIVES, Rows

Arrays = dict[str, np.ndarray]
Gaps = list[float] | torch.Tensor
GRID = torch.linspace(-60, 60, 241, dtype=torch.float64)
LOG2 = math.log(2)


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What the contract suite must know of an objective: `CONTRACT` in `test_objective_NAME.py`.

    Attributes:
        formula: `(rows, options) -> loss (B,)` in NumPy, written from the method notes, not from the function. Rows are
            fields of `Rows` and columns by name; `has_weaker` is 0 or 1, the target in nats.
        options: what is tried beside the defaults.
        finite_target: beyond some gap a larger one costs: a regression, or the cross-entropy with an uncertain label.
        may_be_negative: whether the loss may fall below 0.
    """

    formula: Callable[[Arrays, Any], np.ndarray]
    options: tuple[Mapping[str, Any], ...] = ()
    finite_target: bool = False
    may_be_negative: bool = False


def nls(value: np.ndarray) -> np.ndarray:
    """−log σ(value)."""
    return np.logaddexp(0.0, -value)


def gaps(rows: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Of the stronger and of the weaker sides."""
    return rows["chosen"] - rows["rejected"], rows["weaker_chosen"] - rows["weaker_rejected"]


def certain(rows: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Soft labels of at least ½ and the gaps that belong to them: other pairs are swapped first."""
    p, r = rows["soft_label"], gaps(rows)[0]
    return np.where(p < 0.5, 1 - p, p), np.where(p < 0.5, -r, r)


def soft(formula: Callable[[np.ndarray, np.ndarray, Any], np.ndarray]) -> Callable[[Arrays, Any], np.ndarray]:
    """A formula of soft labels p ≥ ½ and gaps."""
    return lambda rows, o: formula(*certain(rows), o)


def pop_formula(rows: Arrays, o: Any) -> np.ndarray:
    """The weaker side's gap, clipped in nats, as a margin; 0 where there is none."""
    margin = np.minimum(np.maximum(rows["target"], o.margin_min), o.margin_max)
    return nls(o.beta * (gaps(rows)[0] - np.where(rows["has_weaker"] > 0, margin, 0.0)))


def rows_of(gaps: Gaps, *, at: float = 0.0, soft: Gaps | float | None = None, **more: Any) -> Rows:
    """Rows with these gaps, whose rejected responses all score `at`."""
    gaps = torch.as_tensor(gaps, dtype=torch.float64)
    columns = {} if soft is None else {"soft_label": torch.as_tensor(soft, dtype=torch.float64).expand_as(gaps)}
    return Rows(chosen=at + gaps, rejected=torch.full_like(gaps, at), columns=columns, **more)


def loss(name: str, rows: Rows, **options: Any) -> torch.Tensor:
    kind = OBJECTIVES.get(name)
    return kind.function(rows, kind.options(**options))


def slope(name: str, gaps: Gaps, soft: Gaps | float | None = None, **options: Any) -> torch.Tensor:
    """∂L/∂Δ of every row (B,)."""
    leaf = torch.as_tensor(gaps, dtype=torch.float64).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(name, rows_of(leaf, soft=soft), **options).sum(), leaf)
    return gradient


def refused(name: str, message: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=message):
        OBJECTIVES.get(name).options(**options)
