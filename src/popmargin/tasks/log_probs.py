"""Scores of responses from the log-probs of their tokens, and values to log."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from popmargin.engine.head import TokenScores
from popmargin.engine.logps import ForwardPlan, OtherLogits, token_scores
from popmargin.engine.scores import PairScores, pair_scores
from popmargin.objectives.base import ScoreKind
from popmargin.tokens.base import TokenRows, TokenSelector


def kl_estimate(logps_N: Float[Tensor, "N"], reference_N: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Divergence of the policy from the reference on the data's tokens: e^ρ − 1 − ρ, ρ = log π/π_ref.

    Its mean is an unbiased estimate of KL(π_ref‖π) per token if the data was sampled from the reference, and never
    negative (the "k3" estimator of Schulman 2020). KL(π‖π_ref) on the policy's own samples is measured in evaluation.

    Args:
        logps_N: policy log-probs of completion tokens (N,), nats.
        reference_N: reference log-probs of the same tokens (N,), nats.

    Returns:
        One value per token (N,), nats.
    """
    ratio_N = logps_N - reference_N
    return ratio_N.expm1() - ratio_N


@dataclass(frozen=True)
class LanguageScorer:
    """Scores of responses from the log-probs of their tokens, nats.

    Attributes:
        plan: of the model.
        kind: the score kind.
        precision: fp32 or bf16.
        wide: sum in double precision.
        tokens: a token selector and its options; None counts every token.
        statistics: also return entropy and top-1 agreement of every token, to log.
        other: the reference, live, for gaps with de-coupled log-probs; None for none.
    """

    plan: ForwardPlan
    kind: ScoreKind
    precision: str
    wide: bool = False
    tokens: tuple[TokenSelector, Any] | None = None
    statistics: bool = False
    other: OtherLogits | None = None

    @property
    def alone(self) -> bool:
        return self.plan.layout == "alone"

    def score(
        self, model: nn.Module, batch: Mapping[str, Any], generator: torch.Generator | None, *, log: bool = False
    ) -> PairScores:
        sequences: dict[str, Tensor] = batch["sequences"]
        reference_N: Tensor | None = batch.get("reference")
        token = token_scores(
            model,
            sequences,
            precision=self.precision,
            plan=self.plan,
            statistics=log and self.statistics,
            other=self.other,
        )
        logps_N = token.logps
        if self.wide:
            logps_N, reference_N = logps_N.double(), None if reference_N is None else reference_N.double()
        weights_N = None
        if self.tokens is not None:
            assert reference_N is not None, "token selectors need a reference"
            scoring_N = batch.get("scoring", reference_N)
            weights_N = self._weights(self.tokens, logps_N.detach(), reference_N, scoring_N, sequences["lengths"])
        scores = pair_scores(self.kind, logps_N, reference_N, sequences["lengths"], weights_N)
        if token.decoupled is not None:
            decoupled_N = token.decoupled.to(logps_N.dtype)
            gap = pair_scores(self.kind, decoupled_N, reference_N, sequences["lengths"], weights_N).gap
            scores = replace(scores, decoupled=gap)
        return replace(scores, logged=self._logged(token, reference_N, weights_N)) if log else scores

    def _weights(
        self,
        tokens: tuple[TokenSelector, Any],
        logps_N: Tensor,
        reference_N: Tensor,
        scoring_N: Tensor,
        lengths_S: Tensor,
    ) -> Tensor:
        selector, options = tokens
        responses_S = torch.arange(len(lengths_S), device=lengths_S.device)
        rows = TokenRows(
            logps=logps_N,
            reference_logps=reference_N,
            scoring_logps=scoring_N,
            response=responses_S.repeat_interleave(lengths_S),
            is_chosen=responses_S < len(lengths_S) // 2,
        )
        return selector.weights(rows, options)

    def _logged(self, token: TokenScores, reference_N: Tensor | None, weights_N: Tensor | None) -> dict[str, Tensor]:
        logged = {} if weights_N is None else {"tokens_kept": (weights_N > 0).double()}
        if token.entropy is not None and token.top1 is not None:
            logged |= {"entropy": token.entropy, "top1": token.top1}
        if reference_N is not None:
            logged["kl_estimate"] = kl_estimate(token.logps.detach(), reference_N)
        return logged
