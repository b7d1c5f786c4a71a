"""Sampling of images: exact against diffusers, the same in any batch, from noise that belongs to prompt and number."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from popmargin.config import EvaluationConfig
from popmargin.data.images import encode_png, image_name
from popmargin.errors import ConfigError, RunError
from popmargin.generate.drawn import DrawnImages
from popmargin.generate.own_draws import noise
from popmargin.generate.sample_images import ImageSampler, ImageSampling, image_samples, sample_images

WORDS = ["", "red 3", "blue 7", "green 1"]


@dataclass
class Pixels:
    """A tiny U-Net on pixels, whose prompts are rows of a table."""

    model: Any
    scheduler: Any
    table: Tensor
    vae: Any = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.model.config.in_channels, 8, 8

    def predict(self, latents: Tensor, times: Tensor, prompts: Sequence[str]) -> Tensor:
        seen = self.table[[WORDS.index(prompt) for prompt in prompts]]
        return self.model(latents, times, encoder_hidden_states=seen).sample

    def decode(self, latents: Tensor) -> Tensor:
        return latents if self.vae is None else self.vae.decode(latents / self.vae.config.scaling_factor).sample


def denoiser(scheduler: Any = None, *, latents: bool = False) -> Pixels:
    torch.manual_seed(0)
    channels, vae = 3, None
    if latents:
        channels, vae = (
            4,
            diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, scaling_factor=0.5).eval(),
        )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=channels, out_channels=channels, block_out_channels=(8, 8), layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8, attention_head_dim=4,
    ).eval()  # fmt: skip
    return Pixels(unet, scheduler or diffusers.DDPMScheduler(clip_sample=False), torch.randn(len(WORDS), 2, 8), vae)


def test_the_noise_belongs_to_seed_prompt_and_number() -> None:
    same = noise(1, "red 3", 0, (3, 8, 8))
    assert (same == noise(1, "red 3", 0, (3, 8, 8))).all()
    for other in (noise(2, "red 3", 0, (3, 8, 8)), noise(1, "red 3", 1, (3, 8, 8)), noise(1, "red 4", 0, (3, 8, 8))):
        assert not (same == other).any()
    many = noise(0, "x", 0, (50, 50, 50))
    assert abs(many.mean()) < 0.01
    assert abs(many.std() - 1) < 0.01


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_an_image_is_the_same_alone_and_in_any_batch(guidance: float) -> None:
    model, prompts = denoiser(), WORDS[1:]

    def images(prompts: list[str], batch_size: int, samples: int = 3) -> list[np.ndarray]:
        sampling = ImageSampling(samples=samples, denoising_steps=4, guidance_scale=guidance, batch_size=batch_size)
        return sample_images(model, prompts, sampling)

    alone, together = images(prompts, 1), images(prompts, 8)
    assert len(alone) == 9
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(alone, together, strict=True)) <= 1
    turned, fewer = images(prompts[::-1], 2), images(prompts, 9, samples=1)
    assert np.abs(turned[0].astype(int) - alone[6]).max() <= 1
    assert np.abs(fewer[1].astype(int) - alone[3]).max() <= 1
    assert all((a == b).all() for a, b in zip(together, images(prompts, 8), strict=True))
    assert not (alone[0] == alone[1]).all()
    assert not (alone[0] == alone[3]).all()


def stable_diffusion(model: Pixels, start: Tensor, steps: int, guidance: float, prompt: str) -> np.ndarray:
    """The same with diffusers' own pipeline, prompts given as embeddings."""
    scheduler = diffusers.DDIMScheduler.from_config(model.scheduler.config)
    pipe = diffusers.StableDiffusionPipeline(
        model.vae, None, None, model.model, scheduler, None, None, requires_safety_checker=False
    )  # type: ignore
    pipe.set_progress_bar_config(disable=True)
    shown = pipe(
        prompt_embeds=model.table[[WORDS.index(prompt)]],
        negative_prompt_embeds=model.table[[0]],
        latents=start,
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="np",
    )
    return shown.images[0]


@pytest.mark.parametrize("target", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(("guidance", "spacing"), [(1.0, "leading"), (4.0, "trailing")])
def test_images_are_those_of_diffusers_pipeline(target: str, guidance: float, spacing: str) -> None:
    scheduler = diffusers.DDIMScheduler(
        prediction_type=target,
        timestep_spacing=spacing,
        beta_schedule="squaredcos_cap_v2",
        clip_sample=False,
        steps_offset=1,
    )
    model = denoiser(scheduler, latents=True)
    sampling = ImageSampling(samples=2, denoising_steps=5, guidance_scale=guidance, seed=7)
    found = sample_images(model, ["blue 7"], sampling)[1]
    start = torch.from_numpy(noise(7, "blue 7", 1, (4, 8, 8)))[None]
    expected = stable_diffusion(model, start, 5, guidance, "blue 7")
    assert np.abs(found / 255 - expected).max() <= 0.5 / 255 + 1e-5
    assert np.ptp(found) > 50


def test_flows_are_integrated_by_euler_steps() -> None:
    """x ← x + (s' - s)·u along s = 1 … 0, shifted as the scheduler says."""
    model = denoiser(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))
    found = sample_images(model, ["red 3"], ImageSampling(denoising_steps=4))[0]
    least = 3 * 0.001 / (1 + 2 * 0.001)  # diffusers' grid ends at its shifted σ_min, is shifted again, and then 0
    sigmas = torch.linspace(1, least, 4)
    sigmas = torch.cat([3 * sigmas / (1 + 2 * sigmas), torch.zeros(1)])
    x = torch.from_numpy(noise(0, "red 3", 0, (3, 8, 8)))[None]
    with torch.no_grad():
        for now, then in itertools.pairwise(sigmas):
            x = x + (then - now) * model.predict(x, (1000 * now)[None], ["red 3"])
    expected = ((x[0] / 2 + 0.5).clamp(0, 1) * 255).permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 0.5 + 1e-2
    assert ImageSampler(model, ["red 3"], ImageSampling(denoising_steps=4)).drawn == DrawnImages(4, 1.0, "flow Euler")


def test_a_flow_whose_shift_depends_on_the_size_is_sampled_as_its_pipeline_does() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=16, max_image_seq_len=256
    )
    sampler = ImageSampler(denoiser(scheduler), ["red 3"], ImageSampling(denoising_steps=3))
    assert sampler._shift() == pytest.approx({"mu": 0.5 + 0.65 / 240 * (64 - 16)})
    assert sampler.draw([0])[0].shape == (8, 8, 3)


def test_predictions_are_clipped_only_where_the_scheduler_says_so() -> None:
    """PNDM, which Stable Diffusion ships, says nothing of it; DDIM of diffusers would clip by default."""
    from popmargin.generate.sample_images import sampler_of

    assert not sampler_of(diffusers.PNDMScheduler()).config["clip_sample"]
    assert sampler_of(diffusers.DDPMScheduler()).config["clip_sample"]
    assert sampler_of(diffusers.PNDMScheduler(steps_offset=1)).config["steps_offset"] == 1


def test_what_cannot_be_an_image_is_an_error() -> None:
    model = denoiser()
    with pytest.raises(RunError, match="Prompt 1 is a conversation"):
        ImageSampler(model, ["red 3", [{"role": "user", "content": "x"}]], ImageSampling())
    with torch.no_grad():
        model.model.conv_in.bias.fill_(float("nan"))
    with pytest.raises(RunError, match="The image for 'red 3' is not made of finite numbers: the model has diverged"):
        sample_images(model, ["red 3"], ImageSampling(denoising_steps=1))


def test_more_steps_than_the_scheduler_has_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"denoising_steps 5,000 does not fit the scheduler.* Set at most 1,000"):
        sample_images(denoiser(), WORDS[1:], ImageSampling(denoising_steps=5_000))


def test_a_task_samples_as_the_evaluation_says() -> None:
    """The names of the images are those of their files, and there is no log-ratio: it is unknown."""
    model = denoiser()
    settings = EvaluationConfig(samples=2, denoising_steps=3, guidance_scale=2.0, seed=5, generation_batch_size=3)
    found = image_samples(model, ["red 3", "blue 7"], settings)
    sampling = ImageSampling(samples=2, denoising_steps=3, guidance_scale=2.0, seed=5, batch_size=3)
    expected = [encode_png(pixels) for pixels in sample_images(model, ["red 3", "blue 7"], sampling)]
    assert found.images == expected
    assert found.texts == [image_name(file) for file in expected]
    assert found.drawn == DrawnImages(3, 2.0)
    assert found.lengths is None
    assert found.finished is None
    assert found.log_ratio is None
