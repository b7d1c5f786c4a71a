"""Intervals: their forms by hand, their ends, and what makes them wide."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, chi2, norm
from scipy.stats import t as student

from popmargin.errors import ConfigError, DataError
from popmargin.statistics.edge_mean import edge_mean
from popmargin.statistics.intervals import UNDEFINED, Clusters, Interval, Spread, cluster_freedom, per_seed_rows
from popmargin.statistics.jackknife import (
    Estimate,
    jackknife,
    jackknife_seeds,
    ratio,
    row_means,
    without_each,
    without_rows,
    without_sets,
)
from popmargin.statistics.medians import median_interval, ratio_of_medians


def ends(interval: Interval) -> tuple[float, float, float]:
    return interval.estimate, interval.low, interval.high


def test_the_interval_of_a_mean_of_single_rows_is_students() -> None:
    values = np.random.default_rng(0).normal(size=9)
    half = student.ppf(0.975, 8) * values.std(ddof=1) / 3
    found = jackknife(lambda rows: values[rows].mean(), range(9))
    assert ends(found) == pytest.approx((values.mean(), values.mean() - half, values.mean() + half))


def test_the_interval_of_equal_clusters_is_that_of_their_means() -> None:
    values = np.random.default_rng(0).normal(size=(5, 4))
    means = values.mean(axis=1)
    half = student.ppf(0.975, 4) * means.std(ddof=1) / math.sqrt(5)
    found = row_means(values.reshape(1, -1), np.repeat(np.arange(5), 4).tolist()).interval()
    assert ends(found) == pytest.approx((means.mean(), means.mean() - half, means.mean() + half))


def crossed(seed: Any, item: Any, cell: Any) -> np.ndarray:
    return np.array(seed)[:, None] + np.array(item)[None, :] + np.array(cell)


def test_two_crossed_levels_are_the_analysis_of_variance() -> None:
    """Mean squares of seeds, items and rest by the textbook; 0.69 of the rest's is taken off the seeds'."""
    rng = np.random.default_rng(1)
    y = crossed(rng.normal(0, 0.5, 3), rng.normal(0, 1, 12), rng.normal(0, 0.3, (3, 12)))
    rest = y - y.mean(axis=0) - y.mean(axis=1, keepdims=True) + y.mean()
    squares = {"seeds": 12 * y.mean(axis=1).var(ddof=1), "items": 3 * y.mean(axis=0).var(ddof=1)}
    noise = (rest**2).sum() / (2 * 11)
    spread = row_means(y, range(12)).spread()
    assert spread.seeds == pytest.approx(squares["seeds"] / 36)
    assert spread.clusters == pytest.approx(squares["items"] / 36)
    assert spread.noise == pytest.approx(noise / 36)
    taken = chi2.ppf(0.5, 2) / 2 * noise
    assert spread.variance == pytest.approx((squares["items"] + squares["seeds"] - taken) / 36)


def test_seeds_that_are_one_run_add_nothing_and_different_ones_widen() -> None:
    values = np.random.default_rng(0).normal(size=200)
    one = row_means(values[None], range(200)).interval()
    same = row_means(np.stack([values] * 3), range(200)).interval()
    apart = row_means(np.stack([values - 0.2, values, values + 0.2]), range(200)).interval()
    assert ends(same) == pytest.approx(ends(one))
    assert apart.high - apart.low > 2 * (one.high - one.low)


def test_noise_of_single_cells_is_not_counted_twice() -> None:
    """Seeds that differ row by row alone: both levels see the same noise, and the interval is that of the items."""
    rng = np.random.default_rng(3)
    widths: list[float] = []
    for _ in range(200):
        y = crossed(np.zeros(3), rng.normal(0, 1, 100), rng.normal(0, 1, (3, 100)))
        found = row_means(y, range(100)).interval()
        widths.append((found.high - found.low) / (2 * norm.ppf(0.975) * math.sqrt((1 + 1 / 3) / 100)))
    assert 1.0 < np.mean(widths) < 1.2  # the bootstrap over items with seeds on top gave 1.5


def test_paired_arms_give_a_shorter_interval_than_unpaired_ones() -> None:
    rng = np.random.default_rng(0)
    item = rng.normal(0, 1, 300)
    a, b = item + 0.1 + rng.normal(0, 0.1, 300), item + rng.normal(0, 0.1, 300)
    paired = jackknife(lambda rows: a[rows].mean() - b[rows].mean(), range(300))
    assert paired.low > 0.05
    assert jackknife(lambda rows: a[rows].mean(), range(300)).low < 0
    difference = row_means(a[None], range(300)).minus(row_means(b[None], range(300)))
    assert ends(difference) == pytest.approx(ends(paired))


def test_a_single_seed_borrows_the_spread_of_the_other_arms_seeds() -> None:
    """Three seeds of the baseline with sd s: a fourth run differs from their mean by s·√(1 + ⅓), rows aside."""
    rng = np.random.default_rng(0)
    item = rng.normal(0, 1, 400)
    base = np.stack([item - 0.3, item, item + 0.3])
    arm = row_means(item[None] + 0.1, range(400))
    spread = arm.spread_of_difference(row_means(base, range(400)))
    assert spread.seeds == pytest.approx(0.3**2 * (1 + 1 / 3))
    alone = arm.minus(row_means(item[None], range(400)))
    assert alone.high - alone.low < 1e-9
    beside = arm.minus(row_means(base, range(400)))
    assert beside.low < 0 < beside.high
    with pytest.raises(DataError, match="400 and 3 clusters"):
        arm.minus(row_means(np.ones((1, 3)), range(3)))


def test_the_ways_to_leave_out_clusters_agree() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(30), rng.integers(1, 6, 30)).tolist()
    values = rng.normal(size=(3, len(clusters)))
    groups = Clusters(clusters)
    by_rows = jackknife_seeds(lambda s, rows: values[s, rows].mean(), clusters, 3)
    sums = [groups.sums(np.stack([row, np.ones_like(row)], axis=1)) for row in values]
    by_counts = without_sets(lambda s, counts: ratio(counts @ sums[s]), groups, 3).interval()
    means = ends(row_means(values, clusters).interval())
    assert means == pytest.approx(ends(by_rows)) and means == pytest.approx(ends(by_counts))


def test_equal_rows_are_left_out_once() -> None:
    rows = np.random.default_rng(0).integers(0, 3, (50, 2)) + np.array([0, 1])
    one = without_each(rows[None].astype(float), list(range(50)), ratio)
    other = without_rows(rows.astype(float), ratio)
    assert ends(other.interval()) == pytest.approx(ends(one.interval()))


def test_many_clusters_are_left_out_in_sets_of_equal_size() -> None:
    values = np.random.default_rng(0).normal(size=3000)
    groups = Clusters(range(3000))
    found = without_sets(lambda _, counts: counts @ values / counts.sum(axis=1), groups, 1)
    assert found.sizes.tolist() == [6] * 500
    one, other = found.interval(), row_means(values[None], groups).interval()
    assert one.high - one.low == pytest.approx(other.high - other.low, rel=0.1)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=20))
def test_unequal_clusters_have_fewer_degrees_of_freedom(sizes: list[int]) -> None:
    found = cluster_freedom(np.array(sizes))
    assert (len(sizes) - 1) / 2 < found <= len(sizes) - 1 + 1e-12
    assert cluster_freedom(np.full(len(sizes), 3)) == pytest.approx(len(sizes) - 1)


def test_few_clusters() -> None:
    """One says nothing about another; two have Student's t with one degree of freedom, 12.7."""
    one = row_means(np.array([[1.0, 2.0]]), "aa").interval()
    assert one.estimate == 1.5 and math.isnan(one.low) and math.isnan(one.high)
    two = row_means(np.array([[1.0, 2.0]]), "ab").interval()
    assert two.high == pytest.approx(1.5 + student.ppf(0.975, 1) * 0.5)
    empty = Estimate(np.full(1, np.nan), np.zeros((1, 0)), np.zeros(0, dtype=np.int64))
    assert empty.interval() is UNDEFINED and empty.minus(empty) is UNDEFINED


def test_a_share_of_one_is_not_certain() -> None:
    """Clopper-Pearson for 20 of 20: the lower 2.5% bound is Beta(20, 1)'s quantile; rows of a cluster add nothing."""
    clusters = np.repeat(np.arange(20), 3).tolist()
    all_right, none = (row_means(np.full((2, 60), value), clusters).interval(scale="share") for value in (1.0, 0.0))
    assert ends(all_right) == pytest.approx((1.0, float(beta.ppf(0.025, 20, 1)), 1.0))
    assert ends(none) == pytest.approx((0.0, 0.0, float(beta.ppf(0.975, 1, 20))))
    half = row_means(np.full((1, 60), 0.5), clusters).interval(scale="share")
    assert half.low < 0.5 < half.high
    assert math.isnan(row_means(np.ones((1, 3)), "aaa").interval(scale="share").low)


@given(right=st.lists(st.booleans(), min_size=2, max_size=60))
def test_the_interval_of_a_share_is_inside_and_around_it(right: list[bool]) -> None:
    found = row_means(np.array([right], dtype=float), range(len(right))).interval(scale="share")
    assert 0.0 <= found.low <= found.estimate <= found.high <= 1.0
    assert found.high - found.low > 0.5 / len(right)


def test_wilsons_interval_with_the_rows_that_give_the_variance() -> None:
    """17 of 20 single rows: n = p(1 − p) / V = 19, t with 19 degrees of freedom in the place of z."""
    right = np.arange(20) < 17
    found = row_means(right[None].astype(float), range(20)).interval(scale="share")
    p, n, t = 0.85, 19.0, student.ppf(0.975, 19)
    middle, half = (
        (p + t**2 / (2 * n)) / (1 + t**2 / n),
        t * math.sqrt(p * (1 - p) / n + t**2 / (4 * n**2)) / (1 + t**2 / n),
    )
    assert ends(found) == pytest.approx((p, middle - half, middle + half))


def test_the_interval_of_a_correlation_is_fishers() -> None:
    spread = Spread(0.01, 50.0, count=51)
    found = spread.interval(0.6, scale="correlation")
    half = student.ppf(0.975, 50) * 0.1 / (1 - 0.36)
    assert ends(found) == pytest.approx((0.6, math.tanh(math.atanh(0.6) - half), math.tanh(math.atanh(0.6) + half)))
    perfect = Spread(0.0, 4.0, count=5).interval(1.0, scale="correlation")
    assert perfect.estimate == 1.0 and math.isnan(perfect.low)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_a_p_value_is_where_the_interval_reaches_its_null(seeds: int) -> None:
    rng = np.random.default_rng(0)
    values = 0.2 + rng.normal(0, 1, 40) + rng.normal(0, 0.3, (seeds, 1))
    estimate = row_means(values, range(40))
    p = estimate.interval(null=0.0).p
    reaching = estimate.interval(level=1 - p)
    assert min(abs(reaching.low), abs(reaching.high)) < 1e-6
    assert math.isnan(estimate.interval().p)
    wins = row_means((values > 0).astype(float), range(40))
    p = wins.interval(scale="share", null=0.5).p
    reaching = wins.interval(level=1 - p, scale="share")
    assert min(abs(reaching.low - 0.5), abs(reaching.high - 0.5)) < 1e-6


def test_the_p_value_of_winning_everywhere_is_that_of_a_coin() -> None:
    found = row_means(np.ones((1, 6)), range(6)).interval(scale="share", null=0.5)
    assert found.p == pytest.approx(2 * 0.5**6)
    assert row_means(np.full((1, 6), 0.5), range(6)).interval(scale="share", null=0.5).p == 1.0


def test_undefined_statistics_give_nan_and_none() -> None:
    assert jackknife(lambda rows: math.nan, ["a", "b"]).to_dict() == {"estimate": None, "low": None, "high": None}
    assert jackknife(lambda rows: 1.0, []) is UNDEFINED
    needs_all = jackknife(lambda rows: 1.0 if {0, 1, 2} <= set(rows) else math.nan, "abc")
    assert needs_all.estimate == 1.0 and math.isnan(needs_all.low)
    for interval in (Interval(0.5, 0.4, 0.6), Interval(0.5, 0.4, 0.6, 0.01)):
        assert Interval.from_dict(interval.to_dict()) == interval
    assert math.isnan(Interval.from_dict(UNDEFINED.to_dict()).low)


def test_edges_between_independent_items_have_the_binomial_error() -> None:
    """Edges without shared items: variance p(1-p)/E, here 0.25/400, so half a width of about 1.96·0.025 = 0.049."""
    values = np.tile([0.0, 1.0], 200)
    interval = edge_mean(values[None, :], list(range(400)), list(range(400, 800)))
    assert (interval.estimate, interval.low) == pytest.approx((0.5, 0.5 - 0.049), abs=5e-4)


def test_edges_of_one_prompt_are_counted_as_one_cluster() -> None:
    """The same 4 edges 100 times between the same prompts tell no more than 4 edges."""
    few = edge_mean(np.array([[1.0, 0.0, 1.0, 0.0]]), list("abcd"), list("efgh"))
    many = edge_mean(np.tile([1.0, 0.0, 1.0, 0.0], (1, 100)), list("abcd" * 100), list("efgh" * 100))
    assert ends(many) == pytest.approx(ends(few))
    inside = edge_mean(np.tile([1.0, 0.0, 1.0, 0.0], (1, 100)), list("abcd" * 100), list("abcd" * 100))
    assert inside.high - inside.low > many.high - many.low  # four clusters instead of eight


def test_differences_of_edges_are_paired_or_of_seeds_that_vary_on_their_own() -> None:
    rng = np.random.default_rng(0)
    first, second = list(range(50)), list(range(50, 100))
    base = rng.normal(0, 1, (3, 50))
    paired = edge_mean(base + 0.1, first, second, minus=base)
    assert ends(paired) == pytest.approx((0.1, 0.1, 0.1))
    own = edge_mean(base[:1] + 0.1, first, second, minus=base)
    assert own.low < own.estimate < own.high and own.p > 0.05


def test_the_median_and_a_ratio_of_medians() -> None:
    """The median of 1 … 99 is 50; Wilson's interval of ½ with 98 rows is 0.5 ± 0.098, the 40th and 60th value."""
    found = median_interval(np.arange(1.0, 100.0), list(range(99)))
    assert ends(found) == (50.0, 40.0, 60.0)
    assert math.isnan(median_interval(np.array([3.0]), ["a"]).low)
    ratio = ratio_of_medians(Interval(8.0, 4.0, 16.0), Interval(2.0, 1.0, 4.0))
    assert ends(ratio) == pytest.approx((4.0, 4.0 / 2 ** math.sqrt(2), 4.0 * 2 ** math.sqrt(2)))
    assert math.isnan(ratio_of_medians(found, Interval(0.0, 0.0, 1.0)).estimate)


def test_settings_and_values_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="level is 95"):
        jackknife(lambda rows: 1.0, ["a", "b"], level=95.0)
    with pytest.raises(DataError, match="first in seed 1, row 0"):
        per_seed_rows([[1.0], [math.nan]], "reward_margin")
    with pytest.raises(DataError, match=r"give \(rows,\)"):
        per_seed_rows(np.zeros((1, 1, 1)), "reward_margin")
