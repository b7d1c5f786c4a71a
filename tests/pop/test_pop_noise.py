"""Label noise against its formula."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from popmargin.errors import ConfigError
from popmargin.pop.noise import bradley_terry_labels, flip_labels, label_probability

GAPS = st.floats(-50, 50)


@given(gap=GAPS, flip=st.floats(0, 1), temperature=st.floats(0, 10))
def test_the_two_orders_of_a_pair_have_probabilities_that_add_to_one(
    gap: float, flip: float, temperature: float
) -> None:
    both = label_probability(np.array([gap, -gap]), flip=flip, temperature=temperature)
    assert both.sum() == pytest.approx(1.0)


def test_bradley_terry_probability_by_hand() -> None:
    """σ(1 / 0.5) = 1 / (1 + e^-2) = 0.880797; with flips of 0.1: 0.9·0.880797 + 0.1·0.119203 = 0.804638."""
    gap = np.array([1.0])
    assert label_probability(gap, temperature=0.5)[0] == pytest.approx(0.880797, abs=1e-6)
    assert label_probability(gap, temperature=0.5, flip=0.1)[0] == pytest.approx(0.804638, abs=1e-6)


def test_a_tiny_temperature_is_exact_and_does_not_overflow() -> None:
    assert label_probability(np.array([1e-3, -1e300]), temperature=1e-310).tolist() == [1.0, 0.0]


def test_flips_occur_as_often_as_asked() -> None:
    labels = np.ones(20_000, dtype=bool)
    flipped = int((~flip_labels(labels, 0.2, np.random.default_rng(0))).sum())
    assert binomtest(flipped, 20_000, 0.2).pvalue > 0.001


def test_small_gaps_are_confused_more_often() -> None:
    rng = np.random.default_rng(0)
    wrong = [(~bradley_terry_labels(np.full(5000, gap), 1.0, rng)).mean() for gap in (0.1, 1.0, 4.0)]
    assert wrong[0] > wrong[1] > wrong[2] > 0


@pytest.mark.parametrize(("flip", "temperature", "word"), [(1.5, 0.0, "flip"), (0.0, -1.0, "temperature")])
def test_settings_outside_their_range_are_refused(flip: float, temperature: float, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        label_probability(np.array([1.0]), flip=flip, temperature=temperature)
