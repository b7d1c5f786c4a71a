"""Weak, medium and strong: by rank, equal values together, and the same thirds in every place that names them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from popmargin.data.summary import strength_summary
from popmargin.evaluation.discriminative import discriminative_metrics
from popmargin.statistics.buckets import STRENGTHS, rank_buckets, strength_thirds


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


def test_unknown_strengths_are_in_no_third() -> None:
    assert strength_thirds(np.array([np.nan, 1.0, 2.0, 3.0])).tolist() == [-1, 0, 1, 2]


@given(values=st.lists(st.integers(0, 4), min_size=2, max_size=30))
def test_data_and_evaluation_call_the_same_preferences_weak(values: list[int]) -> None:
    """Many strengths tie: quantile cuts and ranks would disagree."""
    strength = np.array(values, dtype=float)
    summary = strength_summary(strength)
    assert summary is not None
    counts = discriminative_metrics(
        reward_margin=np.zeros(len(values)), strength=strength, clusters=[str(i) for i in range(len(values))]
    ).counts
    assert {third["name"]: third["count"] for third in summary["thirds"]} == {name: counts[name] for name in STRENGTHS}
