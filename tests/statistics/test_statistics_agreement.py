"""Agreement against published worked examples and library values."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popmargin.errors import ConfigError, DataError
from popmargin.statistics.agreement import (
    alpha_interval,
    cohen_kappa,
    kappa_interval,
    krippendorff_alpha,
    leave_one_out,
    pairwise_agreement,
)
from popmargin.statistics.intervals import binomial_interval
from popmargin.statistics.jackknife import share_of_sums

NAN = math.nan
# Krippendorff 2011, "Computing Krippendorff's alpha-reliability", part D: four observers, twelve units.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
).T


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_the_published_example(level, alpha: float) -> None:
    assert round(krippendorff_alpha(PUBLISHED, level), 3) == alpha
    interval = alpha_interval(PUBLISHED, level)
    assert interval.low < interval.estimate < interval.high and round(interval.estimate, 3) == alpha


def test_alpha_of_two_observers_without_gaps_is_that_of_the_published_example() -> None:
    """Part A of the same text: binary data of two observers, ten units: 0.095."""
    first = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    second = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert round(krippendorff_alpha(np.stack([first, second], axis=1)), 3) == 0.095


def test_alpha_by_hand_definition_and_edges() -> None:
    assert krippendorff_alpha([[1, 1], [2, 2]]) == 1.0
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]]))
    assert math.isnan(krippendorff_alpha([[1, NAN], [NAN, 2]]))
    assert math.isnan(alpha_interval([[1, NAN]]).estimate)
    with pytest.raises(DataError, match="matrix of items by annotators"):
        krippendorff_alpha([1, 2])
    with pytest.raises(ConfigError, match="'nominal', 'ordinal' or 'interval'"):
        krippendorff_alpha([[1, 2]], "ratio")  # pyright: ignore[reportArgumentType]


@given(
    st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, NAN]), min_size=3, max_size=3), min_size=2, max_size=12),
    st.permutations([0, 1, 2]),
)
def test_alpha_does_not_depend_on_the_order_of_annotators_or_on_unpaired_values(rows, order) -> None:
    values = np.array(rows)
    alpha = krippendorff_alpha(values, "ordinal")
    np.testing.assert_allclose(krippendorff_alpha(values[:, order], "ordinal"), alpha, atol=1e-12)
    lonely = np.vstack([values, [9.0, NAN, NAN]])
    np.testing.assert_allclose(krippendorff_alpha(lonely, "ordinal"), alpha, atol=1e-12)


def columns(table: list[list[int]]) -> tuple[list[int], list[int]]:
    """A table of counts as two columns of labels."""
    cells = [(i, j) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]
    return [i for i, _ in cells], [j for _, j in cells]


def test_kappa_has_textbook_values() -> None:
    """Grant proposals (agreement .7, chance .5), and Fleiss, Levin and Paik 2003, table 18.1: 0.68."""
    assert cohen_kappa(*columns([[20, 5], [10, 15]])) == pytest.approx(0.4)
    assert round(cohen_kappa(*columns([[75, 1, 4], [5, 4, 1], [0, 0, 10]])), 2) == 0.68
    assert cohen_kappa([1, 2, 1], [1, 2, 1]) == 1.0
    assert math.isnan(cohen_kappa([1, 1], [1, 1])) and math.isnan(cohen_kappa([NAN], [1]))
    assert cohen_kappa([0, 0, 1, 1, NAN, 0], [0, 0, 1, 0, 1, NAN]) == 0.5
    with pytest.raises(DataError, match="3 and 2 values"):
        cohen_kappa([1, 2, 3], [1, 2])
    with pytest.raises(ConfigError, match="'linear', 'quadratic' or None"):
        cohen_kappa([1, 2], [1, 2], "cubic")  # pyright: ignore[reportArgumentType]


def test_weighted_kappa_is_the_textbook_one() -> None:
    """By hand for [[2, 1, 0], [0, 2, 1], [1, 0, 3]], n = 10: linear 1 - 10·4/90, quadratic 1 - 10·6/138.

    Rows 3, 3, 4, columns 3, 3, 4. Observed distances: 1 + 1 + 2 = 4, squares 1 + 1 + 4 = 6. By chance: neighbours
    3·3 + 3·3 + 3·4 + 4·3 = 42, ends 3·4 + 4·3 = 24, so 42 + 2·24 = 90 and 42 + 4·24 = 138.
    """
    labels = columns([[2, 1, 0], [0, 2, 1], [1, 0, 3]])
    assert cohen_kappa(*labels, "linear") == pytest.approx(1 - 10 * 4 / 90)
    assert cohen_kappa(*labels, "quadratic") == pytest.approx(1 - 10 * 6 / 138)
    interval = kappa_interval(*labels, "linear")
    assert interval.low < interval.estimate < interval.high


def test_people_and_judge_meet_the_same_panels() -> None:
    """Item 1: labels a, a, b. Leaving out each: panels {a, b}, {a, b}, {a, a}: people ½, ½, 0; a judge a: ½, ½, 1."""
    people = [[0, 0, 1], [2, 2, NAN], [1, NAN, NAN]]
    assert leave_one_out(people).estimate == pytest.approx((1 + 2) / 5)
    assert leave_one_out(people, [0, 2, 1]).estimate == pytest.approx((2 + 2) / 5)
    assert leave_one_out(people, [0, NAN, 1]).estimate == pytest.approx(2 / 3)
    assert leave_one_out(people, [7, 7, 7]).estimate == 0.0
    assert math.isnan(leave_one_out([[1, NAN]]).estimate)
    with pytest.raises(DataError, match="2 verdicts for 3 items"):
        leave_one_out(people, [0, 0])
    with pytest.raises(DataError, match="matrix"):
        leave_one_out([0, 1])


def test_a_judge_that_copies_one_of_many_people_scores_like_people() -> None:
    rng = np.random.default_rng(1)
    people = (rng.random((4000, 4)) < 0.7).astype(float)
    copy = np.where(rng.random(4000) < 0.7, 1.0, 0.0)
    assert leave_one_out(people).estimate == pytest.approx(leave_one_out(people, copy).estimate, abs=0.02)


def test_shares_with_intervals() -> None:
    assert pairwise_agreement([[1, 1, 2], [3, 3, NAN], [NAN, NAN, 1]]).estimate == 2 / 4
    certain = share_of_sums(np.array([[1.0, 1.0]] * 20))
    assert certain.estimate == 1.0 and certain.low == pytest.approx(0.832, abs=1e-3)
    assert binomial_interval(0, 10).low == 0.0 and math.isnan(binomial_interval(0, 0).estimate)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interval", "truth"),
    [
        (pairwise_agreement, 0.7 * 0.7 + 0.3 * 0.3),
        (alpha_interval, 0.0),
        (leave_one_out, 0.58),
    ],
    ids=["pairs", "alpha", "leave one out"],
)
def test_intervals_cover_the_truth_in_95_of_100_cases(interval: Callable, truth: float) -> None:
    """Two independent people who say 1 with probability .7: they agree in .58 of the items, and α is 0."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(1000):
        found = interval((rng.random((150, 2)) < 0.7).astype(float))
        covered += found.low <= truth <= found.high
    assert 0.93 <= covered / 1000 <= 0.97


def test_items_without_variance_give_no_interval() -> None:
    """Five items on which one annotator always says the same: κ is 0 whichever are drawn, which says nothing."""
    for found in (kappa_interval([1, 0, 1, 1, 0], [1, 1, 1, 1, 1]), kappa_interval([1, 0], [1, 0])):
        assert found.estimate in (0.0, 1.0) and math.isnan(found.low) and math.isnan(found.high)
    some = kappa_interval([1, 0, 1, 1, 0, 1], [1, 0, 1, 0, 1, 1])
    assert some.low < some.estimate < some.high
