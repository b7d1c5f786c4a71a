"""Scores of images: minus half the denoising error of each, on the same time and noise for all models.

Axis suffixes: P pairs, S = 2P images (chosen, then rejected), K fixed draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from popmargin.engine.diffusion.draws import Drawing, Draws, draw, one_of
from popmargin.engine.diffusion.inversion import Inversion, invert, inverted_noise
from popmargin.engine.diffusion.predictions import Levels, denoising_errors, noised, predicted_noise
from popmargin.engine.logps import autocast
from popmargin.engine.scores import PairScores, scores_of
from popmargin.models.pipelines import Pipeline
from popmargin.objectives.base import Logps, ScoreKind
from popmargin.tasks.image_options import ImagesOptions

FIXED = 0
"""Seed of draws that are the same in every run."""
TIME_PARTS = 4
"""Equal parts of all times in which d is logged."""


@dataclass(frozen=True, eq=False)
class Noised:
    """Pairs of images with noise, as a model is asked about them (S,)."""

    images: Float[Tensor, "S ..."]
    noise: Float[Tensor, "S ..."]
    noisy: Float[Tensor, "S ..."]
    times: Tensor
    levels: Levels
    text: dict[str, Tensor]


@dataclass(frozen=True)
class ImageScorer:
    """Scores of images by their denoising errors e, the mean over all elements: −e/2, or −(e − e_ref)/2.

    Attributes:
        pipeline: says how the model takes its inputs.
        kind: the score kind.
        precision: fp32 or bf16.
        options: of the task.
        reference: the frozen reference.
        wide: average over fixed draws, in double precision.
    """

    pipeline: Pipeline
    kind: ScoreKind
    precision: str
    options: ImagesOptions
    reference: nn.Module
    wide: bool = False

    @property
    def alone(self) -> bool:
        return False

    @property
    def fixed(self) -> int:
        """Fixed draws of every pair; 0 if they are drawn anew."""
        return self.options.evaluation_draws if self.wide else self.options.draws

    @property
    def inverts(self) -> bool:
        """Whether the loss is of the noise that the model itself finds, in training."""
        return self.options.noise.source == "inversion" and not self.wide

    @property
    def drawing(self) -> Drawing:
        """How pairs are drawn: with the empty prompt only in training."""
        options = self.options
        return Drawing(
            times=len(self.pipeline.schedule),
            shape=self.pipeline.shape,
            independent=options.noise.source == "independent" and not self.wide,
            one_time=options.time == "step" and not self.wide,
            empty=0.0 if self.wide else options.prompt_dropout,
        )

    def score(
        self, model: nn.Module, batch: Mapping[str, Any], generator: torch.Generator | None, *, log: bool = False
    ) -> PairScores:
        if self.wide:
            return self._of_errors(_means(self.fixed_errors(model, batch)), _means(batch.get("errors")))
        draws, known_S = self._draws(batch, FIXED if generator is None else generator.initial_seed())
        random = self._noised(batch, draws)
        asked = self._inverted(model, random) if self.inverts else random
        errors_S = self.errors(model, asked)
        reference_S = known_S
        if batch["live"]:
            with torch.no_grad():
                reference_S = self.errors(self.reference, asked)
        scores = self._of_errors(errors_S, reference_S)
        if not log:
            return scores
        if not self.inverts:
            return replace(scores, logged=self._values(errors_S.detach(), reference_S, draws))
        with torch.no_grad():
            errors_S = self.errors(model, random)
            live = known_S is None and batch["live"]
            reference_S = self.errors(self.reference, random) if live else known_S
        return replace(scores, logged=self._values(errors_S, reference_S, draws))

    def _draws(self, batch: Mapping[str, Any], seed: int) -> tuple[Draws, Tensor | None]:
        """The pairs' draws, and the reference's errors of the images (S,) if they are known."""
        keys = batch["keys"]
        if not self.fixed:
            return draw(keys, seed, self.drawing), None
        places = one_of(keys, seed, self.fixed)
        draws = draw(keys, FIXED, self.drawing, part=(places, self.fixed))
        if "errors" not in batch:
            return draws, None
        known_P2 = batch["errors"][torch.arange(len(keys)), torch.from_numpy(places)]
        return draws, known_P2.T.flatten()

    def fixed_errors(self, model: nn.Module, batch: Mapping[str, Any]) -> Float[Tensor, "P K 2"]:
        """Errors of both images of every pair under each of its fixed draws, in double precision."""
        found: list[Tensor] = []
        for place in range(self.fixed):
            draws = draw(batch["keys"], FIXED, self.drawing, part=(place, self.fixed))
            found.append(self.errors(model, self._noised(batch, draws)).double().view(2, -1).T)
        return torch.stack(found, 1)

    def errors(self, model: nn.Module, asked: Noised) -> Float[Tensor, "S"]:
        """Denoising errors of images."""
        options, schedule = self.options, self.pipeline.schedule
        return denoising_errors(
            schedule.prediction,
            self._predicted(model, asked.noisy, asked.times, asked.text),
            asked.images,
            asked.noise,
            asked.levels,
            space=options.space,
            snr_limit=options.snr_limit,
        )

    def _predicted(self, model: nn.Module, noisy: Tensor, times_S: Tensor, text: dict[str, Tensor]) -> Tensor:
        pipeline = self.pipeline
        times = pipeline.schedule.model_times(times_S).to(noisy.dtype)
        with autocast(noisy.device, self.precision):
            return pipeline.kind.predict(model, noisy, times, text, pipeline.size).to(noisy.dtype)

    def _noised(self, batch: Mapping[str, Any], draws: Draws) -> Noised:
        images = torch.cat([batch["chosen"], batch["rejected"]])
        device = images.device
        noise = torch.cat([draws.chosen, draws.rejected]).to(device, images.dtype, non_blocking=True)
        times = draws.times.repeat(2).to(device, non_blocking=True)
        levels = Levels(*(values.to(device) for values in self.pipeline.schedule.levels(draws.times.repeat(2))))
        empty_S = draws.empty.repeat(2).to(device)
        text: dict[str, Tensor] = {}
        for name, values in batch["text"].items():
            both, none = values.repeat(2, *[1] * (values.ndim - 1)), batch["empty"][name]
            text[name] = torch.where(empty_S.view(-1, *[1] * (values.ndim - 1)), none, both)
        return Noised(images, noise, noised(images, noise, levels), times, levels, text)

    def _inverted(self, model: nn.Module, asked: Noised) -> Noised:
        """The same images with the noise that the model itself finds for them."""
        own, schedule = self.options.noise, self.pipeline.schedule

        def predict(noisy: Tensor, times_S: Tensor) -> Tensor:
            predicted = self._predicted(model, noisy, times_S, asked.text)
            return predicted_noise(schedule.prediction, predicted, noisy, Levels(*schedule.levels(times_S)))

        how = Inversion(steps=own.steps, renoise=own.renoise, renoise_time=own.renoise_time, grid=own.grid)
        noisy = invert(asked.images, asked.times, predict, schedule, how)
        noise = inverted_noise(noisy, asked.images, asked.levels)
        return Noised(asked.images, noise, noisy, asked.times, asked.levels, asked.text)

    def _of_errors(self, errors_S: Tensor, reference_S: Tensor | None) -> PairScores:
        """Scores from errors of chosen, then rejected images."""
        chosen, rejected = (-errors_S / 2).chunk(2)
        references = (None, None) if reference_S is None else (-reference_S.to(errors_S.dtype) / 2).chunk(2)
        ones = torch.ones_like(chosen)  # an error is a mean over elements: there is nothing more to divide by
        logps = Logps(
            chosen=chosen,
            rejected=rejected,
            chosen_reference=references[0],
            rejected_reference=references[1],
            chosen_tokens=ones,
            rejected_tokens=ones,
        )
        return PairScores(*scores_of(self.kind, logps), logps)

    def _values(self, errors_S: Tensor, reference_S: Tensor | None, draws: Draws) -> dict[str, Tensor]:
        """Values to log, of random noise: on noise that the model found, its errors look better by construction."""
        if reference_S is None:
            return {}
        winner_P, loser_P = (errors_S.double() - reference_S.double()).chunk(2)
        d_P = winner_P - loser_P
        part_P = (draws.times * TIME_PARTS // len(self.pipeline.schedule)).to(d_P.device)
        values = {
            "winner_error_change": winner_P,
            "loser_error_change": loser_P,
            "won_by_loser_alone": ((d_P < 0) & (winner_P > 0)).double(),
            "implicit_accuracy": (d_P < 0).double() + 0.5 * (d_P == 0).double(),
            "d_mean": d_P,
            "d_square": d_P.square(),
        }
        return values | {f"d_time_{part + 1}": d_P.masked_fill(part_P != part, torch.nan) for part in range(TIME_PARTS)}


@overload
def _means(errors_PK2: Tensor) -> Tensor: ...
@overload
def _means(errors_PK2: None) -> None: ...
def _means(errors_PK2: Tensor | None) -> Tensor | None:
    """Means over draws of chosen, then rejected images (S,), in double precision."""
    return None if errors_PK2 is None else errors_PK2.double().mean(1).T.flatten()
