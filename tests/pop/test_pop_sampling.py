"""Edge sampling: its guarantees, and its distribution against drawing partner by partner."""

import time
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popmargin.errors import ConfigError, DataError
from popmargin.pop.edges import PopEdges
from popmargin.pop.noise import label_probability
from popmargin.pop.sampling import sample_edges


def names(count: int) -> list[str]:
    return [f"p{i}" for i in range(count)]


def pairs(edges: PopEdges) -> list[tuple[str, str | None]]:
    table = edges.table
    return list(zip(table["stronger"].to_pylist(), table["weaker"].to_pylist(), strict=True))


STRENGTHS = st.lists(st.integers(0, 6), min_size=3, max_size=20)


@given(strength=STRENGTHS, k=st.integers(1, 2), seed=st.integers(0, 2**32))
def test_iterative_gives_every_preference_its_k_weaker_partners(strength: list[int], k: int, seed: int) -> None:
    ids = names(len(strength))
    edges = sample_edges(ids, strength, k=k, seed=seed, sampling="iterative")
    value = dict(zip(ids, strength, strict=True))
    found = Counter(a for a, b in pairs(edges) if b is not None)
    alone = [a for a, b in pairs(edges) if b is None]
    for name in ids:
        weaker = sum(other < value[name] for other in strength)
        assert found[name] == min(k, weaker)
        assert alone.count(name) == (weaker == 0)
    assert all(b is None or value[a] > value[b] for a, b in pairs(edges))
    assert len(set(pairs(edges))) == len(edges)
    assert edges.parameters["unmatched_preferences"] == len(alone)
    assert len(edges) - len(alone) <= edges.parameters["comparisons"] <= len(ids) * (len(ids) - 1)


@given(strength=STRENGTHS, seed=st.integers(0, 2**32), flip=st.floats(0, 1), temperature=st.floats(0, 3))
def test_random_asks_k_times_n_distinct_pairs(strength: list[int], seed: int, flip: float, temperature: float) -> None:
    ids = names(len(strength))
    edges = sample_edges(ids, strength, sampling="random", seed=seed, flip=flip, temperature=temperature)
    assert len(edges) == len(ids) == edges.parameters["comparisons"]
    assert len({frozenset(pair) for pair in pairs(edges)}) == len(edges)
    value = dict(zip(ids, strength, strict=True))
    equal = [value[a] == value[b] for a, b in pairs(edges) if b is not None]
    assert edges.table["tie"].to_pylist() == equal


@pytest.mark.parametrize("count", [4, 5])
def test_random_can_ask_every_pair_once_and_puts_the_stronger_first(count: int) -> None:
    """4 preferences have 6 pairs (k = 1 asks 4), 5 have 10 = 2·5: k = 2 asks them all."""
    ids = names(count)
    strength = np.arange(count)
    seen: set[tuple[str, str | None]] = set()
    for seed in range(40):
        seen |= set(pairs(sample_edges(ids, strength, sampling="random", k=(count - 1) // 2, seed=seed)))
    assert seen == {(ids[i], ids[j]) for i in range(count) for j in range(i)}


def one_by_one(strength: Any, k: int, budget: int | None, noise: dict[str, float], rng: Any) -> tuple[Any, int]:
    """Iterative sampling as the docstring says it: the reference for the fast one."""
    count = len(strength)
    found = np.zeros((count, count), dtype=int)
    asked = 0
    for i in range(count):
        partners = rng.permutation([j for j in range(count) if j != i])[:budget]
        for j in partners:
            asked += 1
            gap = strength[i] - strength[j]
            if gap != 0 and rng.random() < label_probability(np.array([gap]), **noise)[0]:
                found[i, j] += 1
                if found[i].sum() == k:
                    break
    return found, asked


def agrees_with_one_by_one(noise: dict[str, float], k: int, budget: int | None, rounds: int) -> None:
    strength = np.array([0.0, 0.0, 0.3, 1.0, 1.0, 2.5])
    ids = names(len(strength))
    rng = np.random.default_rng(7)
    slow: list[Any] = []
    fast: list[Any] = []
    for seed in range(rounds):
        found, asked = one_by_one(strength, k, budget, noise, rng)
        slow.append([*found.ravel(), asked])
        edges = sample_edges(
            ids, strength, k=k, budget=budget, seed=seed, unmatched="drop", sampling="iterative", **noise
        )
        stronger, weaker = edges.resolve(ids)
        counted = np.zeros_like(found)
        np.add.at(counted, (stronger, weaker), 1)
        fast.append([*counted.ravel(), edges.parameters["comparisons"]])
    difference = np.mean(fast, axis=0) - np.mean(slow, axis=0)
    error = np.sqrt((np.var(fast, axis=0) + np.var(slow, axis=0)) / rounds)
    assert (np.abs(difference) <= 4.5 * error + 1e-12).all()


NOISES = [
    {"flip": 0.0, "temperature": 0.0},
    {"flip": 0.2, "temperature": 0.0},
    {"flip": 0.0, "temperature": 0.7},
    {"flip": 0.9, "temperature": 0.4},
]


def test_iterative_has_the_distribution_of_drawing_one_by_one() -> None:
    agrees_with_one_by_one({"flip": 0.1, "temperature": 0.7}, 2, 4, 300)


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("k", "budget"), [(1, None), (2, 3), (3, None)])
def test_iterative_has_the_distribution_of_drawing_one_by_one_for_all_noise(
    noise: dict[str, float], k: int, budget: int | None
) -> None:
    agrees_with_one_by_one(noise, k, budget, 1500)


def test_the_weakest_need_all_comparisons_and_the_budget_caps_them() -> None:
    ids = names(50)
    everything = sample_edges(ids, np.arange(50.0), sampling="iterative")
    assert everything.parameters["comparisons_max"] == 49
    capped = sample_edges(ids, np.arange(50.0), budget=3, sampling="iterative")
    assert capped.parameters["comparisons"] <= 150
    assert capped.parameters["comparisons_max"] == 3
    assert capped.parameters["unmatched_preferences"] > everything.parameters["unmatched_preferences"] == 1


def test_dropping_the_unmatched_leaves_no_null() -> None:
    edges = sample_edges(["a", "b", "c"], [1.0, 1.0, 2.0], unmatched="drop", sampling="iterative")
    assert edges.table["stronger"].to_pylist() == ["c"]
    assert edges.table["weaker"].null_count == 0
    assert edges.parameters["unmatched_preferences"] == 2


def test_all_equal_strengths_have_no_edges_to_train_on() -> None:
    iterative = sample_edges(["a", "b", "c"], [1.0, 1.0, 1.0], flip=0.5, sampling="iterative")
    assert iterative.table["weaker"].null_count == 3
    assert all(sample_edges(["a", "b", "c"], [1.0] * 3, sampling="random").table["tie"].to_pylist())


@pytest.mark.parametrize("sampling", ["iterative", "random"])
def test_the_same_seed_gives_the_same_edges_and_another_seed_others(sampling: Any) -> None:
    def draw(seed: int) -> str:
        strength = np.random.default_rng(0).random(200)
        return sample_edges(names(200), strength, sampling=sampling, seed=seed, temperature=0.2).fingerprint()

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_strong_preferences_train_more_often_under_random_sampling() -> None:
    """With random pairs, a preference of rank share r wins a share r of its comparisons: the strong third gets 5/9."""
    strength = np.random.default_rng(0).random(9000)
    random = sample_edges(names(9000), strength, sampling="random", k=2)
    stronger, _ = random.resolve(names(9000))
    top = strength >= np.quantile(strength, 2 / 3)
    assert top[stronger].mean() == pytest.approx(5 / 9, abs=0.02)


def test_large_data_with_many_ties_takes_seconds_not_hours() -> None:
    """200,000 preferences with ratings on 9 levels: the 22,000 weakest alone would need 4 billion comparisons."""
    strength = np.random.default_rng(0).integers(0, 9, 200_000) / 2
    start = time.perf_counter()
    for options in ({}, {"flip": 0.1}, {"temperature": 0.5}, {"sampling": "random"}):
        sample_edges(names(200_000), strength, k=2, **{"sampling": "iterative", **options})
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": "both"}, "sampling is 'both'"),
        ({"unmatched": "ignore"}, "unmatched is 'ignore'"),
        ({"k": 0}, "k is 0"),
        ({"k": 3, "sampling": "iterative"}, "only 2 partners"),
        ({"budget": 0}, "budget is 0"),
        ({"sampling": "random", "budget": 3}, "limits iterative"),
        ({"sampling": "random", "k": 2}, "have only 3"),
        ({"flip": -0.1}, "flip"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sample_edges(["a", "b", "c"], [1.0, 2.0, 3.0], **options)


def test_missing_strengths_are_named_with_the_remedy() -> None:
    with pytest.raises(DataError, match=r"2 of 3 .*'b', 'c'.*chosen_rating"):
        sample_edges(["a", "b", "c"], [1.0, float("nan"), float("inf")])
    with pytest.raises(DataError, match="one strength per id"):
        sample_edges(["a", "b"], [1.0])
    with pytest.raises(DataError, match="at least 2"):
        sample_edges(["a"], [1.0])
    with pytest.raises(DataError, match="'a'"):
        sample_edges(["a", "a"], [1.0, 2.0])


def test_parameters_say_what_was_done() -> None:
    edges = sample_edges(["a", "b"], [1.0, 2.0], seed=5, flip=0.0, temperature=0.5, budget=1, sampling="iterative")
    assert {name: edges.parameters[name] for name in ("sampling", "k", "seed", "temperature", "budget")} == {
        "sampling": "iterative",
        "k": 1,
        "seed": 5,
        "temperature": 0.5,
        "budget": 1,
    }
    other = sample_edges(["a", "b"], [1.0, 2.5])
    assert other.parameters["strength_fingerprint"] != edges.parameters["strength_fingerprint"]
    assert all(a <= b for a, b in pairwise(edges.table["stronger"].to_pylist()))
