"""Best of n, exactly."""

import itertools
import math

import numpy as np
import pytest

from popmargin.errors import DataError
from popmargin.evaluation.best_of_n import best_of_n, divergence, expected_best


@pytest.mark.parametrize("ties", [False, True])
def test_it_is_the_mean_over_all_draws(ties: bool) -> None:
    rng = np.random.default_rng(0)
    scores, gold = rng.normal(size=7), rng.normal(size=7)
    if ties:
        scores = scores.round(0)
    for n in range(1, 8):
        picks = []
        for draw in itertools.combinations(range(7), n):
            best = max(scores[list(draw)])
            picks.append(np.mean([gold[row] for row in draw if scores[row] == best]))
        assert expected_best(scores, gold, [n])[0] == pytest.approx(np.mean(picks))


def test_the_ends_are_a_random_sample_and_the_favourite() -> None:
    rng = np.random.default_rng(1)
    scores, gold = rng.normal(size=32), rng.normal(size=32)
    first, last = expected_best(scores, gold, [1, 32])
    assert first == pytest.approx(gold.mean()) and last == pytest.approx(gold[scores.argmax()])
    curve = expected_best(gold, gold, range(1, 33))
    assert (np.diff(curve) > 0).all()  # the gold reward itself gains with every sample
    assert expected_best(np.zeros(32), gold, [8])[0] == pytest.approx(gold.mean())  # a model that knows nothing


def test_divergence() -> None:
    assert [divergence(n) for n in (1, 2)] == [0.0, pytest.approx(math.log(2) - 0.5)]


def test_curves_are_paired_by_prompt_and_their_intervals_cover_prompts_and_seeds() -> None:
    rng = np.random.default_rng(2)
    gold = [rng.normal(size=8 + row % 3) for row in range(60)]
    good = [[worth + rng.normal(0, 0.5, len(worth)) for worth in gold] for _ in range(3)]
    poor = [[worth + rng.normal(0, 3.0, len(worth)) for worth in gold] for _ in range(3)]
    clusters = [f"p{row}" for row in range(60)]
    better, worse = (best_of_n(scores, gold, clusters, [1, 2, 4, 8]) for scores in (good, poor))
    gaps = better.minus(worse)
    assert gaps[0].estimate == pytest.approx(0) and gaps[-1].low > 0
    assert better.intervals[-1].low < better.intervals[-1].estimate < better.intervals[-1].high
    assert better.divergences == [divergence(n) for n in (1, 2, 4, 8)]


def test_mistakes_are_named() -> None:
    for scores, gold, ns, message in (
        ([1.0], [1.0, 2.0], [1], "give one of each"),
        ([1.0, math.nan], [1.0, 2.0], [1], "not finite"),
        ([1.0, 2.0], [1.0, 2.0], [3], "The best of 3 cannot be taken of 2 samples"),
    ):
        with pytest.raises(DataError, match=message):
            expected_best(scores, gold, ns)
    one = best_of_n([[[1.0, 2.0]]], [[1.0, 2.0]], ["a"], [1])
    with pytest.raises(DataError, match="chose among other samples"):
        one.minus(best_of_n([[[1.0, 2.0]]], [[1.0, 2.0]], ["b"], [1]))
    with pytest.raises(DataError, match="no samples"):
        best_of_n([], [], [], [1])
