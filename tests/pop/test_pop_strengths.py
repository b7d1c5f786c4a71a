"""What training and data make of a scale."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import halfnorm, kstest

from popmargin.data.load import load_preferences
from popmargin.errors import ConfigError, DataError
from popmargin.pop.edges import PopEdges
from popmargin.pop.fit import fit_strengths
from popmargin.pop.strengths import half_normal_strengths, soft_labels, with_strengths


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=40))
def test_the_map_keeps_order_and_ties_and_has_mean_1(strength: list[float]) -> None:
    z = half_normal_strengths(strength)
    assert z.mean() == pytest.approx(1.0) and (z > 0).all()
    np.testing.assert_array_equal(np.sign(np.subtract.outer(z, z)), np.sign(np.subtract.outer(strength, strength)))


def test_the_map_is_half_normal() -> None:
    z = half_normal_strengths(np.random.default_rng(0).gumbel(size=2000))
    scale = np.sqrt(np.pi / 2)  # of mean 1
    assert kstest(z, halfnorm(scale=scale).cdf).statistic < 0.01
    assert len(half_normal_strengths([])) == 0


def test_soft_labels_are_the_logistic_of_the_map() -> None:
    strength = np.array([0.3, -2.0, 8.0])
    np.testing.assert_allclose(soft_labels(strength, slope=0.5), expit(0.5 * half_normal_strengths(strength)))
    with pytest.raises(ConfigError, match="slope is 0"):
        soft_labels(strength, slope=0)


@pytest.fixture
def data() -> Any:
    rows = [
        {"id": f"q{i}", "prompt": f"Question {i}?", "chosen": "good", "rejected": "bad", "strength": 3.0}
        for i in range(4)
    ]
    return load_preferences(rows)


def test_strengths_become_columns_of_the_data(data: Any) -> None:
    """q3 stands in no comparison: it lies in the middle."""
    scale = fit_strengths(PopEdges.from_columns(["q0", "q1", "q0"], ["q1", "q2", "q2"]), data.ids)
    z = half_normal_strengths(scale.strength)
    assert z[0] > z[1] == z[3] > z[2]  # q1 won one and lost one
    np.testing.assert_allclose(with_strengths(data, scale).soft_label, expit(1.5 * z))
    rated = with_strengths(data, scale, use="margin")
    np.testing.assert_allclose(rated.rating_gap, z)
    np.testing.assert_allclose(rated.strength, z)
    np.testing.assert_allclose(with_strengths(data, scale, use="strength").strength, z)
    assert np.isnan(with_strengths(data, scale, use="strength").soft_label).all() and rated.ids == data.ids


def test_a_scale_of_other_preferences_is_refused(data: Any) -> None:
    scale = fit_strengths(PopEdges.from_columns(["q0"], ["q1"]))
    with pytest.raises(DataError, match="no strength for 2 of 4 preferences, such as 'q2'"):
        with_strengths(data, scale)
