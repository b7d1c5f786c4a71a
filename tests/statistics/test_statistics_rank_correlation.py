"""Rank correlations of resamples are scipy's on the resampled rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from popmargin.statistics import rank_correlation
from popmargin.statistics.intervals import Clusters
from popmargin.statistics.rank_correlation import kendall, spearman


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 6), st.integers(1, 8))
def test_resamples_are_laid_out_ones(seed: int, rows: int, clusters: int, values: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.integers(values, size=rows).astype(float), random.integers(values, size=rows) / 3
    groups = Clusters(random.integers(clusters, size=rows).tolist())
    counts = random.multinomial(groups.count, np.ones(groups.count) / groups.count, size=7).astype(float)
    found = {"spearman": spearman(x, y, groups)(counts), "kendall": kendall(x, y, groups)(counts)}
    for r, times in enumerate(counts):
        drawn = np.repeat(np.arange(rows), times[groups.of_row].astype(int))
        constant = len(np.unique(x[drawn])) < 2 or len(np.unique(y[drawn])) < 2
        for name, scipy in (("spearman", spearmanr), ("kendall", kendalltau)):
            if constant:
                assert np.isnan(found[name][r])
            else:
                assert found[name][r] == pytest.approx(scipy(x[drawn], y[drawn]).statistic, abs=1e-9)


def test_many_rows_take_the_other_way_to_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    x, y = random.integers(5, size=40).astype(float), random.normal(size=40)
    groups = Clusters(random.integers(9, size=40).tolist())
    counts = random.multinomial(groups.count, np.ones(groups.count) / groups.count, size=5).astype(float)
    expected = [kendall(x, y, groups)(counts), spearman(x, y, groups)(counts)]
    monkeypatch.setattr(rank_correlation, "_MOST_PAIRS", 100)
    monkeypatch.setattr(rank_correlation, "_CELLS", 80)
    for values, others in zip(expected, [kendall(x, y, groups)(counts), spearman(x, y, groups)(counts)], strict=True):
        np.testing.assert_allclose(values, others, atol=1e-12)
