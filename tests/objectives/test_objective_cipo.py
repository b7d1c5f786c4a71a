"""`cipo`: its formula in NumPy and what is special about it."""

import pytest
from objective_cases import Contract, loss, rows_of, soft

CONTRACT = Contract(
    formula=soft(lambda p, r, o: (r - (2 * p - 1) / (2 * o.beta)) ** 2), options=({"beta": 0.5},), finite_target=True
)


@pytest.mark.parametrize("p", [0.1, 0.4, 0.8])
def test_cipo_target(p: float) -> None:
    assert float(loss("cipo", rows_of([(2 * p - 1) / 0.2], soft=p))) == pytest.approx(0, abs=1e-20)
    target = 5.0 if p > 0.5 else -5.0
    assert float(loss("geometric_ipo", rows_of([target], soft=p))) == pytest.approx(0, abs=1e-20)
