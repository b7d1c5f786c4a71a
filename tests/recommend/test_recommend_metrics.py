"""Ranks, metrics and baselines: by hand, and the published table on real data."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from popmargin.data.ragged import Ragged
from popmargin.errors import ConfigError, DataError, RunError
from popmargin.recommend.baselines.base import BASELINES
from popmargin.recommend.item_sequences import Sequences
from popmargin.recommend.ranking_metrics import gini, measure, ndcg, popularity, popularity_percentile, recall
from popmargin.recommend.ranks import Ranking, best_items, mean_rank, rank_cases, top_items
from popmargin.recommend.read_sequences import load_sequences
from popmargin.recommend.splitting import Cases, Parts, split_by_user

NDCG = (1, 0.630930, 0.5, 0.430677, 0.386853, 0.356207, 0.333333, 0.315465, 0.301030, 0.289065)


class Fixed:
    """Given scores for any history."""

    def __init__(self, scores: list[list[float]]) -> None:
        self.given = np.array(scores)

    def scores(self, histories: Ragged, users: tuple[str, ...]) -> np.ndarray:
        return self.given[[int(user) for user in users]]


def test_ndcg_by_rank() -> None:
    assert ndcg(np.arange(10.0), 10).tolist() == pytest.approx(NDCG, abs=5e-7)
    assert ndcg(np.array([9.5, 10.0]), 10).tolist() == pytest.approx([1 / math.log2(11.5), 0])
    assert recall(np.array([4.5, 5.0]), 5).tolist() == [1, 0]


@given(arrays.arrays(np.float64, (3, 7), elements=st.integers(0, 3).map(float)), st.integers(1, 7))
def test_ties_stand_at_their_mean_position(scores: np.ndarray, target: int) -> None:
    """The mean over all orders of the equal items."""
    ranks = mean_rank(scores, np.full(3, target))
    for row, rank in zip(scores, ranks, strict=True):
        places = [
            place for place, item in enumerate(sorted(range(7), key=lambda i: -row[i])) if row[item] == row[target - 1]
        ]
        assert rank == np.mean(places)
    best = best_items(scores, 4)
    expected = [sorted(range(1, 8), key=lambda i, row=row: (-row[i - 1], i))[:4] for row in scores]
    assert best.tolist() == expected


def test_the_history_is_left_out_or_not() -> None:
    cases = Cases(("0", "1"), Ragged.of([[1], [2, 3]]), np.array([2, 4]))
    scores = Fixed([[9, 1, 5, 0], [4, 3, 2, 1]])
    assert rank_cases(scores, cases, items=4).ranks.tolist() == [2, 3]
    left_out = rank_cases(scores, cases, items=4, exclude_history=True)
    assert left_out.ranks.tolist() == [1, 1]
    assert left_out.best.tolist() == [[3, 2, 4, 0], [1, 4, 0, 0]]
    again = Cases(("1",), Ragged.of([[2, 3]]), np.array([2]))  # a target that cannot be recommended
    assert rank_cases(scores, again, items=4, exclude_history=True).ranks.tolist() == [2.5]
    assert top_items(scores, cases.histories, items=4, count=2).tolist() == [[3, 2], [1, 4]]


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_do_not_matter(chunk: int) -> None:
    random = np.random.default_rng(0)
    cases = Cases(tuple(map(str, range(5))), Ragged.of([[1 + n % 3] for n in range(5)]), random.integers(1, 9, size=5))
    scores = Fixed(random.integers(0, 4, size=(5, 8)).tolist())
    found, whole = (rank_cases(scores, cases, items=8, exclude_history=True, chunk=size) for size in (chunk, 100))
    np.testing.assert_array_equal(found.ranks, whole.ranks)
    np.testing.assert_array_equal(found.best, whole.best)
    with pytest.raises(ConfigError, match="chunk is 0"):
        rank_cases(scores, cases, items=8, chunk=0)


def test_scores_that_are_not_finite_are_refused() -> None:
    cases = Cases(("0",), Ragged.of([[1]]), np.array([2]))
    with pytest.raises(RunError, match="A score for user '0' is not finite"):
        rank_cases(Fixed([[0.0, math.nan]]), cases, items=2)
    with pytest.raises(RunError, match=r"shape \(1, 2\), not \(1, 3\)"):
        rank_cases(Fixed([[0.0, 1.0]]), cases, items=3)


def test_coverage_and_popularity_bias() -> None:
    cases = Cases(("a", "b"), Ragged.of([[1], [1]]), np.array([2, 3]))
    counts = np.array([4.0, 1.0, 1.0, 0.0])  # percentiles .875, .5, .5, .125
    found = measure([Ranking(np.array([0.0, 3.0]), np.array([[2, 1], [1, 2]]))], cases, counts, cutoffs=(1, 2))
    assert found.coverage["coverage@1"].tolist() == [0.5]
    assert found.popularity["popularity@1"].tolist() == [(0.5 + 0.875) / 2]
    assert found.popularity["gini@1"].tolist() == [0.5]  # two items once, two never
    assert found.to_dict()["recall@1"]["estimate"] == 0.5
    with pytest.raises(DataError, match="2 places were kept for a cutoff of 3"):
        measure([Ranking(np.array([0.0, 3.0]), np.array([[2, 1], [1, 2]]))], cases, counts, cutoffs=(3,))
    assert math.isnan(gini(np.zeros(3)))
    assert popularity_percentile(counts).mean() == 0.5


def test_intervals_over_users_and_draws() -> None:
    """One user in two cases is one cluster; a difference is paired by case."""
    users = ("a", "a", "b", "c", "d", "e")
    cases = Cases(users, Ragged.of([[1]] * 6), np.array([1] * 6))
    best = np.ones((6, 1), dtype=np.int64)
    good = [Ranking(np.array([0.0, 0, 0, 9, 9, 0]), best), Ranking(np.array([0.0, 0, 9, 9, 9, 0]), best)]
    bad = [Ranking(np.array([9.0, 9, 0, 9, 9, 0]), best)]
    better, worse = (measure(each, cases, np.ones(1), cutoffs=(5,)) for each in (good, bad))
    found = better.interval("recall@5")
    assert found.estimate == pytest.approx((4 / 6 + 3 / 6) / 2) and 0 <= found.low < found.estimate < found.high <= 1
    assert better.minus(worse, "recall@5").estimate == pytest.approx(found.estimate - 2 / 6)
    other = measure(bad, Cases(users[::-1], cases.histories, cases.targets), np.ones(1), cutoffs=(5,))
    with pytest.raises(DataError, match="measure both on the same cases"):
        better.minus(other, "recall@5")


@pytest.fixture
def parts() -> Parts:
    sequences = [[1, 2, 3], [1, 2], [2, 3], [3, 4, 1], [1, 3, 2], [2, 1, 4]]
    return split_by_user(Sequences.of(sequences, splits=["train"] * 4 + ["valid", "test"]))


def test_baselines_by_hand(parts: Parts) -> None:
    """Training users of the items: 3, 3, 3, 1. 2 follows 1 twice, 3 follows 2 twice, 4 follows 3, 1 follows 4."""

    def scores(name: str, **options: object) -> np.ndarray:
        return BASELINES.get(name).fit(parts, options).scores(parts.test.histories, parts.test.users)[0]

    assert popularity(parts.train, 4).tolist() == [3, 3, 3, 1]
    assert scores("popularity").tolist() == [3, 3, 3, 1]
    np.testing.assert_allclose(scores("markov"), [3e-6, 2 + 3e-6, 3e-6, 1e-6], atol=1e-12)  # the last item is 1
    # The history is 2, 1. Cosines: 12 2/3, 13 2/3, 14 1/√3, 23 2/3, 24 0.
    np.testing.assert_allclose(scores("item_knn"), [5 / 3, 5 / 3, 4 / 3, 3**-0.5])
    np.testing.assert_allclose(scores("item_knn", decay=0.5), [4 / 3, 7 / 6, 1, 3**-0.5])
    # With the validation row 1, 3, 2 and the test history 2, 1: users 5, 5, 4, 1; 12 4/5, 13 and 23 3/√20, 14 1/√5.
    np.testing.assert_allclose(scores("item_knn", transductive=True), [9 / 5, 9 / 5, 6 / 20**0.5, 5**-0.5])


def test_a_test_target_changes_no_baseline(parts: Parts) -> None:
    other = Parts(parts.catalogue, parts.train, parts.known, parts.valid,
                  Cases(parts.test.users, parts.test.histories, np.array([1])))  # fmt: skip
    small = {"dimension": 2, "epochs": 2}
    tried = {"item_knn": {"transductive": True}, "nearest_vectors": {"dimension": 2}, "sasrec": small}
    for name in BASELINES.names():
        if name == "recbole":  # needs an environment of its own
            continue
        found = [
            BASELINES.get(name).fit(each, tried.get(name, {})).scores(parts.test.histories, ("5",))
            for each in (parts, other)
        ]
        np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("item_knn", {"decay": 0.0}, "decay must be above 0"),
        ("item_knn", {"deacy": 0.5}, "baseline 'item_knn' has no option 'deacy'. Did you mean 'decay'"),
        ("markov", {"popularity_weight": -1.0}, "popularity_weight must be 0 or more"),
        ("sasrec", {"heads": 3}, "3 heads do not divide the dimension 64"),
        ("nearest_vectors", {"dimension": 0}, "dimension 1 or more"),
    ],
)
def test_options_are_checked(parts: Parts, name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BASELINES.get(name).fit(parts, options)


TABLE = {
    "popularity": ({}, {"sports": ".0062/.0042/.0101/.0054", "beauty": ".0058/.0028/.0130/.0051"}),
    "markov": ({}, {"sports": ".0300/.0228/.0376/.0253", "beauty": ".0590/.0437/.0773/.0496"}),
    "item_knn": ({}, {"sports": ".0275/.0199/.0359/.0226", "beauty": ".0523/.0340/.0724/.0404"}),
    "item_knn, decayed": ({"decay": 0.7}, {"sports": ".0253/.0189/.0385/.0231", "beauty": ".0612/.0416/.0769/.0466"}),
    "item_knn, all histories": (
        {"decay": 0.7, "transductive": True},
        {"sports": ".0309/.0220/.0410/.0253", "beauty": ".0644/.0452/.0782/.0497"},
    ),
}
"""Recall@5, NDCG@5, Recall@10, NDCG@10 on the published splits (notes on PreferDiff)."""


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["beauty", "sports"])
def test_the_published_table(shared_data: Path, domain: str) -> None:
    data = load_sequences(shared_data / f"amazon-{domain}.jsonl.gz")
    assert data.catalogue.names == tuple(map(str, range(1, len(data.catalogue) + 1)))  # the published numbers
    parts = split_by_user(data)
    counts = popularity(parts.train, len(parts.catalogue))
    found: dict[str, str] = {}
    for row, (options, _) in TABLE.items():
        entry = BASELINES.get(row.partition(",")[0])
        ranking = rank_cases(
            entry.fit(parts, options), parts.test, items=len(counts), exclude_history=entry.exclude_history
        )
        metrics = measure([ranking], parts.test, counts)
        values = [metrics.interval(f"{name}@{cutoff}").estimate for cutoff in (5, 10) for name in ("recall", "ndcg")]
        found[row] = "/".join(f"{value:.4f}"[1:] for value in values)
    assert found == {row: of_domain[domain] for row, (_, of_domain) in TABLE.items()}, json.dumps(found, indent=1)
