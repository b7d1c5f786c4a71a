"""De-coupled log-probs: a model's logits moved away from another model's, without gradient.

Axis suffixes: N completion tokens, C a block of them, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK_ELEMENTS = 1_000_000  # of logits at once: they fit in the CPU cache
_BLOCK_ELEMENTS_ELSEWHERE = 32_000_000  # on accelerators: 128 MB in fp32, twice


@dataclass(frozen=True)
class Contrast:
    """Another model's logits of the same N tokens, from which a model's own are moved away.

    log p̃ = log softmax((1 + λ)·f − λ·f_other)   (Kim et al. 2025), the softmax over the vocabulary

    f are logits or log-probs: a constant added to all logits of a token changes nothing.

    Attributes:
        weight: λ.
        others: the other model's logits (C, V) of a slice of the tokens, fp32 or fp64.

    Example:
        >>> other = torch.tensor([[1.0, 0.5, -1.0]])
        >>> contrast = Contrast(0.5, lambda tokens: other[tokens])
        >>> own = torch.tensor([[2.0, 0.0, -1.0]])
        >>> found = contrast.label_logps(lambda tokens: own[tokens].clone(), torch.tensor([0]), 3)
        >>> round(found.item(), 6)  # the model's own log-prob is −0.169846
        -0.089955
    """

    weight: float
    others: Callable[[slice], Tensor]

    @torch.no_grad()
    def label_logps(
        self, own: Callable[[slice], Tensor], labels_N: Int[Tensor, "N"], vocabulary: int, *, start: int = 0
    ) -> Float[Tensor, "N"]:
        """log p̃ of labels (N,), nats, in blocks of a few.

        Args:
            own: the model's own logits (C, V) of a slice of the labels, fp32 or fp64; they are overwritten.
            labels_N: token ids (N,).
            vocabulary: V.
            start: position of the first label among the tokens of `others`.
        """
        elements = _BLOCK_ELEMENTS if labels_N.device.type == "cpu" else _BLOCK_ELEMENTS_ELSEWHERE
        size = max(1, elements // vocabulary)
        pieces: list[Tensor] = []
        for begin in range(0, max(len(labels_N), 1), size):
            labels = labels_N[begin : begin + size]
            other_CV = self.others(slice(start + begin, start + begin + len(labels)))
            mixed_CV = own(slice(begin, begin + len(labels))).mul_(1 + self.weight).sub_(other_CV, alpha=self.weight)
            pieces.append(mixed_CV.gather(-1, labels[:, None]).squeeze(-1) - mixed_CV.logsumexp(-1))
        return torch.cat(pieces)


def widened(logits: Tensor) -> Tensor:
    """The same in fp32, unchanged if it is fp32 or fp64."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
