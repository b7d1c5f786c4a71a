"""The area under the ROC curve and its interval."""

import numpy as np
import pytest

from popmargin.statistics.intervals import Clusters
from popmargin.statistics.roc import roc_area


def brute(score: np.ndarray, kind: np.ndarray) -> float:
    gaps = score[kind][:, None] - score[~kind][None, :]
    return float((np.sign(gaps) / 2 + 0.5).mean())


def test_it_is_the_share_of_pairs_with_ties_as_halves() -> None:
    rng = np.random.default_rng(0)
    for count in (2, 7, 40):
        score, kind = rng.integers(5, size=count).astype(float), rng.random(count) < 0.4
        kind[:2] = (True, False)
        assert roc_area(score, kind, Clusters(range(count))).estimate == pytest.approx(brute(score, kind))


def test_its_interval_covers_also_with_clusters() -> None:
    """600 tables of 60 clusters of two equal rows each: 95% cover the true area, where rows alone would cover fewer."""
    rng = np.random.default_rng(1)
    hits = {True: 0, False: 0}
    truth = 0.7602499389065233  # Φ(1/√2), the area of scores N(1, 1) and N(0, 1)
    for _ in range(600):
        kind = np.repeat(rng.random(60) < 0.5, 2)
        score = np.repeat(rng.standard_normal(60), 2) + kind
        for clustered in hits:
            found = roc_area(score, kind, Clusters(np.arange(120) // 2 if clustered else np.arange(120)))
            hits[clustered] += found.low <= truth <= found.high
    assert 0.92 <= hits[True] / 600 <= 0.98
    assert hits[False] / 600 < 0.89


def test_without_both_kinds_it_is_undefined() -> None:
    assert np.isnan(roc_area(np.arange(3.0), np.ones(3, dtype=bool), Clusters(range(3))).estimate)
