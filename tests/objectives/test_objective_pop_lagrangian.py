"""`pop_lagrangian`: its formula in NumPy and what is special about it."""

import math
from typing import Any

import numpy as np
import pytest
from objective_cases import Arrays, Contract, gaps, nls

from popmargin.objectives.base import OBJECTIVES


def lagrangian(violation: float, steps: int, **options: Any) -> list[float]:
    kind = OBJECTIVES.get("pop_lagrangian")
    assert kind.init_state is not None and kind.update_state is not None
    made = kind.options(**options)
    state, course = kind.init_state(made), list[float]()
    for _ in range(steps):
        state = kind.update_state(state, {"violation": violation}, made)
        course.append(math.exp(float(state["log_lambda"])))
    return course


def formula(rows: Arrays, o: Any) -> np.ndarray:
    stronger, weaker = gaps(rows)
    both = (nls(o.beta * stronger) + nls(o.beta * weaker)) / 2
    constraint = o.lambda_init * (nls(o.beta * (stronger - weaker)) - math.log(2))
    return np.where(rows["has_weaker"] > 0, both + constraint, nls(o.beta * stronger))


CONTRACT = Contract(formula=formula, options=({"lambda_init": 3.0, "beta": 0.5},), may_be_negative=True)


def test_the_multiplier_ascends_while_the_order_is_violated() -> None:
    """log λ rises by lr · violation a step: λ = exp(0.1 · 0.5 · t)."""
    course = lagrangian(0.5, 10, lambda_lr=0.1)
    assert course == pytest.approx([math.exp(0.05 * step) for step in range(1, 11)])
    assert lagrangian(-0.5, 3, lambda_lr=0.1)[-1] < 1


def test_the_multiplier_is_bounded() -> None:
    course = lagrangian(5.0, 200, lambda_lr=1.0, lambda_max=7.0)
    assert course[-1] == pytest.approx(7.0) and max(course) <= 7.0 + 1e-9
