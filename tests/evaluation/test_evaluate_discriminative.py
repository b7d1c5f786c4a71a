"""Discriminative metrics against numbers by hand, scipy, and symmetries."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import kendalltau, norm, pearsonr, spearmanr
from scipy.stats import t as student

from popmargin.errors import DataError
from popmargin.evaluation.discriminative import discriminative_differences, discriminative_metrics, reliability_curve


def measure(margin: Any, strength: Any = None, clusters: Any = None, **options: Any) -> dict[str, float]:
    metrics = discriminative_metrics(
        reward_margin=margin,
        strength=np.arange(np.shape(margin)[-1]) if strength is None else strength,
        clusters=[str(i) for i in range(np.shape(margin)[-1])] if clusters is None else clusters,
        **options,
    )
    return {name: interval.estimate for name, interval in metrics.intervals.items()}


def test_accuracies_by_hand() -> None:
    """Right, right, half, wrong, right, wrong: 3.5 of 6; terciles (right, wrong), (half, right), (right, wrong)."""
    found = measure(
        [1.0, 2.0, 0.0, -1.0, 3.0, -2.0],
        [0.1, 0.5, 0.3, 0.2, 0.4, 0.6],
        longer_chosen=[1, 1, 0.5, 0, 0, 0],
        reference_margin=[0.2, -1.0, 0.0, -3.0, -0.1, -2.0],
    )
    assert found["accuracy"] == pytest.approx(3.5 / 6)
    assert found["accuracy_weak"] == 0.5
    assert found["accuracy_medium"] == 0.75
    assert found["accuracy_strong"] == 0.5
    assert found["accuracy_longer"] == pytest.approx(2.5 / 6)
    assert found["accuracy_reference"] == pytest.approx(1.5 / 6)
    assert found["reward_margin"] == pytest.approx(0.5)


def test_correlations_are_scipys_and_leave_unknown_strengths_out() -> None:
    rng = np.random.default_rng(0)
    strength = rng.integers(0, 5, 80).astype(float)
    margin = 1e6 + strength + rng.normal(size=80)
    found = measure(np.append(margin, 0.0), np.append(strength, np.nan))
    assert found["pearson"] == pytest.approx(pearsonr(margin, strength).statistic)
    assert found["spearman"] == pytest.approx(spearmanr(margin, strength).statistic)
    assert found["kendall"] == pytest.approx(kendalltau(margin, strength).statistic)


def test_pop_accuracy_by_hand_with_ties_half_and_missing_sides_left_out() -> None:
    """Edges 0>1 (2 > 1, right), 1>2 (1 > 1, half), 2>0 (1 < 2, wrong), 0>none (left out): 1.5 of 3."""
    edges = (np.array([0, 1, 2, 0]), np.array([1, 2, 0, -1]))
    assert measure([2.0, 1.0, 1.0], edges=edges)["pop_accuracy"] == pytest.approx(0.5)
    with pytest.raises(DataError, match="outside 0 … 2"):
        measure([2.0, 1.0, 1.0], edges=(np.array([3]), np.array([0])))


def test_calibration_error_by_hand() -> None:
    """Two bins of confidence: 0.6 (one of two right) and 0.9 (two of two right): raw ECE = ½·0.1 + ½·0.1 = 0.1.

    The parts are 0.05 each; leaving out rows, the first has standard error s = √(4/3·(2·0.25 + 4·0.025²…)) / 4.
    """
    margin = logit(np.array([0.6, 0.4, 0.9, 0.9]))
    parts = np.array([[0.6 - 1, 0], [0.6, 0], [0, -0.1], [0, -0.1]])
    errors = np.sqrt(4 / 3 * ((parts - parts.mean(axis=0)) ** 2).sum(axis=0)) / 4
    z = np.abs(parts.mean(axis=0)) / errors
    debiased = (errors * (z - 2 * (z * norm.cdf(-z) + norm.pdf(z)))).sum()
    found = discriminative_metrics(reward_margin=margin, strength=np.zeros(4), clusters=list("abcd"), bins=2)
    signed = np.array([-0.4 + 0, 0.6, -0.1, -0.1]) * np.sign([1, 1, -1, -1])
    half = student.ppf(0.975, 3) * signed.std(ddof=1) / 2
    assert signed.mean() == pytest.approx(0.1)
    assert found.intervals["ece"].estimate == pytest.approx(max(0.0, debiased))
    assert found.intervals["ece"].low == 0.0
    assert found.intervals["ece"].high == pytest.approx(0.1 + half)
    curve = reliability_curve(margin, bins=2)
    assert [row["observed"] for row in curve] == [0.5, 1.0]
    assert [row["predicted"] for row in curve] == pytest.approx([0.6, 0.9])
    assert [row["count"] for row in curve] == [2, 2]


@pytest.mark.parametrize("rows", [3, 5, 12])
@pytest.mark.parametrize("size", [0.001, 1.0, 3.0])
def test_the_interval_of_the_calibration_error_holds_its_estimate(rows: int, size: float) -> None:
    """Bins of a single row each have parts of about their own standard error."""
    margin = size * np.linspace(0.5, 1, rows)
    found = discriminative_metrics(reward_margin=margin, strength=np.zeros(rows), clusters=list(map(str, range(rows))))
    ece = found.intervals["ece"]
    assert ece.low <= ece.estimate <= ece.high


def test_the_confidence_form_is_the_symmetrised_form() -> None:
    """Score both orders of each pair in bins that mirror at ½: the same error as the folded form."""
    margin = np.random.default_rng(0).normal(0.5, 2, 500)
    both, chosen_first = np.concatenate([margin, -margin]), np.repeat([1.0, 0.0], 500)
    p = expit(both)
    edges_of_bins = np.quantile(expit(np.abs(margin)), np.linspace(0, 1, 6))
    edges_of_bins[[0, -1]] = 0.5, 1.0
    folded = np.concatenate([1 - edges_of_bins[::-1], edges_of_bins[1:]])
    bucket = np.digitize(p, folded[1:-1])
    symmetrised = sum(abs((p - chosen_first)[bucket == b].sum()) for b in range(10)) / 1000
    curve = reliability_curve(margin, bins=5)
    raw = sum(row["count"] * abs(row["predicted"] - row["observed"]) for row in curve) / 500
    assert raw == pytest.approx(symmetrised, abs=1e-3)
    assert measure(margin, bins=5)["ece"] == pytest.approx(symmetrised, abs=0.03)  # far from calibrated: little noise


def test_a_calibrated_model_has_a_small_error_and_an_overconfident_one_a_large_error() -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(0, 2, 2000)
    margin = np.where(rng.random(2000) < expit(margin), np.abs(margin), -np.abs(margin)) * np.where(margin < 0, -1, 1)
    honest = discriminative_metrics(reward_margin=margin, strength=margin, clusters=list(map(str, range(2000))))
    assert honest.intervals["ece"].estimate < 0.04
    assert honest.intervals["ece"].low <= honest.intervals["ece"].estimate <= honest.intervals["ece"].high
    assert measure(10 * margin)["ece"] > 0.15


MARGINS = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=25)


@settings(max_examples=25)
@given(margin=MARGINS, seed=st.integers(0, 999))
def test_metrics_do_not_depend_on_the_order_of_rows(margin: list[float], seed: int) -> None:
    count = len(margin)
    rng = np.random.default_rng(seed)
    strength = rng.integers(0, 4, count).astype(float)
    order = rng.permutation(count)
    place = np.argsort(order)
    edges = (rng.integers(0, count, 5), rng.integers(0, count, 5))
    moved = (place[edges[0]], place[edges[1]])
    first = measure(margin, strength, edges=edges)
    second = measure(np.array(margin)[order], strength[order], edges=moved)
    assert second == pytest.approx(first, nan_ok=True)


@settings(max_examples=25)
@given(margin=MARGINS)
def test_swapping_chosen_and_rejected_maps_accuracy_to_its_complement(margin: list[float]) -> None:
    swapped = measure(-np.array(margin))
    straight = measure(margin)
    for name in ("accuracy", "accuracy_weak", "accuracy_medium", "accuracy_strong"):
        assert swapped[name] == pytest.approx(1 - straight[name], nan_ok=True)
    assert swapped["pearson"] == pytest.approx(-straight["pearson"], nan_ok=True)


@settings(max_examples=15)
@given(margin=MARGINS, scale=st.floats(0.1, 100))
def test_ordering_metrics_do_not_depend_on_the_scale_of_margins(margin: list[float], scale: float) -> None:
    names = ("accuracy", "pearson", "spearman", "kendall")
    first, second = measure(margin), measure(scale * np.array(margin))
    assert [second[n] for n in names] == pytest.approx([first[n] for n in names], nan_ok=True)


def test_margins_of_zero_everywhere_are_half_right_and_have_no_correlation() -> None:
    found = measure(np.zeros(6))
    assert found["accuracy"] == 0.5
    assert found["ece"] == 0.0
    undefined = ("pearson", "spearman", "kendall", "pop_accuracy", "accuracy_longer", "accuracy_reference")
    assert all(math.isnan(found[name]) for name in undefined)


def test_several_seeds_give_the_mean_over_seeds() -> None:
    rng = np.random.default_rng(0)
    margin, strength = rng.normal(0.5, 1, (3, 40)), rng.random(40)
    edges = (np.arange(39), np.arange(1, 40))
    together = measure(margin, strength, edges=edges)
    alone = [measure(row, strength, edges=edges) for row in margin]
    for name in together:
        assert together[name] == pytest.approx(np.mean([one[name] for one in alone]), nan_ok=True)


def test_differences_are_paired() -> None:
    """An arm that is the other one plus 0.1 differs by exactly 0.1 in reward margin, in any resample."""
    rng = np.random.default_rng(0)
    base, strength = rng.normal(0, 1, (1, 60)), rng.random(60)
    clusters = [str(i // 2) for i in range(60)]
    edges = (np.arange(59), np.arange(1, 60))
    found = discriminative_differences(base + 0.1, base, strength=strength, clusters=clusters, edges=edges)
    for name, value in (("reward_margin", 0.1), ("spearman", 0.0), ("ece", found["ece"].estimate)):
        assert [found[name].estimate, found[name].low, found[name].high][: 3 if name != "ece" else 1] == pytest.approx(
            [value] * (3 if name != "ece" else 1), abs=1e-12
        )
    assert found["pop_accuracy"].estimate == 0.0
    one = measure(base + 0.1, strength, clusters)["accuracy"] - measure(base, strength, clusters)["accuracy"]
    assert found["accuracy"].estimate == pytest.approx(one)
    assert "accuracy_longer" not in found and "accuracy_reference" not in found
    with pytest.raises(DataError, match="same rows"):
        discriminative_differences(base, base[:, :9], strength=strength, clusters=clusters)


def test_all_right_is_not_certain() -> None:
    metrics = discriminative_metrics(reward_margin=np.ones(6), strength=np.arange(6), clusters=list("aabbcc"))
    assert metrics.intervals["accuracy"].low == pytest.approx(0.025 ** (1 / 3))
    assert metrics.counts == {"rows": 6, "clusters": 3, "weak": 2, "medium": 2, "strong": 2, "edges": 0}


def test_the_result_is_plain_json() -> None:
    metrics = discriminative_metrics(reward_margin=np.ones(3), strength=np.ones(3), clusters=list("abc"))
    plain = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert plain["intervals"]["accuracy"]["estimate"] == 1.0
    assert plain["reliability"][0]["count"] == 3


@pytest.mark.parametrize(
    ("margin", "strength", "clusters", "message"),
    [
        ([], [], [], "split is empty"),
        ([1.0, math.nan], [1.0, 1.0], ["a", "b"], "row 1"),
        ([1.0], [1.0, 2.0], ["a"], "one of each"),
        ([1.0], [1.0], ["a", "b"], "one of each"),
    ],
)
def test_rows_that_do_not_fit_are_refused(margin: Any, strength: Any, clusters: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        measure(np.array(margin, dtype=float), strength, clusters)
