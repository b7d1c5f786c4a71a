"""Soft labels from ratings whose scale comes from the training data: SmPO's smoothed label."""

from typing import Any

import numpy as np
import pytest

from popmargin import load_preferences
from popmargin.config import DataConfig
from popmargin.errors import ConfigError, DataError
from popmargin.training.sides import rating_scale, read_split, with_soft_labels

LOW, HIGH = 0.115435265, 0.2820157111


def rated(*pairs: tuple[float, float]) -> Any:
    return load_preferences([
        {"prompt": f"p{i}", "chosen": "a", "rejected": "b", "chosen_rating": c, "rejected_rating": r}
        for i, (c, r) in enumerate(pairs)
    ])  # fmt: skip


def labels(preferences: Any, how: Any) -> np.ndarray:
    low, high, temperature = rating_scale(preferences, how)
    return with_soft_labels(preferences, temperature, low=low, high=high).soft_label


def test_the_range_of_the_ratings_is_the_temperature() -> None:
    """Golden values of the method: p of 0.22 against 0.20 among PickScores, and of the whole range."""
    found = labels(rated((0.22, 0.20), (HIGH, LOW), (0.2, 0.2)), "range")
    np.testing.assert_allclose(found, [0.5299795237, 0.7310585786, 0.5], atol=1e-9)


def test_an_outlier_sets_the_range_but_not_the_quantiles() -> None:
    pairs = [(0.4 + 0.2 * i / 200, 0.4) for i in range(200)]
    with_outlier = [*pairs, (50.0, 0.4)]
    assert labels(rated(*with_outlier), "range")[100] < 0.501
    quantiles = labels(rated(*with_outlier), "quantiles")
    assert quantiles[100] > 0.6 and quantiles[-1] == pytest.approx(labels(rated(*pairs), "quantiles").max(), abs=1e-3)
    assert quantiles.max() == pytest.approx(1 / (1 + np.exp(-1)))


@pytest.mark.parametrize(
    ("pairs", "how", "message"),
    [
        ([(0.5, 0.5)] * 3, "range", "range divides by the range of the ratings, but all 6 ratings are 0.5: they do"),
        ([(0.5, 0.5)] * 300 + [(0.6, 0.5)], "quantiles", "the 1% and 99% quantiles of the ratings are both 0.5"),
    ],
)
def test_constant_scores_are_an_error_in_words(pairs: Any, how: Any, message: str) -> None:
    with pytest.raises(DataError) as error:
        labels(rated(*pairs), how)
    assert message in str(error.value)


def test_preferences_without_ratings_are_named() -> None:
    bare = load_preferences([{"id": "x", "prompt": "p", "chosen": "a", "rejected": "b"}])
    with pytest.raises(DataError, match=r"1 of 1 preferences lack \(first: 'x'\)"):
        labels(bare, "range")


def test_a_run_takes_the_scale_of_its_training_side(data_path: str) -> None:
    config = DataConfig(train=data_path, test_size=10, soft_label_temperature="range")
    split = read_split(config)
    ratings = np.concatenate([split.train.column(name) for name in ("chosen_rating", "rejected_rating")])
    gap = split.train.rating_gap / (ratings.max() - ratings.min())
    np.testing.assert_allclose(split.train.soft_label, 1 / (1 + np.exp(-gap)))
    assert "soft labels derived from ratings, data.soft_label_temperature range, " in split.steps[-1].notes[-1]
    with pytest.raises(ConfigError, match="soft_label_temperature"):
        DataConfig(soft_label_temperature="median")  # pyright: ignore[reportArgumentType]
