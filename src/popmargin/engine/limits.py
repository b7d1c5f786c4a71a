"""How long a sequence may be before a model's numbers depend on what else is in the batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from popmargin.engine.trial import ERRORS, evaluating
from popmargin.errors import RunError

_OFFSET = 8  # some position tables start with an offset: RoBERTa's with two


@dataclass(frozen=True)
class Limit:
    """The longest sequence that a model can score.

    Attributes:
        tokens: its tokens, prompt included.
        reason: why longer ones cannot be scored.
    """

    tokens: int
    reason: str

    def check(self, tokens: int) -> None:
        """Refuse a sequence with this many tokens.

        Raises:
            RunError: it is too long.
        """
        if tokens > self.tokens:
            raise RunError(
                f"A sequence has {tokens:,} tokens, but the model takes at most {self.tokens:,}: {self.reason}."
            )


def context_limit(model: Any) -> Limit | None:
    """The original context of a model whose position encoding changes with the longest sequence in a batch.

    Dynamic NTK scaling and LongRoPE change all frequencies once a sequence is longer than that, also for shorter ones
    in the same batch, and dynamic scaling remembers the longest sequence of earlier batches.
    """
    config = model.config.get_text_config()
    rope: Any = getattr(config, "rope_parameters", None)
    if not isinstance(rope, Mapping):
        return None
    parts: list[Any] = [rope, *rope.values()]  # some models have parameters for each kind of layer
    limits: list[Limit] = []
    for part in parts:
        kind = str(part.get("rope_type")) if isinstance(part, Mapping) else ""
        tokens: Any = None
        if "dynamic" in kind:
            tokens = getattr(config, "max_position_embeddings", None)
        elif kind == "longrope":
            tokens = part.get("original_max_position_embeddings")
        if tokens is not None:
            reason = f"its {kind} position scaling would depend on the longest sequence in a batch"
            limits.append(Limit(int(tokens), reason))
    return min(limits, key=lambda limit: limit.tokens, default=None)


def token_count(model: Any) -> int:
    """How many token ids a model has, in both its embedding and its head."""
    counts = [model.get_input_embeddings().weight.shape[0]]
    head = model.get_output_embeddings()
    if head is not None:
        counts.append(head.weight.shape[0])
    return min(counts)


@torch.no_grad()
def too_long(model: Any, tokens: int) -> str | None:
    """Why a model cannot score a sequence with this many tokens, tried near its maximum; None if it can."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is None or tokens <= positions - _OFFSET:
        return None
    padding = getattr(model.config.get_text_config(), "pad_token_id", None)  # some models give it no position
    ids = torch.full((1, tokens), 1 if padding == 0 else 0, device=next(model.parameters()).device)
    try:
        with evaluating(model):
            float(model(input_ids=ids, use_cache=False).logits.sum())  # makes an accelerator's errors appear here
    except ERRORS as error:
        return f"it has {positions:,} positions ({str(error).strip().partition(chr(10))[0]})"
    return None
