"""From token log-probs to the scores of responses.

Axis suffixes: P preferences, S = 2P responses (chosen, then rejected), N completion tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from popmargin.engine.logps import response_sums
from popmargin.objectives.base import Logps, ScoreKind


@dataclass(frozen=True)
class PairScores:
    """Scores of the responses of P preferences.

    Attributes:
        chosen: scores in the wanted kind (P,), nats.
        rejected: the same of the rejected responses (P,).
        logps: sums over all tokens, whatever the weights; None if responses have no log-probs.
        logged: further values to log, by name; any number of each.
        decoupled: the gap with de-coupled log-probs (P,), nats, detached; None if no objective needs it.
    """

    chosen: Float[Tensor, "P"]
    rejected: Float[Tensor, "P"]
    logps: Logps | None = None
    logged: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    decoupled: Float[Tensor, "P"] | None = None

    @property
    def gap(self) -> Float[Tensor, "P"]:
        """chosen − rejected (P,), nats."""
        return self.chosen - self.rejected


def pair_scores(
    kind: ScoreKind,
    logps_N: Float[Tensor, "N"],
    reference_N: Float[Tensor, "N"] | None,
    lengths_S: Int[Tensor, "S"],
    weights_N: Float[Tensor, "N"] | None = None,
) -> PairScores:
    """Scores of preferences from the log-probs of their completion tokens.

    Args:
        kind: log_ratio, mean_log_ratio, logp or mean_logp; see `ScoreKind`.
        logps_N: policy log-probs (N,), nats.
        reference_N: reference log-probs (N,), nats; needed by the two ratio kinds.
        lengths_S: completion tokens of each response (S,), chosen ones first.
        weights_N: weights from a token selector (N,); None counts every token.

    Returns:
        Scores and sums of the P = S/2 preferences.
    """
    logps = _sums(logps_N, reference_N, lengths_S, None)
    weighted = logps if weights_N is None else _sums(logps_N, reference_N, lengths_S, weights_N)
    return PairScores(*scores_of(kind, weighted), logps)


def scores_of(kind: ScoreKind, logps: Logps) -> tuple[Float[Tensor, "P"], Float[Tensor, "P"]]:
    """Scores of chosen and rejected responses (P,) from their sums, nats."""

    def score(sums: Tensor, reference: Tensor | None, tokens: Tensor) -> Tensor:
        if kind in ("log_ratio", "mean_log_ratio"):
            assert reference is not None, "ratio scores need reference log-probs"
            sums = sums - reference
        if kind in ("mean_log_ratio", "mean_logp"):
            sums = sums / tokens.clamp(min=torch.finfo(tokens.dtype).tiny)
        return sums

    chosen = score(logps.chosen, logps.chosen_reference, logps.chosen_tokens)
    return chosen, score(logps.rejected, logps.rejected_reference, logps.rejected_tokens)


def _sums(logps_N: Tensor, reference_N: Tensor | None, lengths_S: Tensor, weights_N: Tensor | None) -> Logps:
    half = len(lengths_S) // 2
    sums_S = response_sums(logps_N, lengths_S, weights_N)
    reference_S = None if reference_N is None else response_sums(reference_N, lengths_S, weights_N)
    tokens_S = lengths_S.to(sums_S.dtype)
    if weights_N is not None:
        tokens_S = response_sums(weights_N.to(sums_S.dtype), lengths_S)
    return Logps(
        chosen=sums_S[:half],
        rejected=sums_S[half:],
        chosen_reference=None if reference_S is None else reference_S[:half],
        rejected_reference=None if reference_S is None else reference_S[half:],
        chosen_tokens=tokens_S[:half],
        rejected_tokens=tokens_S[half:],
    )
