"""Active sampling: what it promises of its pairs, what it is worth, and what it costs."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import spearmanr

from popmargin.errors import ConfigError, DataError
from popmargin.pop.active import ActiveSampler, expected_information
from popmargin.pop.edges import PopEdges
from popmargin.pop.fit import fit_strengths
from popmargin.pop.sampling import sample_edges


def names(count: int) -> list[str]:
    return [f"p{i}" for i in range(count)]


def answers(pairs: list[tuple[str, str]], truth: Any) -> PopEdges:
    ordered = [sorted(pair, key=lambda name: -truth[int(name[1:])]) for pair in pairs]
    return PopEdges.from_columns([a for a, _ in ordered], [b for _, b in ordered])


@settings(max_examples=20)
@given(st.integers(2, 12), st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 5))
def test_no_pair_comes_twice_until_none_is_left(count: int, rounds: list[int], seed: int) -> None:
    sampler, seen = ActiveSampler(names(count), seed=seed), list[frozenset[str]]()
    for n in rounds:
        pairs = sampler.ask(n)
        assert len(pairs) == min(n, count * (count - 1) // 2 - len(seen))
        seen += map(frozenset, pairs)
        if pairs:
            sampler.tell(answers(pairs, range(count)))
    assert all(len(pair) == 2 for pair in seen) and len(set(seen)) == len(seen)
    assert sampler.pairs_left == count * (count - 1) // 2 - len(seen)


def test_a_batch_is_balanced_and_the_same_seed_gives_the_same() -> None:
    truth = np.random.default_rng(0).normal(size=100)
    first, again, other = (ActiveSampler(names(100), seed=seed) for seed in (1, 1, 2))
    for _ in range(4):
        batches = [sampler.ask(50) for sampler in (first, again, other)]
        degrees = np.bincount([int(name[1:]) for pair in batches[0] for name in pair], minlength=100)
        assert degrees.max() <= 2 and batches[0] == batches[1] != batches[2]
        for sampler, batch in zip((first, again, other), batches, strict=True):
            sampler.tell(answers(batch, truth))
    edges = first.edges()
    assert edges is not None and len(edges) == 200


def test_expected_information_is_that_of_the_posterior() -> None:
    """½·log(variance before / variance after) of the difference, when one more answer's curvature is added."""
    gap, variance = np.array([0.0, 1.0, 3.0]), np.array([2.0, 1.0, 5.0])
    fisher = expit(gap) * (1 - expit(gap))
    after = 1 / (1 / variance + fisher)
    np.testing.assert_allclose(expected_information(gap, variance), 0.5 * np.log(variance / after))
    thurstone = expected_information(np.zeros(1), np.ones(1), model="thurstone")
    assert thurstone[0] == pytest.approx(0.5 * np.log1p(2 / np.pi))


def test_it_asks_about_what_is_open() -> None:
    """After exact answers, pairs are closer in strength than random ones."""
    truth = np.random.default_rng(3).normal(size=200)
    sampler = ActiveSampler(names(200), seed=0)
    for _ in range(6):
        sampler.tell(answers(sampler.ask(100), truth))
    pairs = sampler.ask(100)
    gaps = [abs(truth[int(a[1:])] - truth[int(b[1:])]) for a, b in pairs]
    assert np.mean(gaps) < 0.5 * np.abs(truth[:, None] - truth).mean()


def correlation(sampling: str, k: int, seed: int, **noise: float) -> float:
    truth = np.abs(np.random.default_rng([seed, 1]).normal(size=200))
    edges = sample_edges(names(200), truth, sampling=sampling, k=k, seed=seed, **noise)
    assert edges.parameters["comparisons"] == 200 * k == len(edges)
    return float(spearmanr(fit_strengths(edges, names(200), errors="none").strength, truth)[0])


@pytest.mark.parametrize(
    ("k", "noise", "gain"), [(2, {}, 0.03), (5, {"flip": 0.1}, 0.03), (5, {"temperature": 0.1}, 0)]
)
def test_it_beats_random_pairs_where_answers_are_mostly_right(k: int, noise: dict[str, float], gain: float) -> None:
    differences = [correlation("active", k, s, **noise) - correlation("random", k, s, **noise) for s in range(3)]
    assert np.mean(differences) > gain


def test_ties_and_a_budget_reach_the_edges() -> None:
    strength = [1.0, 1.0, 2.0, 3.0, 3.0, 4.0]
    edges = sample_edges(names(6), strength, sampling="active", budget=15)
    assert len(edges) == 15 and sum(edges.table["tie"].to_pylist()) == 2
    assert edges.parameters["sampling"] == "active" and edges.parameters["budget"] == 15
    with pytest.raises(ConfigError, match="6 preferences have only 15, and no pair is asked twice"):
        sample_edges(names(6), strength, sampling="active", budget=16)
    assert (
        sample_edges(names(6), strength, sampling="active", seed=3).fingerprint()
        == sample_edges(names(6), strength, sampling="active", seed=3).fingerprint()
    )


def test_answers_of_others_count_and_edges_without_a_weaker_side_do_not() -> None:
    sampler = ActiveSampler(["a", "b", "c"], seed=0)
    sampler.tell(PopEdges.from_columns(["a"], [None]))
    sampler.tell(PopEdges.from_columns(["a", "b"], ["b", "c"]))
    assert [set(pair) for pair in sampler.ask(9)] == [{"a", "c"}]
    with pytest.raises(DataError, match="that the data lacks, such as 'z'"):
        sampler.tell(PopEdges.from_columns(["z"], ["a"]))


def test_bad_settings_are_named() -> None:
    with pytest.raises(DataError, match="at least 2"):
        ActiveSampler(["a"])
    with pytest.raises(ConfigError, match="batch_size is 0"):
        ActiveSampler(["a", "b"], batch_size=0)


@pytest.mark.slow
def test_time_grows_hardly_faster_than_the_number_of_preferences() -> None:
    """O(N log N): eight times the preferences, far less than 64 times the seconds."""

    def seconds(count: int) -> float:
        truth = np.random.default_rng(0).normal(size=count)
        started = time.process_time()
        sample_edges(names(count), truth, sampling="active", k=2)
        return time.process_time() - started

    seconds(500)
    assert seconds(32_000) < 24 * seconds(4_000)
