"""The whole model: item vectors, history encoder and denoiser; its errors in training, and how it ranks.

Axis suffixes: B rows, L places, D dimensions, I items, K negatives of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from popmargin.bounds import NotNegative, PartialShare, Size
from popmargin.data.ragged import Ragged
from popmargin.errors import ConfigError
from popmargin.recommend.denoising.denoiser import Denoiser
from popmargin.recommend.denoising.guided_sampler import fixed_noise, sample_vectors
from popmargin.recommend.denoising.history_encoder import HistoryEncoder
from popmargin.recommend.denoising.negatives import Negatives, negative_vectors
from popmargin.recommend.denoising.noise_levels import Grid, Schedule, noised, sampling_grid, signal_shares
from popmargin.recommend.denoising.vector_errors import VectorError, vector_error


@dataclass(frozen=True, kw_only=True)
class ItemDenoiserOptions:
    """Options of the model; the defaults are the public code's, but for the grid, which is that of training.

    Attributes:
        hidden: widths of the denoiser's hidden layers; none: linear, as published.
        length: the last items of a history that count.
        heads: of the encoder's attention.
        dropout: of the encoder.
        attention_scale: `published` divides scores by √D, `head` by √(D / heads).
        schedule: of the noise: `linear`, `scaled` to the number of steps, or `cosine`.
        steps: T of the schedule.
        grid: `trained` asks the denoiser at times it was trained on; `published` is off by one.
        points: of the grid of sampling.
        null_share: how often a row's state is replaced by the null state in training.
        guidance: w of sampling; 0 for none.
        error: of a predicted vector: (1 − cos)², 1 − cos, or the mean squared difference.
        negatives: the `centroid` of the other targets of the batch, the `hardest` of them, or `random` ones.
        negative_count: how many random ones a row has; their errors are averaged.
    """

    hidden: list[Size] = field(default_factory=list[int])
    length: Size = 10
    heads: Size = 2
    dropout: PartialShare = 0.1
    attention_scale: Literal["published", "head"] = "published"
    schedule: Schedule = "linear"
    steps: Size = 2000
    grid: Grid = "trained"
    points: Size = 20
    null_share: PartialShare = 0.1
    guidance: NotNegative = 2.0
    error: VectorError = "squared_cosine"
    negatives: Negatives = "centroid"
    negative_count: Size = 1

    def __post_init__(self) -> None:
        if not 0 <= self.null_share < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(f"null_share is {self.null_share} and dropout {self.dropout}; both are shares below 1.")
        if self.length < 1 or self.guidance < 0:
            raise ConfigError(f"length is {self.length}, 1 or more; guidance is {self.guidance}, 0 or more.")

    @property
    def negatives_per_row(self) -> int:
        """K."""
        return self.negative_count if self.negatives == "random" else 1


@dataclass(frozen=True)
class ErrorDraws:
    """What is random in the errors of a batch.

    Attributes:
        times: (B,), whole numbers from 0 on.
        null: rows whose state is replaced by the null state (B,).
        noise: of the targets (B, D).
        negative_noise: of the negatives (B, K, D).
    """

    times: Int[Tensor, " B"]
    null: Bool[Tensor, " B"]
    noise: Float[Tensor, "B D"]
    negative_noise: Float[Tensor, "B K D"]


def draw_errors(
    options: ItemDenoiserOptions, count: int, dimension: int, generator: torch.Generator | None = None
) -> ErrorDraws:
    """Random times, null states and noise for some rows, on the generator's device.

    Example:
        >>> draw_errors(ItemDenoiserOptions(), 2, 4, torch.Generator().manual_seed(0)).negative_noise.shape
        torch.Size([2, 1, 4])
    """
    device = None if generator is None else generator.device
    null_B = torch.rand(count, generator=generator, device=device) < options.null_share
    times_B = torch.randint(options.steps, (count,), generator=generator, device=device)
    noise_BD = torch.randn(count, dimension, generator=generator, device=device)
    negative_BKD = torch.randn(count, options.negatives_per_row, dimension, generator=generator, device=device)
    return ErrorDraws(times_B, null_B, noise_BD, negative_BKD)


@dataclass(frozen=True)
class Background:
    """Items that negatives come from in place of the batch, so that errors do not depend on what is batched together.

    Attributes:
        items: distinct item numbers (J,).
        counts: how often each counts (J,).
    """

    items: Int[Tensor, " J"]
    counts: Float[Tensor, " J"]

    def without(self, targets_B: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """The mean vector of all items but each row's target (B, 1, D), and which rows have one (B,)."""
        weights_BJ = self.counts * (self.items != targets_B[:, None])
        total_B1 = weights_BJ.sum(dim=1, keepdim=True)
        return ((weights_BJ @ table[self.items]) / total_B1.clamp(min=1))[:, None], total_B1[:, 0] > 0


@dataclass(frozen=True)
class DenoisingErrors:
    """Errors of a batch.

    Attributes:
        positive: ℓ⁺ of each row's target (B,).
        negative: ℓ⁻ of its negatives, their mean (B,); for a row that has none ℓ⁺ itself, so that their
            difference is 0 without a gradient.
        has_negative: whether the row has a negative (B,).
    """

    positive: Float[Tensor, " B"]
    negative: Float[Tensor, " B"]
    has_negative: Bool[Tensor, " B"]


class ItemDenoiser(nn.Module):
    """Denoises the next item's vector given a history.

    Args:
        items: size of the catalogue.
        dimension: D of vectors that are learned (N(0, 1) at first, which collapse at a small D); not with `vectors`.
        vectors: given vectors of all items (I, D), which are not trained.
        options: see `ItemDenoiserOptions`.

    Attributes:
        table: vectors of all items, row 0 for none (I + 1, D).
        given: they are not trained.

    Raises:
        ConfigError: both or none of dimension and vectors, or vectors of another number of items.

    Example:
        >>> model = ItemDenoiser(4, dimension=8).eval()
        >>> places, real = padded(Ragged.of([[1, 2], [3]]), model.options.length)
        >>> model.states(places, real).shape
        torch.Size([2, 8])
    """

    shares: Tensor
    table: Tensor
    given: bool

    def __init__(
        self,
        items: int,
        *,
        dimension: int | None = None,
        vectors: Float[np.ndarray, "I D"] | None = None,
        options: ItemDenoiserOptions | None = None,
    ) -> None:
        super().__init__()
        self.options = options or ItemDenoiserOptions()
        if (dimension is None) == (vectors is None):
            raise ConfigError("Give either the dimension of learned vectors, or vectors.")
        if vectors is not None and len(vectors) != items:
            raise ConfigError(f"There are {len(vectors)} vectors for {items} items.")
        if vectors is None:
            self.table = nn.Parameter(torch.randn(items + 1, dimension or 0))
        else:
            filled = torch.from_numpy(np.asarray(vectors, dtype=np.float32))
            self.register_buffer("table", torch.cat([torch.zeros(1, filled.shape[1]), filled]))
        self.given = vectors is not None
        width = self.table.shape[1]
        self.encoder = HistoryEncoder(
            width, length=self.options.length, heads=self.options.heads, dropout=self.options.dropout,
            scale=self.options.attention_scale,
        )  # fmt: skip
        self.denoiser = Denoiser(width, self.options.hidden)
        self.null = nn.Parameter(torch.randn(width))
        self.register_buffer("shares", signal_shares(self.options.schedule, self.options.steps), persistent=False)
        self.grid = sampling_grid(self.shares, self.options.points, self.options.grid)

    def item_vectors(self) -> Float[Tensor, "I D"]:
        """Vectors of items 1 to I."""
        return self.table[1:]

    def states(self, places_BL: Int[Tensor, "B L"], real_BL: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """States of histories; see `padded`."""
        return self.encoder(self.table[places_BL], real_BL)

    def forward(
        self,
        places_BL: Int[Tensor, "B L"],
        real_BL: Bool[Tensor, "B L"],
        targets_B: Int[Tensor, " B"],
        draws: ErrorDraws,
        *,
        rejected_B: Int[Tensor, " B"] | None = None,
        background: Background | None = None,
        generator: torch.Generator | None = None,
        without_negatives: bool = False,
    ) -> DenoisingErrors:
        """ℓ⁺ and ℓ⁻ of a batch: one time and state a row, and noise of its own for each vector.

        Args:
            places_BL, real_BL: histories, from `padded`.
            targets_B: item numbers.
            draws: what is random.
            rejected_B: item numbers of given negatives; 0 for a row whose negatives come from the batch.
            background: where negatives come from instead of the batch.
            generator: draws `random` negatives.
            without_negatives: ℓ⁻ is not needed (λ = 1).
        """
        states_BD = torch.where(draws.null[:, None], self.null, self.states(places_BL, real_BL))
        vectors_BD = self.table[targets_B]
        predicted_BD = self._predicted(vectors_BD, draws.noise, draws.times, states_BD)
        positive_B = vector_error(self.options.error, vectors_BD, predicted_BD)
        if without_negatives:
            return DenoisingErrors(positive_B, positive_B, torch.zeros_like(draws.null))
        if background is not None:
            negatives_BKD, some_B = background.without(targets_B, self.table)
        else:
            negatives_BKD, some_B = negative_vectors(
                self.options.negatives, targets_B, vectors_BD, count=self.options.negatives_per_row,
                predicted_BD=predicted_BD, generator=generator,
            )  # fmt: skip
        if rejected_B is not None:
            given_B = rejected_B > 0
            negatives_BKD = torch.where(given_B[:, None, None], self.table[rejected_B][:, None], negatives_BKD)
            some_B = some_B | given_B
        count, each = negatives_BKD.shape[:2]
        flat_BD, noise_BD = negatives_BKD.flatten(0, 1), draws.negative_noise[:, :each].flatten(0, 1)
        times_B, states_BD = draws.times.repeat_interleave(each), states_BD.repeat_interleave(each, dim=0)
        predicted_BD = self._predicted(flat_BD, noise_BD, times_B, states_BD)
        negative_B = vector_error(self.options.error, flat_BD, predicted_BD).unflatten(0, (count, each)).mean(dim=1)
        return DenoisingErrors(positive_B, torch.where(some_B, negative_B, positive_B), some_B)

    def _predicted(self, vectors_BD: Tensor, noise_BD: Tensor, times_B: Tensor, states_BD: Tensor) -> Tensor:
        return self.denoiser(noised(vectors_BD, noise_BD, self.shares[times_B]), states_BD, times_B)

    @torch.no_grad()
    def next_vectors(
        self, histories: Ragged, users: Sequence[str], *, seed: int = 0, draw: int = 0
    ) -> Float[Tensor, "B D"]:
        """Sampled vectors of the next items; the noise is fixed by user, seed and draw."""
        places_BL, real_BL = (each.to(self.table.device) for each in padded(histories, self.options.length))
        noise_BD = fixed_noise(users, self.table.shape[1], seed=seed, draw=draw).to(self.table.device)
        return sample_vectors(
            self.denoiser, self.states(places_BL, real_BL), self.null, noise_BD, self.grid,
            guidance=self.options.guidance,
        )  # fmt: skip


def padded(histories: Ragged, length: int) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """The last items of histories, left-aligned with zeros after them, and which places are real.

    Example:
        >>> padded(Ragged.of([[1, 2, 3], [4]]), 2)[0].tolist()
        [[2, 3], [4, 0]]
    """
    kept = np.minimum(histories.lengths, length)
    columns = np.arange(max(1, int(kept.max(initial=1))))
    real = columns[None] < kept[:, None]
    places = np.zeros(real.shape, dtype=np.int64)
    starts = histories.offsets[1:] - kept
    places[real] = histories.values[(starts[:, None] + columns[None])[real]]
    return torch.from_numpy(places), torch.from_numpy(real)


@dataclass(frozen=True)
class DenoisingRecommender:
    """A trained model as a recommender: the inner product of a sampled vector with every item's.

    Attributes:
        model: in evaluation mode.
        seed, draw: of the noise; each draw is another ranking.
    """

    model: ItemDenoiser
    seed: int = 0
    draw: int = 0

    def scores(self, histories: Ragged, users: Sequence[str]) -> Float[np.ndarray, "B I"]:
        """Scores (B, I)."""
        if self.model.training:
            raise ConfigError("The model is in training mode, where dropout is random: call model.eval().")
        vectors_BD = self.model.next_vectors(histories, users, seed=self.seed, draw=self.draw)
        with torch.no_grad():
            return (vectors_BD @ self.model.item_vectors().T).cpu().numpy()
