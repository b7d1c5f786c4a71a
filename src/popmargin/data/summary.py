"""Facts about preferences for people: lengths, strengths, ratings and examples."""

from collections import Counter
from typing import Any

import numpy as np

from popmargin.data.conversation import Text
from popmargin.data.images import COLUMNS, is_image_name
from popmargin.data.schema import Preferences
from popmargin.data.split import leak_keys
from popmargin.data.tools import said
from popmargin.statistics.buckets import STRENGTHS, strength_thirds

_MOST_VALUES = 25


def text_length(text: Text) -> int:
    """Number of characters of a text, or of a conversation's contents."""
    return len(text) if isinstance(text, str) else sum(len(said(turn)) for turn in text)


def flat_text(text: Text) -> str:
    """A text unchanged; a conversation as one line per turn."""
    return text if isinstance(text, str) else "\n".join(f"{turn['role']}: {said(turn)}" for turn in text)


def example_rows(count: int, examples: int) -> list[int]:
    """Row numbers to show, spread evenly over `count` rows.

    Example:
        >>> example_rows(11, 3)
        [0, 5, 10]
    """
    return sorted({int(row) for row in np.linspace(0, count - 1, min(examples, count))}) if examples > 0 else []


def summarise(prefs: Preferences, *, examples: int = 3) -> dict[str, Any]:
    """Counts, lengths in characters, strength by thirds, ratings and some rows, as JSON values.

    Args:
        examples: rows to show, spread evenly over the data.
    """
    lengths: dict[str, list[int]] = {"prompt": [], "chosen": [], "rejected": []}
    for batch in prefs.batches("prompt", "chosen", "rejected"):
        for name, values in lengths.items():
            values.extend(text_length(text) for text in batch[name])
    chosen, rejected = np.array(lengths["chosen"]), np.array(lengths["rejected"])
    soft_label = prefs.soft_label
    known = soft_label[~np.isnan(soft_label)]
    return {
        "rows": len(prefs),
        "prompts": len(set(leak_keys(prefs))),
        "conversational": prefs.conversational,
        "images": set(COLUMNS) <= set(prefs.extra_columns) and is_image_name(prefs[0]["chosen"]),
        "fingerprint": prefs.fingerprint(),
        "characters": {name: _spread(np.array(values, dtype=np.float64)) for name, values in lengths.items()},
        "longer_chosen": float(np.mean(chosen > rejected)),
        "longer_rejected": float(np.mean(chosen < rejected)),
        "strength": strength_summary(prefs.strength),
        "ratings": _ratings(prefs),
        "soft_label": _spread(known) if len(known) else None,
        "annotators": len({name for batch in prefs.batches("annotator") for name in batch["annotator"]} - {None}),
        "examples": [prefs[row] for row in example_rows(len(prefs), examples)],
    }


def strength_summary(strength: np.ndarray) -> dict[str, Any] | None:
    """Spread of the known strengths and of each third of them, with evaluation's thirds; None without any.

    Args:
        strength: (N,) strengths on any scale, nan where unknown.
    """
    known = strength[~np.isnan(strength)]
    if not len(known):
        return None
    bucket = strength_thirds(known)
    thirds = [
        {"name": name, **_spread(known[bucket == number])} if np.any(bucket == number) else {"name": name, "count": 0}
        for number, name in enumerate(STRENGTHS)
    ]
    return {
        **_spread(known),
        "unknown": int(np.isnan(strength).sum()),
        "zero": int(np.sum(known == 0)),
        "thirds": thirds,
    }


def _spread(values: np.ndarray) -> dict[str, float | int]:
    names = ("min", "p10", "median", "p90", "max")
    quantiles = np.quantile(values, [0, 0.1, 0.5, 0.9, 1])
    numbers = {name: round(float(value), 6) for name, value in zip(names, quantiles, strict=True)}
    return {"count": len(values), "mean": round(float(np.mean(values)), 6), **numbers}


def _ratings(prefs: Preferences) -> dict[str, Any] | None:
    """Spread of the ratings of each side, and the counts of each value if there are few."""
    out: dict[str, Any] = {}
    for name in ("chosen_rating", "rejected_rating"):
        known = [value for batch in prefs.batches(name) for value in batch[name] if value is not None]
        if known:
            counts = Counter(known)
            values = {f"{value:g}": counts[value] for value in sorted(counts)} if len(counts) <= _MOST_VALUES else None
            out[name] = {**_spread(np.array(known)), "values": values}
    return out or None
