"""Whether responses have grown with training, which offline training cannot log: it samples none."""

import numpy as np

from popmargin.data.responses import Responses
from popmargin.training.watch import LENGTH

_NEEDED = {"tokens", "finished"}


def grown(now: Responses, earlier: Responses, before: str) -> str | None:
    """What `training.watch.LENGTH` says of sampled responses; None if nothing, or if they have no lengths.

    Args:
        now: of the policy.
        earlier: sampled in the same way.
        before: whose those were, such as "the reference".

    Example:
        >>> short, long = (Responses(["a"], [["x"]], tokens=[size], finished=[True]) for size in (40, 90))
        >>> (grown(long, short, "the reference") or "").partition(". ")[0]
        'responses have grown from 40 tokens (the reference; 0% were cut) to 90 (0% are cut)'
        >>> grown(short, long, "the reference")
    """
    if not all(set(of.field_names) >= _NEEDED and len(of.texts) for of in (now, earlier)):
        return None
    (tokens, cut), (tokens_before, cut_before) = _lengths(now), _lengths(earlier)
    return LENGTH.said({"tokens": tokens, "cut": cut, "tokens_before": tokens_before, "cut_before": cut_before,
                        "before": before})  # fmt: skip


def _lengths(of: Responses) -> tuple[float, float]:
    """Mean tokens, and the share that was cut."""
    return float(np.mean(of.field("tokens"))), float(of.unfinished.sum() / len(of.texts))
