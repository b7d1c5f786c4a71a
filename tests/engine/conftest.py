"""Token sequences of different lengths."""

import numpy as np
import pytest

from popmargin.data.ragged import Ragged
from popmargin.data.tokenize import TokenizedPreferences, TruncationReport


def tokenized_preferences(count: int, *, vocabulary: int = 290, seed: int = 0) -> TokenizedPreferences:
    random = np.random.default_rng(seed)

    def some(longest: int) -> Ragged:
        lengths = random.integers(1, longest + 1, size=count)
        return Ragged.of([random.integers(3, vocabulary, size=length).tolist() for length in lengths])

    return TokenizedPreferences(
        ids=[f"p{i}" for i in range(count)],
        prompt=some(8),
        chosen=some(12),
        rejected=some(12),
        index=np.arange(count),
        report=TruncationReport(rows_in=count, rows_kept=count),
    )


@pytest.fixture(scope="session")
def tokenized() -> TokenizedPreferences:
    return tokenized_preferences(12)
