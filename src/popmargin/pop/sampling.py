"""Which pairs of preferences are compared, and what the labels say.

Axis suffixes: N preferences, A preferences still looking for weaker partners, H earlier draws of each of them.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike

from popmargin.errors import ConfigError, DataError, counted
from popmargin.pop.active import ActiveSampler
from popmargin.pop.chains import chain_pairs
from popmargin.pop.edges import PopEdges, unique_ids
from popmargin.pop.noise import bradley_terry_labels, check_noise, flip_labels, label_probability

_Rows = Int64[np.ndarray, " n"]
SAMPLINGS = ("iterative", "random", "chain", "active")


def sample_edges(
    ids: Sequence[str],
    strength: ArrayLike,
    *,
    sampling: str = "chain",
    k: int = 1,
    seed: int = 0,
    flip: float = 0.0,
    temperature: float = 0.0,
    budget: int | None = None,
    unmatched: str = "keep",
    source: str = "ratings",
) -> PopEdges:
    """Draw pairs of preferences, label which is the stronger one, and return the edges.

    *iterative* (Chittepu et al. 2025; the paper does not say how to draw, so that part is ours): every preference
    becomes the stronger side of k edges. Its partners are drawn uniformly without replacement until the labels have
    called k of them weaker or `budget` comparisons are made. Equal strengths are called equal and never count as
    weaker. A preference that meets no weaker partner keeps one edge with a null weaker side (margin 0), or is dropped.
    A pair that comes up in both of its preferences' turns is asked, and counted, in each.

    *random*: k·N distinct pairs of distinct preferences, uniformly; the one called stronger comes first. Equal
    strengths give edges with tie=True.

    *chain* (ours): k·N distinct pairs along k rings through all preferences, in the order in which they are asked
    (`chains.chain_pairs`); labelled and tied as in random sampling. A comparison shares a preference with the one
    before it, so people read half as much as for random pairs, and every preference is in 2k comparisons.

    *active* (ours): k·N distinct pairs, or `budget` of them, chosen by `ActiveSampler` to be informative about
    the strength scale given the answers so far; labelled and tied as in random sampling. Designed for fitting a scale
    (`pop_scale`): its pairs are close, so as edges of `pop` their targets are near the stronger side's own margin.

    Labels pass through the noise of `label_probability`. Iterative sampling stops at k labels that say "weaker", so it
    collects wrong ones: the weakest preferences have no other partners, and the share of wrong labels among the edges
    exceeds the share among the comparisons (`edge_statistics` reports it). Comparisons, the questions annotators
    would be asked, are counted in `parameters`; the work is about O(N·k), however many the weakest preferences need.

    Args:
        ids: unique ids of the preferences (N,).
        strength: how much better chosen is than rejected (N,), any scale, finite; negative if it is worse.
        sampling: "chain", "random", "iterative" or "active".
        k: edges for each preference.
        seed: of all draws; the same arguments give the same edges.
        flip: probability that a label is flipped.
        temperature: of Bradley-Terry labels, on the scale of the strengths; 0 = exact.
        budget: iterative: maximum comparisons per preference, None for all N-1; active: total comparisons, None for
            k·N.
        unmatched: "keep" or "drop" preferences without a weaker partner (iterative only).
        source: where the labels come from; written to every edge.

    Returns:
        The edges with their parameters.

    Raises:
        ConfigError: a setting is outside its range, or `random`, `chain` or `active` asks for more pairs than there
            are.
        DataError: fewer than two preferences, repeated ids, or strengths that are missing or not finite.

    Example:
        >>> edges = sample_edges(["a", "b", "c"], [1.0, 2.0, 3.0], sampling="iterative")
        >>> edges.table["stronger"].to_pylist()
        ['a', 'b', 'c']
        >>> edges.table["weaker"].to_pylist()[:2]
        [None, 'a']
    """
    names = unique_ids(ids)
    strength_N = _strengths(ids, strength)
    count = len(strength_N)
    check_noise(flip, temperature)
    _check_settings(sampling, k, budget, unmatched, count)
    rng = np.random.default_rng(seed)
    noise = {"flip": float(flip), "temperature": float(temperature)}
    if sampling == "iterative":
        stronger, weaker, facts = _iterative(strength_N, k, budget, unmatched, noise, rng)
        tie = np.zeros(len(stronger), dtype=bool)
    elif sampling in ("random", "chain"):
        pairs = (_random_pairs if sampling == "random" else chain_pairs)(count, k, rng)
        stronger, weaker, tie = _label(strength_N, *pairs, noise, rng)
        facts = {"comparisons": len(stronger)}
    else:
        stronger, weaker, tie = _active(ids, strength_N, k * count if budget is None else budget, seed, noise, rng)
        facts = {"comparisons": len(stronger)}
    parameters: dict[str, Any] = {
        "sampling": sampling,
        "k": int(k),
        "seed": int(seed),
        **noise,
        "budget": budget,
        "unmatched": unmatched,
        "preferences": count,
        **facts,
        "strength_fingerprint": strength_fingerprint(ids, strength_N),
    }
    columns: dict[str, Any] = {
        "stronger": names.take(pa.array(stronger)),
        "weaker": names.take(pa.array(np.where(weaker < 0, 0, weaker), mask=weaker < 0)),
        "source": pa.array([source] * len(stronger), pa.string()),
        "tie": pa.array(tie),
    }
    return PopEdges(pa.table(columns), parameters)


def strength_fingerprint(ids: Sequence[str], strength: Float64[np.ndarray, " N"]) -> str:
    """sha256 (hex) of ids and strengths, to check later whether edges were made from the same ones."""
    digest = hashlib.sha256("\0".join(ids).encode())
    digest.update(np.ascontiguousarray(strength, dtype="<f8").tobytes())
    return digest.hexdigest()


def _strengths(ids: Sequence[str], strength: ArrayLike) -> Float64[np.ndarray, " N"]:
    strength_N = np.asarray(strength, dtype=np.float64)
    if strength_N.shape != (len(ids),):
        raise DataError(
            f"{counted(len(ids), 'id')} but strengths of shape {strength_N.shape}; give one strength per id."
        )
    if len(ids) < 2:
        raise DataError(f"{counted(len(ids), 'preference')}: PoP compares two preferences, so at least 2 are needed.")
    wrong = np.flatnonzero(~np.isfinite(strength_N))
    if len(wrong):
        shown = ", ".join(repr(ids[row]) for row in wrong[:5])
        raise DataError(
            f"{len(wrong)} of {counted(len(ids), 'preference')} have no finite strength: rows {wrong[:5].tolist()}, "
            f"ids {shown}{', …' if len(wrong) > 5 else ''}. Give chosen_rating and rejected_rating or a strength for "
            "every row, or first select the rows that have one."
        )
    return strength_N


def _check_settings(sampling: str, k: int, budget: int | None, unmatched: str, count: int) -> None:
    if sampling not in SAMPLINGS:
        raise ConfigError(f"sampling is {sampling!r}; choose one of {', '.join(SAMPLINGS)}.")
    if unmatched not in ("keep", "drop"):
        raise ConfigError(f"unmatched is {unmatched!r}; choose 'keep' (margin 0) or 'drop'.")
    if k < 1:
        raise ConfigError(f"k is {k}; every preference needs at least 1 edge.")
    if budget is not None and budget < 1:
        raise ConfigError(f"budget is {budget}; allow at least 1 comparison, or None for the default.")
    if sampling in ("random", "chain") and budget is not None:
        raise ConfigError(
            f"budget limits iterative and active sampling; {sampling} sampling makes k comparisons for each "
            "preference. Choose one of those, or leave out budget."
        )
    if sampling == "iterative" and k > count - 1:
        raise ConfigError(
            f"k is {k}, but each of {counted(count, 'preference')} has only {counted(count - 1, 'partner')}. Lower k."
        )
    pairs = count * (count - 1) // 2
    asked = k * count if budget is None else budget
    if sampling == "active" and asked > pairs:
        raise ConfigError(
            f"Active sampling needs {counted(asked, 'pair')}, but {counted(count, 'preference')} have only {pairs}, "
            "and no pair is asked twice. Lower budget or k."
        )
    if sampling == "random" and k * count > pairs:
        raise ConfigError(
            f"Random sampling with k={k} needs {counted(k * count, 'pair')}, but {counted(count, 'preference')} have "
            f"only {pairs}, and no pair is asked twice. Use k <= {(count - 1) // 2}, more preferences, or iterative "
            "sampling."
        )


def _random_pairs(count: int, k: int, rng: np.random.Generator) -> tuple[_Rows, _Rows]:
    """k·N distinct pairs."""
    pairs = count * (count - 1) // 2
    # Pair number p is {j, j + d} on a ring, with j = p mod N and d = p div N + 1: each unordered pair has one number.
    number = rng.choice(pairs, size=k * count, replace=False)
    first = number % count
    second = (first + number // count + 1) % count
    swap = rng.random(len(first)) < 0.5
    return np.where(swap, second, first), np.where(swap, first, second)


def _label(
    strength_N: Float64[np.ndarray, " N"],
    first: _Rows,
    second: _Rows,
    noise: dict[str, float],
    rng: np.random.Generator,
) -> tuple[_Rows, _Rows, Any]:
    """Labels of some pairs: (stronger, weaker, tie)."""
    gap = strength_N[first] - strength_N[second]
    label = flip_labels(bradley_terry_labels(gap, noise["temperature"], rng), noise["flip"], rng)
    return np.where(label, first, second), np.where(label, second, first), gap == 0.0


def _active(
    ids: Sequence[str],
    strength_N: Float64[np.ndarray, " N"],
    budget: int,
    seed: int,
    noise: dict[str, float],
    rng: np.random.Generator,
) -> tuple[_Rows, _Rows, Any]:
    """Pairs that are asked for in rounds, each with the answers to all earlier ones: (stronger, weaker, tie)."""
    sampler = ActiveSampler(ids, seed=seed)
    rounds: list[Any] = []
    left = budget
    while left:
        answers = _label(strength_N, *sampler.ask_rows(min(left, sampler.batch_size)), noise, rng)
        left -= len(answers[0])
        rounds.append(answers)
        if left:
            sampler.tell_rows(*answers)
    stronger, weaker, tie = (np.concatenate(column) for column in zip(*rounds, strict=True))
    return stronger, weaker, tie


def _iterative(
    strength_N: Float64[np.ndarray, " N"],
    k: int,
    budget: int | None,
    unmatched: str,
    noise: dict[str, float],
    rng: np.random.Generator,
) -> tuple[_Rows, _Rows, dict[str, int]]:
    """Edges (stronger, weaker; -1 = none found) ordered by the stronger side, and what was counted."""
    count = len(strength_N)
    stronger, weaker, comparisons = _partners(strength_N, k, count - 1 if budget is None else budget, noise, rng)
    found_N = np.bincount(stronger, minlength=count)
    alone = np.flatnonzero(found_N == 0)
    if unmatched == "keep":
        stronger = np.concatenate([stronger, alone])
        weaker = np.concatenate([weaker, np.full(len(alone), -1)])
    order = np.argsort(stronger, kind="stable")
    facts = {
        "comparisons": int(comparisons.sum()),
        "comparisons_max": int(comparisons.max()),
        "unmatched_preferences": len(alone),
        "partly_matched_preferences": int(((found_N > 0) & (found_N < k)).sum()),
    }
    return stronger[order], weaker[order], facts


def _partners(
    strength_N: Float64[np.ndarray, " N"], k: int, budget: int, noise: dict[str, float], rng: np.random.Generator
) -> tuple[_Rows, _Rows, Int64[np.ndarray, " N"]]:
    """Edges (stronger, weaker) in the order found, and the comparisons of each preference (N,).

    Drawing partner by partner would cost N comparisons for each of the weakest, of which there are many with tied
    ratings. This gives the same distribution without the useless draws: a partner whose label says "weaker" with
    probability at most c is first kept with probability c (a coin that does not look at which partner it is, so the
    kept ones are a uniform draw), and a kept one is then called weaker with probability P / c. Partners below and above
    in strength have their own c; for ties it is 0. Where the t-th kept one lies among all comparisons is a
    beta-binomial number.
    """
    count = len(strength_N)
    draws = min(budget, count - 1)
    order = np.argsort(strength_N, kind="stable")
    sorted_N = strength_N[order]
    # Axis 2: partners below, partners above. `first` is the place in `order` where each of the two groups begins.
    above_from = np.searchsorted(sorted_N, strength_N, side="right")
    size_N2 = np.stack([np.searchsorted(sorted_N, strength_N, side="left"), count - above_from], axis=1)
    first_N2 = np.stack([np.zeros(count, dtype=np.int64), above_from], axis=1)
    near_N2 = sorted_N[np.clip(np.stack([size_N2[:, 0] - 1, above_from], axis=1), 0, count - 1)]
    # P is monotone in the gap, so its largest value in a group is at the nearest or at the farthest partner.
    ceiling_N2 = np.maximum(
        label_probability((strength_N[:, None] - near_N2).ravel(), **noise),
        label_probability((strength_N[:, None] - sorted_N[[0, -1]]).ravel(), **noise),
    ).reshape(count, 2)
    met_below = rng.hypergeometric(size_N2[:, 0], count - 1 - size_N2[:, 0], draws)
    met_above = rng.hypergeometric(size_N2[:, 1], count - 1 - size_N2.sum(axis=1), draws - met_below)
    kept_N2 = rng.binomial(np.stack([met_below, met_above], axis=1), ceiling_N2)

    used_N2 = np.zeros_like(kept_N2)
    found_N = np.zeros(count, dtype=np.int64)
    edges: list[Any] = [np.zeros((0, 2), dtype=np.int64)]
    rows_A = np.flatnonzero(kept_N2.sum(axis=1))
    shuffle = _Shuffle(len(rows_A))
    while len(rows_A):
        left_A2 = kept_N2[rows_A] - used_N2[rows_A]
        side_A = (rng.random(len(rows_A)) * left_A2.sum(axis=1) >= left_A2[:, 0]).astype(np.int64)
        at_A = (rows_A, side_A)
        partner_A = order[shuffle.next(first_N2[at_A], used_N2[at_A], size_N2[at_A], rng)]
        used_N2[at_A] += 1
        chance_A = label_probability(strength_N[rows_A] - strength_N[partner_A], **noise)
        called_A = rng.random(len(rows_A)) * ceiling_N2[at_A] < chance_A
        edges.append(np.stack([rows_A, partner_A], axis=1)[called_A])
        found_N[rows_A] += called_A
        go_on_A = (found_N[rows_A] < k) & (left_A2.sum(axis=1) > 1)
        rows_A = rows_A[go_on_A]
        shuffle.keep(go_on_A)
    kept_N, used_N = kept_N2.sum(axis=1), used_N2.sum(axis=1)
    before = rng.beta(np.maximum(used_N, 1), np.maximum(kept_N - used_N + 1, 1))
    comparisons = np.where(found_N >= k, used_N + rng.binomial(draws - kept_N, before), draws)
    stronger, weaker = np.concatenate(edges).T
    return stronger, weaker, comparisons


class _Shuffle:
    """One Fisher-Yates shuffle per row, storing only the drawn places."""

    def __init__(self, rows: int) -> None:
        self._place_AH = np.zeros((rows, 0), dtype=np.int64)
        self._value_AH = np.zeros((rows, 0), dtype=np.int64)

    def next(self, base_A: Any, drawn_A: Any, size_A: Any, rng: np.random.Generator) -> Any:
        """The next value of each row, uniform over base … base + size - 1 excluding the `drawn` ones drawn before."""
        place_A = base_A + rng.integers(drawn_A, size_A)
        value_A = self._look_up(place_A)
        displaced_A = self._look_up(base_A + drawn_A)
        self._place_AH = np.column_stack([self._place_AH, place_A])
        self._value_AH = np.column_stack([self._value_AH, displaced_A])
        return value_A

    def keep(self, rows_A: Any) -> None:
        self._place_AH = self._place_AH[rows_A]
        self._value_AH = self._value_AH[rows_A]

    def _look_up(self, place_A: Any) -> Any:
        history = self._place_AH.shape[1]
        if history == 0:
            return place_A
        match_AH = self._place_AH == place_A[:, None]
        last_A = history - 1 - np.argmax(match_AH[:, ::-1], axis=1)  # the latest swap at a place counts
        stored_A = np.take_along_axis(self._value_AH, last_A[:, None], axis=1)[:, 0]
        return np.where(match_AH.any(axis=1), stored_A, place_A)
