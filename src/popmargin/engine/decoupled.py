"""The reference's forward pass next to the policy's, if de-coupled log-probs need its full-vocabulary logits.

Axis suffixes: N completion tokens, H hidden size, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from popmargin.engine.contrast import Contrast, widened
from popmargin.engine.head import head_logits
from popmargin.engine.logps import ForwardPlan, autocast, completion_logits, head_replaced, model_inputs
from popmargin.engine.sequences import Layout, Sequences, longest_sequence


@dataclass(frozen=True)
class LiveReference:
    """A frozen reference that scores the policy's sequences in the same pass.

    Only its hidden states of completion tokens (N, H) are kept; logits are computed in chunks, with the policy's.

    Attributes:
        weight: λ, how far the policy's logits are moved away from the reference's.
        model: the reference, in evaluation mode.
        plan: of the reference; the sequences must be in a layout that it takes.
    """

    weight: float
    model: nn.Module
    plan: ForwardPlan

    @torch.no_grad()
    def contrast(self, sequences: Sequences, precision: str) -> Contrast:
        """The reference's logits of the completion tokens.

        Args:
            sequences: responses, as the policy sees them.
            precision: fp32 or bf16.

        Raises:
            RunError: a sequence is longer than the reference takes.
        """
        plan, positions_N = self.plan, sequences["label_positions"]
        if plan.limit is not None:
            plan.limit.check(longest_sequence(sequences))
        with autocast(positions_N.device, precision):
            if plan.head is None or plan.fused is None:
                logits_NV = completion_logits(self.model, model_inputs(sequences), plan.head, positions_N)
                return Contrast(self.weight, lambda tokens: widened(logits_NV[tokens]))
            head: Any = plan.head
            settings, made = plan.fused, list[Callable[[slice], Tensor]]()

            def keep(hidden_NH: Tensor) -> Tensor:
                made.append(head_logits(hidden_NH, head.weight, head.bias, settings))
                return hidden_NH[:, :1]  # the model's own logits are not used

            with head_replaced(head, positions_N, keep):
                self.model(**model_inputs(sequences))
        return Contrast(self.weight, made[0])


def taken_by_both(plan: ForwardPlan, other: ForwardPlan) -> ForwardPlan:
    """A model's plan in a layout that another model also takes."""
    layouts: tuple[Layout, ...] = ("packed", "padded", "alone")  # a model that takes one also takes those after it
    layout = max(plan.layout, other.layout, key=layouts.index)
    return replace(plan, layout=layout, lower=plan.lower if layout == "packed" else None)
