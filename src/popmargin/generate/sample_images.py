"""Images for prompts, from a diffusion model: deterministic, each from noise of its own.

Axis suffixes: B images of a batch, C channels, H height, W width.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm.auto import tqdm

from popmargin.config import EvaluationConfig
from popmargin.data.images import encode_png, image_name
from popmargin.engine.trial import evaluating
from popmargin.errors import ConfigError, RunError
from popmargin.generate.drawn import DrawnImages
from popmargin.generate.own_draws import noise
from popmargin.generate.samples import Samples


@runtime_checkable
class Denoiser(Protocol):
    """A text-to-image model as the sampler sees it: latents are its own, or the pixels where there is no VAE."""

    @property
    def model(self) -> Any:
        """The U-Net or transformer."""
        ...

    @property
    def scheduler(self) -> Any:
        """The pipeline's scheduler, of which only the configuration is read."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image's latents: channels, height, width."""
        ...

    def predict(
        self, latents: Float[Tensor, "B C H W"], times: Float[Tensor, " B"], prompts: Sequence[str]
    ) -> Float[Tensor, "B C H W"]:
        """What the model predicts: noise, velocity, image or flow, as its scheduler says.

        Args:
            latents: noisy ones.
            times: as the scheduler counts them.
            prompts: one an image; the empty one for guidance.
        """
        ...

    def decode(self, latents: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3 H_pixels W_pixels"]:
        """Pixels from -1 to 1."""
        ...


@dataclass(frozen=True, kw_only=True)
class ImageSampling:
    """How images are sampled.

    Attributes:
        samples: images per prompt.
        denoising_steps: of the sampler.
        guidance_scale: of classifier-free guidance; 1 means none, at half the cost.
        batch_size: images at once.
        seed: of the noise.
    """

    samples: int = 1
    denoising_steps: int = 20
    guidance_scale: float = 1.0
    batch_size: int = 64
    seed: int = 0


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler is that of a flow, x_t = (1 - s)·x_0 + s·noise."""
    return type(scheduler).__name__.startswith("FlowMatch")


def sampler_of(scheduler: Any) -> Any:
    """diffusers' DDIM scheduler (η = 0), or its Euler scheduler for flows, with a scheduler's own configuration.

    Grid, betas, offsets and clipping are the pipeline's; predictions are not clipped where its scheduler does not say.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    if is_flow(scheduler):
        return FlowMatchEulerDiscreteScheduler.from_config(scheduler.config, stochastic_sampling=False)
    clips = bool(scheduler.config.get("clip_sample", False))
    return DDIMScheduler.from_config(scheduler.config, clip_sample=clips)


def drawn_by(denoiser: Denoiser, sampling: ImageSampling) -> DrawnImages:
    """How images of a model are drawn."""
    name = "flow Euler" if is_flow(denoiser.scheduler) else "DDIM"
    return DrawnImages(sampling.denoising_steps, sampling.guidance_scale, name)


class ImageSampler:
    """Sampling of images for some prompts, batch by batch.

    The noise of an image depends on seed, prompt and number alone, so that arms of a study begin from the same noise,
    and an image is the same in any batch but for rounding.

    Args:
        denoiser: of the model.
        prompts: texts.
        sampling: how to sample.
        keys: what says which prompt is which; None takes the prompts.

    Attributes:
        batches: places of the images that are sampled together; image `number` of a prompt has the place
            prompt · samples + number.
        drawn: how they are sampled.

    Raises:
        RunError: a prompt is a conversation.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        prompts: Sequence[Any],
        sampling: ImageSampling,
        *,
        keys: Sequence[str] | None = None,
    ) -> None:
        talks = [row for row, prompt in enumerate(prompts) if not isinstance(prompt, str)]
        if talks:
            raise RunError(f"Prompt {talks[0]} is a conversation; images are sampled for prompts that are texts.")
        self._denoiser, self._prompts, self._sampling = denoiser, list(prompts), sampling
        self._keys = list(prompts if keys is None else keys)
        total, size = len(prompts) * sampling.samples, sampling.batch_size
        self.batches = [list(range(start, min(start + size, total))) for start in range(0, total, size)]
        self.drawn = drawn_by(denoiser, sampling)
        self._scheduler = sampler_of(denoiser.scheduler)

    @torch.no_grad()
    def draw(self, places: Sequence[int]) -> list[UInt8[np.ndarray, "H W 3"]]:
        """The images of a batch, as RGB pixels.

        Args:
            places: of the images, as in `batches`.

        Raises:
            RunError: the model gives something other than finite numbers.
        """
        sampling, denoiser = self._sampling, self._denoiser
        numbers = [divmod(place, sampling.samples) for place in places]
        prompts = [self._prompts[prompt] for prompt, _ in numbers]
        own = [noise(sampling.seed, self._keys[prompt], number, denoiser.shape) for prompt, number in numbers]
        weights: Any = next(denoiser.model.parameters())
        x_BCHW = torch.from_numpy(np.stack(own)).to(weights.device)
        scheduler = copy.deepcopy(self._scheduler)  # it counts its steps
        self._set_steps(scheduler, weights.device)
        with evaluating(denoiser.model):
            for time in scheduler.timesteps:
                x_BCHW = scheduler.step(self._guided(x_BCHW, time, prompts), time, x_BCHW).prev_sample
            pixels_B3HW = denoiser.decode(x_BCHW).float()
        finite = pixels_B3HW.flatten(1).isfinite().all(1).tolist()
        if not all(finite):
            raise RunError(
                f"The image for {prompts[finite.index(False)]!r} is not made of finite numbers: the model has "
                "diverged. Train it with a lower learning rate, or sample with less guidance."
            )
        levels = ((pixels_B3HW / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        return list(levels.permute(0, 2, 3, 1).cpu().numpy())

    def check(self) -> None:
        """Check that the scheduler has as many steps as are asked for; nothing is sampled.

        Raises:
            ConfigError: it has not.
        """
        self._set_steps(copy.deepcopy(self._scheduler), "cpu")

    def _set_steps(self, scheduler: Any, device: Any) -> None:
        steps, most = self._sampling.denoising_steps, int(scheduler.config.num_train_timesteps)
        try:
            scheduler.set_timesteps(steps, device=device, **self._shift())
        except ValueError as error:
            raise ConfigError(
                f"denoising_steps {steps:,} does not fit the scheduler of the model: {error}. Set at most {most:,}; 20 "
                "to 50 are usual."
            ) from error

    def _guided(self, x_BCHW: Tensor, time: Tensor, prompts: list[str]) -> Tensor:
        scale, times_B = self._sampling.guidance_scale, time.to(x_BCHW.dtype).expand(len(x_BCHW))
        if scale == 1:
            return self._denoiser.predict(x_BCHW, times_B, prompts)
        both = self._denoiser.predict(
            torch.cat([x_BCHW, x_BCHW]), torch.cat([times_B, times_B]), [""] * len(prompts) + prompts
        )
        without_BCHW, with_BCHW = both.chunk(2)
        return without_BCHW + scale * (with_BCHW - without_BCHW)

    def _shift(self) -> dict[str, float]:
        """The shift of a flow's times that depends on the size of the image, if its scheduler has one."""
        config = self._scheduler.config
        if not config.get("use_dynamic_shifting"):
            return {}
        _, height, width = self._denoiser.shape
        tokens = height * width // int(getattr(self._denoiser.model.config, "patch_size", 1)) ** 2
        least, most = config["base_image_seq_len"], config["max_image_seq_len"]
        slope = (config["max_shift"] - config["base_shift"]) / (most - least)
        return {"mu": config["base_shift"] + slope * (tokens - least)}


def sample_images(
    denoiser: Denoiser,
    prompts: Sequence[Any],
    sampling: ImageSampling,
    *,
    progress: bool = False,
    keys: Sequence[str] | None = None,
) -> list[UInt8[np.ndarray, "H W 3"]]:
    """Images for prompts as RGB pixels, all samples of a prompt one after the other; see `ImageSampler`.

    Args:
        denoiser: of the model.
        prompts: texts.
        sampling: how to sample.
        progress: show a progress bar.
        keys: as in `ImageSampler`.
    """
    sampler = ImageSampler(denoiser, prompts, sampling, keys=keys)
    found: list[np.ndarray] = []
    for places in tqdm(sampler.batches, desc="sampling images", disable=not progress):
        found += sampler.draw(places)
    return found


def check_sampling_of_images(denoiser: Denoiser, settings: EvaluationConfig) -> None:
    """Check before training that the model can be sampled as a run's evaluation says.

    Raises:
        ConfigError: `denoising_steps` does not fit its scheduler.
    """
    ImageSampler(denoiser, [], _sampling(settings)).check()


def _sampling(settings: EvaluationConfig) -> ImageSampling:
    return ImageSampling(
        samples=settings.samples,
        denoising_steps=settings.denoising_steps,
        guidance_scale=settings.guidance_scale,
        batch_size=settings.generation_batch_size,
        seed=settings.seed,
    )


def image_samples(
    denoiser: Denoiser,
    prompts: Sequence[Any],
    settings: EvaluationConfig,
    *,
    progress: bool = False,
    keys: Sequence[str] | None = None,
) -> Samples:
    """What a task's `sample` gives: images for held-out prompts, as a run's evaluation says.

    Args:
        denoiser: of the model that samples.
        prompts: texts.
        settings: how to sample.
        progress: show a progress bar.
        keys: as in `ImageSampler`.
    """
    sampling = _sampling(settings)
    files = [encode_png(pixels) for pixels in sample_images(denoiser, prompts, sampling, progress=progress, keys=keys)]
    names = [image_name(file) for file in files]
    return Samples(texts=names, drawn=drawn_by(denoiser, sampling), images=files)
