"""Which comparison to ask for next: the one that is most informative about the strength scale.

Axis suffixes: N preferences, W partners within the window, C candidate pairs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Float64, Int64
from scipy.special import expit, ndtr

from popmargin.errors import ConfigError, DataError, counted
from popmargin.pop.edges import PopEdges, unique_ids
from popmargin.pop.likelihood import Model, Posterior
from popmargin.pop.newton import maximise, strength_draws
from popmargin.pop.observations import observations_of

pc: Any = pyarrow.compute  # its functions are made at import time
_PARTNERS, _DRAWS = 8, 16


def expected_information(
    gap: Float64[np.ndarray, " n"], variance: Float64[np.ndarray, " n"], *, model: Model = "bradley_terry"
) -> Float64[np.ndarray, " n"]:
    """Information that the answer to a comparison gives about the strengths, in nats: ½·log(1 + I·V).

    V is the variance of the difference of the two strengths and I the Fisher information of one answer at the fitted
    difference: p(1 − p) for Bradley–Terry, φ²/(p(1 − p)) for Thurstone. A pair is worth asking where the strengths are
    uncertain and the answer is open.

    Args:
        gap: fitted difference of the two strengths (n,).
        variance: its posterior variance (n,).
        model: as in `fit_strengths`.

    Example:
        >>> expected_information(np.array([0.0, 5.0]), np.array([4.0, 4.0])).round(3).tolist()
        [0.347, 0.013]
    """
    if model == "thurstone":
        p = np.clip(ndtr(gap), 1e-12, 1 - 1e-12)
        fisher = np.exp(-(gap**2)) / (2 * np.pi) / (p * (1 - p))
    else:
        fisher = expit(gap) * expit(-gap)
    return 0.5 * np.log1p(fisher * variance)


class ActiveSampler:
    """Asks for comparisons in batches and learns from the answers.

    In a round, preferences are ordered by a draw from the posterior of all strengths; each considers the next few in
    this order and a few at random, and pairs are taken by expected information: no pair is ever asked twice, and no
    preference comes up twice before every other had its turn. The variance of a difference also comes from draws, so
    neighbours whose strengths are correlated count as known. A round costs O(N log N), and so does a budget of a fixed
    number of comparisons per preference.

    Args:
        ids: the preferences (N,).
        batch_size: comparisons between two fits; None for half the number of preferences.
        seed: of all draws.
        model: of the scale, as in `fit_strengths`.
        ridge: of the scale, as in `fit_strengths`.

    Example:
        >>> sampler = ActiveSampler(["a", "b", "c", "d"], seed=1)
        >>> pairs = sampler.ask(2)
        >>> sampler.tell(PopEdges.from_columns([first for first, _ in pairs], [second for _, second in pairs]))
        >>> len(sampler.ask(4)), sampler.ask(1)
        (4, [])
    """

    def __init__(
        self,
        ids: Sequence[str],
        *,
        batch_size: int | None = None,
        seed: int = 0,
        model: Model = "bradley_terry",
        ridge: float = 0.1,
    ) -> None:
        if len(ids) < 2:
            raise DataError(
                f"{counted(len(ids), 'preference')}: PoP compares two preferences, so at least 2 are needed."
            )
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; ask for at least 1 comparison at a time.")
        self._names = unique_ids(ids)
        self.ids = list(ids)
        self.batch_size = batch_size or max(1, len(ids) // 2)
        self._rng = np.random.default_rng(seed)
        self._model: Model = model
        self._ridge = ridge
        self._asked = np.empty(0, dtype=np.int64)
        self._tables: list[Any] = []
        self._strength_N = np.zeros(len(ids))
        spread = 1.0 if ridge == 0 else ridge**-0.5
        self._draws_NK = spread * self._rng.standard_normal((len(ids), _DRAWS))

    @property
    def pairs_left(self) -> int:
        """Pairs that were never asked for."""
        return len(self.ids) * (len(self.ids) - 1) // 2 - len(self._asked)

    def edges(self) -> PopEdges | None:
        """All answers so far."""
        return PopEdges(pa.concat_tables(self._tables)) if self._tables else None

    def tell(self, edges: PopEdges) -> None:
        """Learn answers, whether or not these comparisons of the preferences were asked for.

        Raises:
            DataError: an edge names an unknown preference.
        """
        self._tables.append(edges.table)
        everything = PopEdges(pa.concat_tables(self._tables))
        if everything.table["weaker"].null_count == len(everything):
            return
        ties = "davidson" if self._model == "bradley_terry" else "half"
        seen, _, facts = observations_of(everything, self.ids, ties, "weight")
        self._asked = np.union1d(self._asked, self._codes(*facts["compared"]))
        posterior = Posterior(observations=seen, model=self._model, ridge=self._ridge, ties=bool(seen.tie.any()))
        start = posterior.start()
        start[: len(self.ids)] = self._strength_N
        fit = maximise(posterior, start, tolerance=1e-3)
        self._strength_N = fit.theta[: len(self.ids)]
        self._draws_NK = strength_draws(posterior, fit.at, _DRAWS, self._rng)

    def pass_over(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Never ask for these pairs of ids: they are being asked elsewhere and not answered yet.

        Raises:
            DataError: an id is unknown.
        """
        rows = [pc.index_in(pa.array([pair[side] for pair in pairs], pa.string()), self._names) for side in (0, 1)]
        if any(side.null_count for side in rows):
            raise DataError("A pair to skip names a preference unknown to the sampler. Give it all ids.")
        first, second = (side.to_numpy(zero_copy_only=False).astype(np.int64) for side in rows)
        self._asked = np.union1d(self._asked, self._codes(first, second))

    def tell_rows(self, stronger: Any, weaker: Any, tie: Any = None) -> None:
        """The same from row numbers, (E,) each."""
        names = self._names
        columns: dict[str, Any] = {
            "stronger": names.take(pa.array(stronger)),
            "weaker": names.take(pa.array(weaker)),
            "tie": pa.array(np.zeros(len(stronger), dtype=bool) if tie is None else tie),
        }
        self.tell(PopEdges(pa.table(columns)))

    def ask(self, n: int | None = None) -> list[tuple[str, str]]:
        """The next pairs to compare: at most n, fewer only if no pair is left; never one that was asked before."""
        first, second = self.ask_rows(self.batch_size if n is None else n)
        return [(self.ids[i], self.ids[j]) for i, j in zip(first.tolist(), second.tolist(), strict=True)]

    def ask_rows(self, n: int) -> tuple[Int64[np.ndarray, " C"], Int64[np.ndarray, " C"]]:
        """The same as row numbers, in random order of the two sides."""
        wanted = min(n, self.pairs_left)
        found: list[Any] = [np.empty((0, 2), dtype=np.int64)]
        while wanted:
            pairs = self._matching()
            # Neighbours can be used up; then any pair not asked yet will do.
            pairs = (pairs if len(pairs) else self._unasked())[:wanted]
            found.append(pairs)
            wanted -= len(pairs)
            self._asked = np.union1d(self._asked, self._codes(pairs[:, 0], pairs[:, 1]))
        pairs = np.concatenate(found)
        turn = self._rng.random(len(pairs)) < 0.5
        return np.where(turn, pairs[:, 1], pairs[:, 0]), np.where(turn, pairs[:, 0], pairs[:, 1])

    def _codes(self, first: Any, second: Any) -> Any:
        return np.minimum(first, second) * len(self.ids) + np.maximum(first, second)

    def _matching(self) -> Any:
        """Disjoint pairs of preferences, by decreasing information."""
        count = len(self.ids)
        strength_N = self._strength_N
        order = np.argsort(strength_N + self._draws_NK[:, self._rng.integers(_DRAWS)])
        window = min(_PARTNERS, count - 1)
        step = np.concatenate([
            np.broadcast_to(np.arange(1, window + 1), (count, window)),
            self._rng.integers(1, count, size=(count, _PARTNERS)),
        ], axis=1)  # fmt: skip
        place = np.arange(count)[:, None] + step
        inside = place < count
        first_C = np.broadcast_to(order[:, None], place.shape)[inside]
        second_C = order[place[inside]]
        fresh = ~np.isin(self._codes(first_C, second_C), self._asked)
        first_C, second_C = first_C[fresh], second_C[fresh]
        variance_C = np.zeros(len(first_C))
        for draw_N in self._draws_NK.T:
            variance_C += (draw_N[first_C] - draw_N[second_C]) ** 2 / _DRAWS
        gain_C = expected_information(strength_N[first_C] - strength_N[second_C], variance_C, model=self._model)
        best = np.argsort(-gain_C, kind="stable")
        return _greedy(np.stack([first_C[best], second_C[best]], axis=1), count)

    def _unasked(self) -> Any:
        """Some pair that was not asked, by its number among all."""
        count = len(self.ids)
        if count <= 2000:
            first, second = np.triu_indices(count, 1)
            codes = np.setdiff1d(self._codes(first, second), self._asked)
            codes = self._rng.permutation(codes)
        else:
            pair = self._rng.integers(count, size=(4 * count, 2))
            pair = pair[pair[:, 0] != pair[:, 1]]
            codes = np.setdiff1d(self._codes(pair[:, 0], pair[:, 1]), self._asked)
        return np.stack([codes // count, codes % count], axis=1)


def _greedy(pairs: Int64[np.ndarray, "C 2"], count: int) -> Int64[np.ndarray, "M 2"]:
    """The pairs taken when going down the list, with each preference at most once.

    A pair is taken when it is the first left for both of its sides; then all pairs of these two are removed. The result
    equals that of a loop over the list, in a few vectorised rounds.
    """
    rank = np.arange(len(pairs))
    taken: list[Any] = []
    while len(rank):
        first_of = np.full(count, len(pairs))
        for side in (0, 1):
            np.minimum.at(first_of, pairs[rank, side], rank)
        chosen = rank[(first_of[pairs[rank, 0]] == rank) & (first_of[pairs[rank, 1]] == rank)]
        taken.append(chosen)
        used = np.zeros(count, dtype=bool)
        used[pairs[chosen].ravel()] = True
        rank = rank[~used[pairs[rank]].any(axis=1)]
    return pairs[np.sort(np.concatenate(taken))] if taken else pairs[:0]
