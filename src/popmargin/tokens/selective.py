"""Selective tokens: only those with the largest impact enter the sums."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from popmargin.tokens.base import TokenRows, token_selector


@dataclass(frozen=True, kw_only=True)
class SelectiveOptions:
    """Options of `selective`.

    Attributes:
        share: share of a response's tokens to keep, 0 < share ≤ 1.
        rescale: divide the weights by the share actually kept, so that sums keep their size; means over tokens do not
            change.
        tolerance: scores this close below the threshold count as ties and are kept, nats (ours): before the first step
            policy and reference differ by rounding.
    """

    share: float = 0.4
    rescale: bool = False
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"selective: share must be above 0 and at most 1, not {self.share}.")
        if not 0 <= self.tolerance < float("inf"):
            raise ValueError(f"selective: tolerance must be a finite number, 0 or more, not {self.tolerance}.")


def thresholds(
    score_N: Float[Tensor, "N"], response_N: Tensor, count_S: Float[Tensor, "S"], share: float
) -> Float[Tensor, "S"]:
    """The (1 − share)-quantile of the scores of every response (S,), interpolated; arbitrary for an empty response."""
    order_N = score_N.argsort()
    order_N = order_N[response_N[order_N].argsort(stable=True)]  # by response, then by score
    sorted_N = score_N[order_N]
    place_S = (1 - share) * (count_S - 1).clamp(min=0)
    first_S = count_S.cumsum(0) - count_S
    last = len(score_N) - 1
    below_S = (first_S + place_S.floor()).long().clamp(max=last)
    above_S = (first_S + place_S.ceil()).long().clamp(max=last)
    return torch.lerp(sorted_N[below_S], sorted_N[above_S], (place_S - place_S.floor()).to(score_N.dtype))


@token_selector("selective", options=SelectiveOptions)
def selective(tokens: TokenRows, options: SelectiveOptions) -> Float[Tensor, "N"]:
    """Selective tokens: keep the share of each response where policy and reference disagree most in the wrong
    direction.

    s = logp_ref − logp_θ for chosen, logp_θ − logp_ref for rejected;  keep s ≥ its (1 − share)-quantile in the response
    (arXiv 2507.07725)

    Ties are kept, so every token is kept while the policy equals the reference. logp_ref is the run's reference, or a
    stronger model with the same tokenizer (larger, or trained on preferences) given by `tokens.reference`. The
    authors' code trains with learning rate 2e-7 and β 0.01.

    Args:
        tokens: log-probs of all completion tokens (N,), nats.
        options: see `SelectiveOptions`.

    Returns:
        The weight of every token (N,): 0 or 1; with `rescale` 0 or 1/(kept share of its response).
    """
    behind_N = (tokens.scoring_logps - tokens.logps).detach()
    score_N = torch.where(tokens.is_chosen[tokens.response], behind_N, -behind_N)

    def per_response(values_N: Tensor) -> Tensor:  # not bincount, which would wait for the device
        zeros_S = torch.zeros(len(tokens.is_chosen), dtype=torch.float64, device=values_N.device)
        return zeros_S.index_add(0, tokens.response, values_N.double())

    count_S = per_response(torch.ones_like(score_N))
    threshold_S = thresholds(score_N, tokens.response, count_S, options.share)
    kept_N = (score_N >= threshold_S[tokens.response] - options.tolerance).to(score_N.dtype)
    if not options.rescale:
        return kept_N
    scale_S = count_S / per_response(kept_N).clamp(min=1)
    return kept_N * scale_S[tokens.response].to(kept_N.dtype)
