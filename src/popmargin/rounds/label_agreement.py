"""How often labels that a model gave itself agree with a score that is trusted."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from popmargin.data.responses import Responses
from popmargin.statistics.buckets import rank_buckets
from popmargin.statistics.intervals import Clusters, Interval
from popmargin.statistics.jackknife import share_of_sums


@dataclass(frozen=True)
class Agreement:
    """Agreement of two scores on which of two responses to a prompt is better.

    Attributes:
        overall: share of pairs on which both agree; the interval is clustered by prompt.
        curve: the same by confidence: rows of pairs from the least to the most certain label, with `confidence` (mean
            gap of the label), `count` and `interval`.
        pairs: that are compared: neither score is missing or tied.
        left_out: reason -> pairs.
        longer: share of pairs in which the label prefers the longer response, of those that differ in length.
    """

    overall: Interval
    curve: list[dict[str, Any]]
    pairs: int
    left_out: dict[str, int]
    longer: Interval

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        curve = [row | {"interval": row["interval"].to_dict()} for row in self.curve]
        return {
            "overall": self.overall.to_dict(),
            "curve": curve,
            "pairs": self.pairs,
            "left_out": self.left_out,
            "longer": self.longer.to_dict(),
        }


def agreement(responses: Responses, label: str, trusted: str, *, parts: int = 10) -> Agreement:
    """Compare a label with a trusted score on all pairs of responses to the same prompt.

    Args:
        responses: with both scores.
        label: name of the score that labelled them.
        trusted: name of the score that is taken for the truth.
        parts: points of the curve by confidence; fewer where there are fewer than four pairs for each.

    Raises:
        DataError: a score is missing.

    Example:
        >>> table = Responses(["a", "b"], [["x", "y"], ["x", "y"]], {"rho": [1.0, 0.0, 2.0, 5.0], "gold": [3, 2, 9, 7]})
        >>> agreement(table, "rho", "gold").overall.estimate
        0.5
    """
    ours, theirs = responses.score(label), responses.score(trusted)
    lengths = np.array(_lengths(responses), dtype=np.float64)
    ends = np.concatenate([[0], np.cumsum(responses.counts)])
    rows: list[tuple[int, float, float, float]] = []
    left_out = dict.fromkeys(("without a score", "tied label", "tied trusted score"), 0)
    for prompt in range(len(responses)):
        for i, j in combinations(range(ends[prompt], ends[prompt + 1]), 2):
            gap, truth = ours[i] - ours[j], theirs[i] - theirs[j]
            if np.isnan(gap) or np.isnan(truth):
                left_out["without a score"] += 1
            elif not gap or not truth:
                left_out["tied label" if not gap else "tied trusted score"] += 1
            else:
                rows.append((prompt, float(gap), float(truth), float(lengths[i] - lengths[j])))
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    prompts, gaps = table[:, 0].astype(int).tolist(), table[:, 1]
    right = (np.sign(gaps) == np.sign(table[:, 2])).astype(np.float64)
    confidence = np.abs(gaps)
    count = max(1, min(parts, len(rows) // 4))
    part = rank_buckets(confidence, count) if len(rows) else np.zeros(0, dtype=int)
    curve = [
        {
            "confidence": float(confidence[part == number].mean()),
            "count": int((part == number).sum()),
            "interval": _share(right[part == number], [prompts[row] for row in np.flatnonzero(part == number)]),
        }
        for number in range(count)
        if (part == number).any()
    ]
    differs = np.flatnonzero(table[:, 3])
    longer = (np.sign(gaps) == np.sign(table[:, 3])).astype(np.float64)
    return Agreement(
        overall=_share(right, prompts),
        curve=curve,
        pairs=len(rows),
        left_out={reason: number for reason, number in left_out.items() if number},
        longer=_share(longer[differs], [prompts[row] for row in differs]),
    )


def _lengths(responses: Responses) -> Sequence[float]:
    """Tokens, or characters where tokens are not known."""
    if "tokens" in responses.field_names:
        return responses.field("tokens")
    return [len(str(text)) for text in responses.texts]


def _share(hits: np.ndarray, prompts: Sequence[int]) -> Interval:
    """Share of rows that are 1, with an interval clustered by prompt."""
    groups = Clusters(prompts)
    return share_of_sums(groups.sums(np.stack([hits, np.ones_like(hits)], axis=1)))
