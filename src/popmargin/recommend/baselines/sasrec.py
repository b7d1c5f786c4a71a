"""SASRec: self-attention over the history, and a softmax over all items whose table is that of the input.

Axis suffixes: B sequences, L places, T targets, D dimensions, I items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from popmargin.bounds import PartialShare, Positive, Size
from popmargin.data.ragged import Ragged
from popmargin.errors import RunError
from popmargin.recommend.baselines.base import Observed, baseline
from popmargin.recommend.denoising.item_denoiser import padded
from popmargin.recommend.item_softmax import sampled_softmax, whole_softmax
from popmargin.recommend.ranking_metrics import recall
from popmargin.recommend.ranks import rank_cases

_START = 0.02  # standard deviation of the table at first


@dataclass(frozen=True, kw_only=True)
class SASRecOptions:
    """Options of `sasrec`.

    Attributes:
        dimension: D.
        blocks: transformer blocks.
        heads: of the attention.
        dropout: share of inputs and hidden numbers that are dropped in training.
        length: the last items of a history that count.
        learning_rate: of AdamW.
        batch_size: sequences of an optimizer step.
        epochs: at most so many.
        patience: stop after so many epochs without a better validation recall@10, and keep the best weights.
        seed: of weights, order and dropout.
        sampled: items drawn for each batch that stand for all others in the softmax, with the log-q correction; an
            item is drawn in proportion to 1 + its occurrences in training. null for all items.
        output_gradient: the loss trains the table as output too. False is the public PreferDiff code's SASRec.
    """

    dimension: Size = 64
    blocks: Size = 2
    heads: Size = 2
    dropout: PartialShare = 0.2
    length: Size = 10
    learning_rate: Positive = 1e-3
    batch_size: Size = 256
    epochs: Size = 100
    patience: Size = 10
    seed: int = 0
    sampled: Size | None = None
    output_gradient: bool = True

    def __post_init__(self) -> None:
        if self.dimension % self.heads:
            raise ValueError(f"sasrec: {self.heads} heads do not divide the dimension {self.dimension}.")


class SASRec(nn.Module):
    """Blocks of causal attention over the items of a history (Kang & McAuley 2018), layer norm first.

    Args:
        items: size of the catalogue.
        options: see `SASRecOptions`.
    """

    def __init__(self, items: int, options: SASRecOptions) -> None:
        super().__init__()
        self.options = options
        width = options.dimension
        self.table = nn.Parameter(torch.randn(items + 1, width) * _START)
        self.places = nn.Parameter(torch.randn(options.length, width) * _START)
        self.dropout = nn.Dropout(options.dropout)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, options.heads, width, options.dropout, batch_first=True, norm_first=True, activation="relu"
            )
            for _ in range(options.blocks)
        )
        self.last = nn.LayerNorm(width)

    def forward(self, places_BL: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The state after each item; places after the last one change nothing before them."""
        length = places_BL.shape[1]
        x_BLD = self.dropout(self.table[places_BL] + self.places[:length])
        later = torch.ones(length, length, dtype=torch.bool, device=x_BLD.device).triu(1)
        for block in self.blocks:
            x_BLD = block(x_BLD, src_mask=later)
        return self.last(x_BLD)

    def loss(
        self,
        places_BL: Int[Tensor, "B L"],
        real_BL: Bool[Tensor, "B L"],
        *,
        chances_I: Float[Tensor, " I"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of every item but the first of its sequence, given those before it, nats.

        Args:
            places_BL, real_BL: sequences, from `padded`.
            chances_I: of each item to be drawn, for `sampled`; None sums over all items.
        """
        if places_BL.shape[1] < 2 or not real_BL[:, 1:].any():
            return self.table.sum() * 0.0  # no item has one before it
        states_TD = self(places_BL[:, :-1])[real_BL[:, 1:]]
        targets_T = places_BL[:, 1:][real_BL[:, 1:]] - 1
        table_ID = self.table[1:] if self.options.output_gradient else self.table[1:].detach()
        if chances_I is None or self.options.sampled is None:
            return whole_softmax(states_TD, table_ID, targets_T)
        sampled_S = torch.multinomial(chances_I, self.options.sampled, replacement=True)
        return sampled_softmax(states_TD, table_ID, targets_T, sampled_S, chances_I)

    @torch.no_grad()
    def scores(self, histories: Ragged, users: Sequence[str]) -> Float[np.ndarray, "B I"]:
        """Scores (B, I): logits after the last item."""
        places_BL, real_BL = (each.to(self.table.device) for each in padded(histories, self.options.length))
        states_BLD = self(places_BL)
        last_B = real_BL.sum(dim=1) - 1
        states_BD = states_BLD[torch.arange(len(last_B), device=last_B.device), last_B]
        return (states_BD @ self.table[1:].T).cpu().numpy()


@baseline("sasrec", options=SASRecOptions)
def fit_sasrec(observed: Observed, options: SASRecOptions) -> SASRec:
    """A transformer trained on every next item, with a softmax over the whole catalogue and one table for both ends.

    It stops on validation recall@10. Random numbers are its own: the same seed gives the same model.

    Raises:
        RunError: the loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        return _fitted(observed, options)


def _fitted(observed: Observed, options: SASRecOptions) -> SASRec:
    model = SASRec(observed.items, options)
    places_NL, real_NL = padded(observed.train, options.length + 1)
    counts = np.bincount(observed.train.values, minlength=observed.items + 1)[1:] + 1.0
    chances = None if options.sampled is None else torch.from_numpy(counts / counts.sum()).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.0, fused=True)
    best, waited = -1.0, 0
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(options.epochs):
        model.train()
        for rows in torch.randperm(len(places_NL)).split(options.batch_size):
            loss = model.loss(places_NL[rows], real_NL[rows], chances_I=chances)
            if not torch.isfinite(loss):
                raise RunError("sasrec: the loss is not finite. Lower learning_rate.")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        ranking = rank_cases(model, observed.valid, items=observed.items, count=1)
        found = float(recall(ranking.ranks, 10).mean())
        waited = waited + 1 if found <= best else 0
        if found > best:
            best, kept = found, {name: value.clone() for name, value in model.state_dict().items()}
        if waited >= options.patience:
            break
    model.load_state_dict(kept)
    return model.eval()
