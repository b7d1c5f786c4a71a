"""`cdpo`: its formula in NumPy and what is special about it."""

import math

import pytest
from objective_cases import Contract, loss, nls, rows_of, slope, soft

CONTRACT = Contract(
    formula=soft(lambda p, r, o: p * nls(o.beta * r) + (1 - p) * nls(-o.beta * r)),
    options=({"beta": 0.5},),
    finite_target=True,
)


@pytest.mark.parametrize("p", [0.1, 0.4, 0.5, 0.8, 0.99])
def test_cdpo_is_smallest_at_the_logit_of_the_label(p: float) -> None:
    at = math.log(p / (1 - p)) / 0.1
    assert float(slope("cdpo", [at], soft=p)) == pytest.approx(0, abs=1e-15)
    below, above = slope("cdpo", [at - 1, at + 1], soft=p).tolist()
    assert below < 0 < above
    least = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert float(loss("cdpo", rows_of([at], soft=p))) == pytest.approx(least)
