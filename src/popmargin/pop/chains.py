"""Chains of comparisons: consecutive ones share a preference, so that each brings only one new preference to read.

Axis suffix N: preferences.
"""

import numpy as np
from jaxtyping import Int64

from popmargin.errors import ConfigError, counted

_Rows = Int64[np.ndarray, "_"]
_ATTEMPTS = 1_000


def chain_pairs(count: int, k: int, rng: np.random.Generator) -> tuple[_Rows, _Rows]:
    """k rings through all preferences in random order, as k·N comparisons of neighbours; no pair twice (ours).

    Every preference is in 2k comparisons, and each comparison shares a preference with the one before it. Of two
    preferences there is only one comparison, and k must be 1.

    Args:
        count: preferences, N.
        k: rings.
        rng: of the orders.

    Returns:
        Rows of the two preferences of each comparison, in the order in which they are to be asked.

    Raises:
        ConfigError: so few preferences have no k rings without a repeated pair.

    Example:
        >>> first, second = chain_pairs(4, 1, np.random.default_rng(0))
        >>> [{int(one), int(other)} for one, other in zip(first, second)]
        [{0, 2}, {0, 1}, {1, 3}, {2, 3}]
    """
    if count == 2 and k == 1:
        return np.array([0]), np.array([1])
    seen = np.zeros(0, dtype=np.int64)
    rings: list[_Rows] = []
    for _ in range(k):
        ring = _new_ring(count, seen, rng)
        if ring is None:
            raise ConfigError(
                f"Chains with k={k} compare {counted(k * count, 'pair')}, each once, for which "
                f"{counted(count, 'preference')} are too few. Use k <= {max(1, (count - 1) // 4)}."
            )
        seen = np.union1d(seen, _numbers(ring, np.roll(ring, -1), count))
        if rings:  # begun where the last one ended, so that the chain does not break
            ring = np.roll(ring, -int(np.flatnonzero(ring == rings[-1][0])[0]))
        rings.append(ring)
    first = np.concatenate(rings)
    second = np.concatenate([np.roll(ring, -1) for ring in rings])
    return first, second


def _new_ring(count: int, seen: _Rows, rng: np.random.Generator) -> _Rows | None:
    """A random ring without the pairs that were seen: a random one, of which offending places are shuffled again."""
    ring = rng.permutation(count)
    for _ in range(_ATTEMPTS):
        known = np.flatnonzero(np.isin(_numbers(ring, np.roll(ring, -1), count), seen))
        if not len(known):
            return ring
        places = (known + 1) % count
        others = rng.integers(count, size=len(places))
        for place, other in zip(places, others, strict=True):
            ring[place], ring[other] = ring[other], ring[place]
    return None


def _numbers(first: _Rows, second: _Rows, count: int) -> _Rows:
    """One number for each unordered pair."""
    return np.minimum(first, second) * count + np.maximum(first, second)
