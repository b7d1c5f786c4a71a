"""Facts for `popmargin data inspect`."""

import json

import numpy as np
import pytest

from popmargin.data import load_preferences
from popmargin.data.summary import strength_summary, summarise


def test_summary_numbers():
    rows = [
        {"prompt": "p", "chosen": "x" * (i + 1), "rejected": "yy", "chosen_rating": float(i), "rejected_rating": 0.0}
        for i in range(9)
    ]
    summary = summarise(load_preferences(rows), examples=2)
    assert (summary["rows"], summary["prompts"], summary["conversational"]) == (9, 1, False)
    assert summary["characters"]["chosen"]["median"] == 5
    assert (summary["longer_chosen"], summary["longer_rejected"]) == (pytest.approx(7 / 9), pytest.approx(1 / 9))
    assert [third["count"] for third in summary["strength"]["thirds"]] == [3, 3, 3]
    assert summary["strength"]["zero"] == 1
    assert summary["ratings"]["rejected_rating"]["values"] == {"0": 9}
    assert [row["chosen"] for row in summary["examples"]] == ["x", "x" * 9]
    assert json.loads(json.dumps(summary, allow_nan=False))["rows"] == 9


def test_unknown_and_equal_strengths():
    assert strength_summary(np.array([np.nan])) is None
    summary = strength_summary(np.array([1.0, 1.0, np.nan]))
    assert summary is not None
    assert (summary["unknown"], [third["count"] for third in summary["thirds"]]) == (1, [0, 2, 0])
    assert summarise(load_preferences([{"prompt": "p", "chosen": "a", "rejected": "b"}]), examples=0)["examples"] == []
