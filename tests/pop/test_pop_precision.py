"""Whether a scale is good enough, against simulated strengths that are known."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from popmargin.pop.fit import fit_arrays
from popmargin.pop.precision import scale_precision


def answers(seed: int, count: int, per: float, spread: float, flip: float = 0.0) -> tuple[Any, Any, Any]:
    """True strengths, and the two sides of random comparisons by Bradley-Terry, some answers turned round."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, spread, count)
    one = rng.integers(count, size=int(count * per))
    other = (one + rng.integers(1, count, size=len(one))) % count
    chance = 1 / (1 + np.exp(true[other] - true[one]))
    first = rng.random(len(one)) < (1 - flip) * chance + flip * (1 - chance)
    return true, np.where(first, one, other), np.where(first, other, one)


@pytest.mark.parametrize(("per", "spread", "flip"), [(3, 3.0, 0.0), (5, 1.0, 0.0), (5, 3.0, 0.1)])
def test_the_correlation_is_that_with_the_truth(per: float, spread: float, flip: float) -> None:
    """Without being told the spread; a fixed ridge of 0.1 says .86 where .77 is true, at spread 1."""
    found, true = [], []
    for seed in range(3):
        strengths, stronger, weaker = answers(seed, 150, per, spread, flip)
        found.append(scale_precision(stronger, weaker, 150).spearman)
        true.append(spearmanr(strengths, fit_arrays(stronger, weaker, 150)[0])[0])
    assert np.mean([one.estimate for one in found]) == pytest.approx(np.mean(true), abs=0.04)
    inside = [one.low <= value <= one.high for one, value in zip(found, true, strict=True)]
    assert sum(inside) >= 2


def test_as_many_more_as_it_says_reach_the_target() -> None:
    _, stronger, weaker = answers(0, 200, 3, 2.0)
    found = scale_precision(stronger, weaker, 200, target=0.9)
    assert not found.reached and 0 < found.more.low < found.more.estimate < found.more.high
    reached = []
    for seed in range(3):
        strengths, stronger, weaker = answers(10 + seed, 200, 3 + found.more.estimate / 200, 2.0)
        reached.append(spearmanr(strengths, fit_arrays(stronger, weaker, 200)[0])[0])
    assert np.mean(reached) == pytest.approx(0.9, abs=0.025)


def test_what_is_good_enough_needs_nothing_and_says_little_more() -> None:
    _, stronger, weaker = answers(1, 60, 60, 2.0)
    found = scale_precision(stronger, weaker, 60, target=0.9)
    assert found.reached and found.more.estimate == found.more.high == 0.0
    assert found.information < 0.1 and found.comparisons == 3600


def test_coins_order_nothing() -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(100, size=400)
    other = (one + rng.integers(1, 100, size=400)) % 100
    found = scale_precision(one, other, 100)
    assert found.spearman.low < 0.3 and found.more.estimate > 1000


def test_too_few_say_nothing() -> None:
    assert np.isnan(scale_precision([0], [1], 2).spearman.estimate)
