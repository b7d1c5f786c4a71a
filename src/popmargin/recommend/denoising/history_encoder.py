"""The state of a history: one transformer block over the last items, as in PreferDiff's public code.

Axis suffixes: B histories, L places, D dimensions, H heads.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from popmargin.errors import ConfigError


class CausalAttention(nn.Module):
    """Causal attention with queries from one sequence, keys and values from another, and a residual of the queries.

    Args:
        dimension: D.
        heads: they must divide D.
        scale: scores are divided by √D ("published") or √(D / heads) ("head", the usual one).
        dropout: of the attention weights.
    """

    def __init__(self, dimension: int, heads: int, scale: Literal["published", "head"], dropout: float) -> None:
        super().__init__()
        if dimension % heads:
            raise ConfigError(f"{heads} heads do not divide the dimension {dimension}.")
        self.heads = heads
        self.divisor = math.sqrt(dimension if scale == "published" else dimension // heads)
        self.query, self.key, self.value = (nn.Linear(dimension, dimension) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries_BLD: Float[Tensor, "B L D"], items_BLD: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Attend from every place to it and to those before it."""
        queries, keys, values = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (self.query(queries_BLD), self.key(items_BLD), self.value(items_BLD))
        )
        scores = queries @ keys.transpose(-1, -2) / self.divisor  # (B, H, L, L)
        length = scores.shape[-1]
        later = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
        weights = self.dropout(scores.masked_fill(later, -torch.inf).softmax(dim=-1))
        return (weights @ values).transpose(1, 2).flatten(-2) + queries_BLD


class FeedForward(nn.Module):
    """Two linear maps of each place with a ReLU between, a residual and a layer norm; convolutions of width 1."""

    def __init__(self, dimension: int, dropout: float) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(dimension, dimension), nn.Linear(dimension, dimension)
        self.norm, self.dropout = nn.LayerNorm(dimension), nn.Dropout(dropout)

    def forward(self, x_BLD: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return self.norm(self.dropout(self.outer(torch.relu(self.inner(x_BLD)))) + x_BLD)


class HistoryEncoder(nn.Module):
    """One block: attention and a feed-forward part, each with the residuals of the public code.

    x·mask → y = Attention(LN(x), x) + LN(x) + x → z = FeedForward(LN(y))·mask + y → LN(z); the state is that of the
    last real place. Histories are left-aligned with nothing after their last item, and attention is causal, so places
    after the last item change nothing.

    Args:
        dimension: D.
        length: the longest history; only its last items count.
        heads, dropout: of the block.
        scale: as in `CausalAttention`.

    Example:
        >>> encoder = HistoryEncoder(8).eval()
        >>> vectors = torch.randn(1, 3, 8)
        >>> encoder(vectors, torch.tensor([[True, True, False]])).shape
        torch.Size([1, 8])
    """

    def __init__(
        self,
        dimension: int,
        *,
        length: int = 10,
        heads: int = 2,
        dropout: float = 0.1,
        scale: Literal["published", "head"] = "published",
    ) -> None:
        super().__init__()
        self.length = length
        self.places = nn.Embedding(length, dimension)
        self.dropout = nn.Dropout(dropout)
        self.before_attention, self.before_feed_forward, self.last = (nn.LayerNorm(dimension) for _ in range(3))
        self.attention = CausalAttention(dimension, heads, scale, dropout)
        self.feed_forward = FeedForward(dimension, dropout)

    def forward(self, vectors_BLD: Float[Tensor, "B L D"], real_BL: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """States of histories.

        Args:
            vectors_BLD: of their items, oldest first, at most `length`.
            real_BL: which places hold an item: the first ones of each row, at least one.
        """
        mask_BL1 = real_BL[..., None].to(vectors_BLD.dtype)
        places_LD = self.places.weight[: vectors_BLD.shape[1]]
        x_BLD = self.dropout(vectors_BLD + places_LD) * mask_BL1
        y_BLD = self.attention(self.before_attention(x_BLD), x_BLD) + x_BLD
        z_BLD = self.feed_forward(self.before_feed_forward(y_BLD)) * mask_BL1 + y_BLD
        last_B = real_BL.sum(dim=1) - 1
        return self.last(z_BLD[torch.arange(len(z_BLD), device=z_BLD.device), last_B])
