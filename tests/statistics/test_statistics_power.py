"""Power of a study from a pilot's variance components."""

import numpy as np
import pytest

from popmargin.errors import DataError
from popmargin.statistics.jackknife import Estimate, row_means
from popmargin.statistics.power import Components, simulate


def drawn(rng: np.random.Generator, components: Components, seeds: int, clusters: int, shift: float = 0.0) -> Estimate:
    """The paired difference of a study, through the same call as a report's."""
    cells = shift + rng.normal(0, components.cells**0.5, (seeds, clusters))
    cells += rng.normal(0, components.clusters**0.5, clusters) + rng.normal(0, components.seeds**0.5, (seeds, 1))
    return row_means(cells, list(range(clusters)))


TRUTH = Components(clusters=0.04, seeds=0.0009, cells=0.09)


def test_components_are_unbiased_where_none_is_cut_at_zero() -> None:
    rng = np.random.default_rng(0)
    found = [Components.of(drawn(rng, TRUTH, 8, 300)) for _ in range(200)]
    assert np.mean([one.clusters for one in found]) == pytest.approx(TRUTH.clusters, rel=0.05)
    assert np.mean([one.seeds for one in found]) == pytest.approx(TRUTH.seeds, rel=0.15)
    assert np.mean([one.cells for one in found]) == pytest.approx(TRUTH.cells, rel=0.02)


def test_a_study_of_the_promised_size_keeps_the_promise() -> None:
    """Independent studies drawn from the same components find the detectable difference as often as was said."""
    planned = simulate(TRUTH, 200, 5, studies=2000)
    difference = planned.detectable(0.8)
    assert planned.power(difference) == pytest.approx(0.8, abs=0.01)
    rng = np.random.default_rng(1)
    intervals = [drawn(rng, TRUTH, 5, 200, difference).interval() for _ in range(1000)]
    assert np.mean([interval.low > 0 or interval.high < 0 for interval in intervals]) == pytest.approx(0.8, abs=0.04)
    assert planned.power(0.0) < 0.08  # 95% intervals
    assert planned.estimates.std() == pytest.approx(TRUTH.standard_error(200, 5), rel=0.06)


def test_more_prompts_do_not_help_where_seeds_differ_and_more_seeds_do() -> None:
    noisy = Components(clusters=0.01, seeds=0.01, cells=0.01)
    base, prompts, seeds = (
        simulate(noisy, *size, studies=400).detectable() for size in ((100, 4), (800, 4), (100, 16))
    )
    assert prompts > 0.8 * base and seeds < 0.6 * base


@pytest.mark.parametrize("shape", [(1, 50), (3, 1)])
def test_a_pilot_with_one_seed_or_prompt_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="needs at least two of both"):
        Components.of(Estimate(np.zeros(shape[0]), np.zeros(shape), np.ones(shape[1], dtype=np.int64)))
    with pytest.raises(DataError, match="a study needs 2 clusters and a seed"):
        simulate(TRUTH, 1, 1)
