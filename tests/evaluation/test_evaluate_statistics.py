"""Intervals: coverage, the two forms of the bootstrap against each other, buckets."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, norm

from popmargin.errors import ConfigError, DataError
from popmargin.evaluation.statistics import (
    UNDEFINED,
    Clusters,
    Interval,
    bootstrap,
    bootstrap_seeds,
    bootstrap_sums,
    edge_mean,
    interval_normal,
    per_seed_rows,
    rank_buckets,
    share_interval,
    strength_terciles,
)


def ratio(sums: Any) -> Any:
    return sums[..., 0] / sums[..., 1]


def with_ones(values: Any) -> Any:
    values = np.atleast_2d(values)
    return np.stack([values, np.ones_like(values)], axis=-1)


def clustered(rng: Any, count: int) -> list[int]:
    return np.repeat(np.arange(count), rng.integers(1, 6, count)).tolist()


def clustered_mean(rng: Any) -> tuple[Interval, float]:
    """Rows of a cluster share a normal effect; the population mean is 0."""
    clusters = clustered(rng, 120)
    values = rng.normal(0, 1, 120)[clusters] + rng.normal(0, 1, len(clusters))
    return bootstrap_sums(with_ones(values), clusters, ratio, samples=500, seed=int(rng.integers(2**31))), 0.0


def clustered_accuracy(rng: Any) -> tuple[Interval, float]:
    """Each cluster has its own probability from Beta(6, 2), mean 0.75."""
    clusters = clustered(rng, 120)
    right = rng.random(len(clusters)) < rng.beta(6, 2, 120)[clusters]
    columns = with_ones(right.astype(float))
    return bootstrap_sums(columns, clusters, ratio, samples=500, seed=int(rng.integers(2**31))), 0.75


def seeds_and_items(rng: Any) -> tuple[Interval, float]:
    """Five seeds with an effect each on items with an effect each; the population mean is 0."""
    clusters = clustered(rng, 120)
    values = rng.normal(0, 0.1, (5, 1)) + rng.normal(0, 1, 120)[clusters] + rng.normal(0, 0.3, (5, len(clusters)))
    return bootstrap_sums(with_ones(values), clusters, ratio, samples=500, seed=int(rng.integers(2**31))), 0.0


def edges_of_a_ranking(rng: Any) -> tuple[Interval, float]:
    """Comparisons of random pairs of 300 items, value a_i - a_j + noise around 0.2: every item is in about 4 edges."""
    first, second = rng.integers(0, 300, (2, 600))
    effect = rng.normal(0, 0.5, 300)
    values = 0.2 + effect[first] - effect[second] + rng.normal(0, 1, 600)
    return edge_mean(values[None, :], first.tolist(), second.tolist()), 0.2


def coverage(draw: Callable[[Any], tuple[Interval, float]], rounds: int) -> float:
    inside = 0
    for number in range(rounds):
        interval, truth = draw(np.random.default_rng([20, number]))
        inside += interval.low <= truth <= interval.high
    return inside / rounds


DESIGNS = [clustered_mean, clustered_accuracy, seeds_and_items, edges_of_a_ranking]


@pytest.mark.parametrize("draw", DESIGNS)
def test_95_percent_intervals_cover_roughly(draw: Callable[[Any], tuple[Interval, float]]) -> None:
    """With 100 rounds the share has a standard error of 0.022."""
    assert 0.88 <= coverage(draw, 100) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("draw", DESIGNS)
def test_95_percent_intervals_cover_93_to_97_percent(draw: Callable[[Any], tuple[Interval, float]]) -> None:
    assert 0.93 <= coverage(draw, 1000) <= 0.97


@pytest.mark.slow
def test_ignoring_clusters_would_not_cover() -> None:
    """The test above can fail: rows taken as independent give intervals that are much too short."""

    def naive(rng: Any) -> tuple[Interval, float]:
        clusters = clustered(rng, 60)
        values = rng.normal(0, 1, 60)[clusters]
        return bootstrap_sums(with_ones(values), list(range(len(clusters))), ratio, samples=300), 0.0

    assert coverage(naive, 300) < 0.85


def test_the_two_forms_of_the_bootstrap_agree_exactly() -> None:
    rng = np.random.default_rng(0)
    clusters = clustered(rng, 30)
    values = rng.normal(size=(3, len(clusters)))
    by_sums = bootstrap_sums(with_ones(values), clusters, ratio, samples=200, seed=4)
    by_rows = bootstrap_seeds(lambda s, rows: values[s, rows].mean(), clusters, 3, samples=200, seed=4)
    assert by_sums.to_dict() == pytest.approx(by_rows.to_dict())
    one = bootstrap(lambda rows: values[0, rows].mean(), clusters, samples=200, seed=4)
    assert one.to_dict() == pytest.approx(
        bootstrap_sums(with_ones(values[0]), clusters, ratio, samples=200, seed=4).to_dict()
    )


def test_the_interval_of_a_mean_is_the_normal_one_for_independent_rows() -> None:
    values = np.random.default_rng(0).normal(size=2000)
    interval = bootstrap(lambda rows: values[rows].mean(), range(2000), samples=2000)
    half = norm.ppf(0.975) * values.std() / math.sqrt(2000)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_identical_seeds_add_nothing_and_different_ones_widen() -> None:
    values = np.random.default_rng(0).normal(size=200)
    clusters = list(range(200))
    one = bootstrap_sums(with_ones(values), clusters, ratio)
    same = bootstrap_sums(with_ones(np.stack([values] * 3)), clusters, ratio)
    apart = bootstrap_sums(with_ones(np.stack([values - 0.2, values, values + 0.2])), clusters, ratio)
    assert same.to_dict() == pytest.approx(one.to_dict())
    assert apart.high - apart.low > 2 * (one.high - one.low)


def test_paired_arms_give_a_shorter_interval_than_unpaired_ones() -> None:
    rng = np.random.default_rng(0)
    item = rng.normal(0, 1, 300)
    a, b = item + 0.1 + rng.normal(0, 0.1, 300), item + rng.normal(0, 0.1, 300)
    paired = bootstrap(lambda rows: a[rows].mean() - b[rows].mean(), range(300))
    assert paired.low > 0.05
    assert bootstrap(lambda rows: a[rows].mean(), range(300)).low < 0


def test_same_seed_same_interval() -> None:
    values = np.arange(20.0)
    draws = [bootstrap(lambda rows: values[rows].mean(), range(20), seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_undefined_statistics_give_nan_and_none() -> None:
    assert bootstrap(lambda rows: math.nan, ["a", "b"]).to_dict() == {"estimate": None, "low": None, "high": None}
    assert bootstrap(lambda rows: 1.0, []) is UNDEFINED
    mostly = bootstrap(lambda rows: 1.0 if {0, 1, 2, 3} <= set(rows) else math.nan, "abcd")
    assert mostly.estimate == 1.0
    assert math.isnan(mostly.low)
    assert Interval.from_dict(Interval(0.5, 0.4, 0.6).to_dict()) == Interval(0.5, 0.4, 0.6)
    assert math.isnan(Interval.from_dict(UNDEFINED.to_dict()).low)


def test_edges_between_independent_items_have_the_binomial_error() -> None:
    """Edges without shared items: variance p(1-p)/E, here 0.25/400, so half a width of 1.96·0.025 = 0.049."""
    values = np.tile([0.0, 1.0], 200)
    interval = edge_mean(values[None, :], list(range(400)), list(range(400, 800)))
    assert (interval.estimate, interval.low) == pytest.approx((0.5, 0.5 - 0.049), abs=1e-4)


def test_edges_of_one_prompt_are_counted_as_one_cluster() -> None:
    """The same 4 edges 100 times between the same prompts tell no more than 4 edges."""
    few = edge_mean(np.array([[1.0, 0.0, 1.0, 0.0]]), list("abcd"), list("efgh"))
    many = edge_mean(np.tile([1.0, 0.0, 1.0, 0.0], (1, 100)), list("abcd" * 100), list("efgh" * 100))
    inside = edge_mean(np.tile([1.0, 0.0, 1.0, 0.0], (1, 100)), list("abcd" * 100), list("abcd" * 100))
    assert many.to_dict() == pytest.approx(few.to_dict())
    assert inside.to_dict() == pytest.approx(few.to_dict())


def test_a_share_of_one_is_not_certain() -> None:
    """Clopper-Pearson for 20 of 20: the lower 2.5% bound is Beta(20, 1)'s quantile."""
    assert share_interval(Interval(1.0, 1.0, 1.0), 20).low == pytest.approx(float(beta.ppf(0.025, 20, 1)))
    assert share_interval(Interval(0.0, 0.0, 0.0), 20).high == pytest.approx(float(beta.ppf(0.975, 1, 20)))
    assert share_interval(Interval(0.9, 0.8, 1.1), 20) == Interval(0.9, 0.8, 1.0)


def test_normal_intervals_of_one_and_of_many_equal_seeds_agree() -> None:
    one = interval_normal(np.array([0.5]), 0.1)
    assert one.high == pytest.approx(0.5 + 1.959964 * 0.1)
    assert interval_normal(np.array([0.5, 0.5]), 0.1).high == pytest.approx(one.high, abs=0.003)


@given(values=st.lists(st.integers(0, 5), min_size=1, max_size=40), buckets=st.integers(1, 6), seed=st.integers(0, 99))
def test_buckets_keep_equal_values_together_and_follow_the_order(values: list[int], buckets: int, seed: int) -> None:
    array = np.array(values, dtype=float)
    bucket = rank_buckets(array, buckets)
    assert ((bucket >= 0) & (bucket < buckets)).all()
    order = np.argsort(array, kind="stable")
    assert (np.diff(bucket[order]) >= 0).all()
    assert all(len(set(bucket[array == value])) == 1 for value in set(values))
    shuffled = np.random.default_rng(seed).permutation(len(array))
    assert (rank_buckets(array[shuffled], buckets) == bucket[shuffled]).all()


@given(count=st.integers(1, 200), buckets=st.integers(1, 10))
def test_buckets_of_distinct_values_are_of_equal_size(count: int, buckets: int) -> None:
    sizes = np.bincount(rank_buckets(np.arange(count, dtype=float), buckets), minlength=buckets)
    assert sizes.max() - sizes.min() <= 1


def test_unknown_strengths_are_in_no_tercile() -> None:
    assert strength_terciles(np.array([np.nan, 1.0, 2.0, 3.0])).tolist() == [-1, 0, 1, 2]


def test_rows_of_clusters_are_drawn_whole() -> None:
    groups = Clusters(["x", "y", "x", "z"])
    assert sorted(groups.rows(np.array([0, 0, 2])).tolist()) == [0, 0, 2, 2, 3]


def test_settings_and_values_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="samples is 0"):
        bootstrap(lambda rows: 1.0, ["a"], samples=0)
    with pytest.raises(ConfigError, match="level is 95"):
        bootstrap(lambda rows: 1.0, ["a"], level=95.0)
    with pytest.raises(DataError, match="first in seed 1, row 0"):
        per_seed_rows([[1.0], [math.nan]], "reward_margin")
