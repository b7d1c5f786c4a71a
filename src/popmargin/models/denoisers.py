"""The kinds of denoising models: how each takes noisy latents, times and prompts.

Axis suffix B: images.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from popmargin.errors import ConfigError
from popmargin.models.quiet import quiet_imports

Text = dict[str, Tensor]
"""What text encoders give for prompts, by name, one row a prompt."""


class Denoising(ABC):
    """A kind of denoising model.

    Attributes:
        pipeline: the diffusers pipeline whose code encodes prompts.
        part: the name of the model in its pipeline.
    """

    pipeline: str
    part: str = "transformer"

    @abstractmethod
    def encode(self, pipeline: Any, prompts: list[str], device: torch.device) -> Text:
        """Prompts as the model takes them."""

    @abstractmethod
    def inputs(self, text: Text, size: int) -> dict[str, Any]:
        """The model's arguments for encoded prompts, and images of `size` pixels."""

    def predict(
        self, model: Any, noisy: Float[Tensor, "B ..."], times_B: Float[Tensor, "B"], text: Text, size: int
    ) -> Float[Tensor, "B ..."]:
        """What the model predicts of noisy latents.

        Args:
            model: of this kind, with or without an adapter, wrapped or not.
            noisy: latents.
            times_B: as the model takes them.
            text: encoded prompts, one an image.
            size: height and width of the images in pixels.
        """
        predicted: Tensor = model(noisy, timestep=times_B, return_dict=False, **self.inputs(text, size))[0]
        return predicted[:, : noisy.shape[1]]  # some also predict a variance


class _StableDiffusion(Denoising):
    """U-Nets of Stable Diffusion 1 and 2."""

    pipeline, part = "StableDiffusionPipeline", "unet"

    def encode(self, pipeline: Any, prompts: list[str], device: torch.device) -> Text:
        return {"encoder_hidden_states": pipeline.encode_prompt(prompts, device, 1, False)[0]}

    def inputs(self, text: Text, size: int) -> dict[str, Any]:
        return dict(text)


class _StableDiffusionXL(Denoising):
    """U-Nets of Stable Diffusion XL, which also take a pooled text and the size of the image."""

    pipeline, part = "StableDiffusionXLPipeline", "unet"

    def encode(self, pipeline: Any, prompts: list[str], device: torch.device) -> Text:
        found = pipeline.encode_prompt(prompts, device=device, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": found[0], "text_embeds": found[2]}

    def inputs(self, text: Text, size: int) -> dict[str, Any]:
        pooled = text["text_embeds"]
        sizes = torch.tensor([size, size, 0, 0, size, size], dtype=pooled.dtype, device=pooled.device)
        added = {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}
        return {"encoder_hidden_states": text["encoder_hidden_states"], "added_cond_kwargs": added}


class _StableDiffusion3(Denoising):
    """Transformers of Stable Diffusion 3, which predict a flow."""

    pipeline = "StableDiffusion3Pipeline"

    def encode(self, pipeline: Any, prompts: list[str], device: torch.device) -> Text:
        found = pipeline.encode_prompt(prompts, None, None, device=device, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": found[0], "pooled_projections": found[2]}

    def inputs(self, text: Text, size: int) -> dict[str, Any]:
        return dict(text)


class _PixArt(Denoising):
    """Diffusion transformers of PixArt."""

    pipeline = "PixArtAlphaPipeline"

    def encode(self, pipeline: Any, prompts: list[str], device: torch.device) -> Text:
        found = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, device=device)
        return {"encoder_hidden_states": found[0], "encoder_attention_mask": found[1]}

    def inputs(self, text: Text, size: int) -> dict[str, Any]:
        return {**text, "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}


_KINDS: Mapping[str, Denoising] = {
    "UNet2DConditionModel": _StableDiffusion(),
    "SD3Transformer2DModel": _StableDiffusion3(),
    "PixArtTransformer2DModel": _PixArt(),
}


_KNOWN = (
    "Known are the U-Nets of Stable Diffusion 1, 2 and XL, and the transformers of Stable Diffusion 3 and of PixArt at "
    "one size: start from one of these."
)


def refuse_unknown_class(name: str, path: str) -> None:
    """Refuse the class of a denoising model before its weights are loaded.

    Raises:
        ConfigError: its inputs are not known, such as those of `FluxTransformer2DModel`.
    """
    if name not in _KINDS:
        raise ConfigError(
            f"'{path}' has a denoising model of the class {name}, whose inputs are not known here. {_KNOWN}"
        )


def kind_of_denoiser(model: Any, path: str) -> Denoising:
    """How a model takes its inputs.

    Args:
        model: the U-Net or transformer of a pipeline.
        path: of the pipeline, for messages.

    Raises:
        ConfigError: a kind that is not known.
    """
    name, config = type(model).__name__, model.config
    if name == "UNet2DConditionModel" and config.get("addition_embed_type") == "text_time":
        return _StableDiffusionXL()
    more = [key for key in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type") if config.get(key)]
    if config.get("use_additional_conditions"):
        raise ConfigError(
            f"'{path}' has a transformer of PixArt that is also told the size of each image "
            f"(use_additional_conditions), as those for 1024 pixels. {_KNOWN}"
        )
    refuse_unknown_class(name, path)
    if more:
        raise ConfigError(f"'{path}' has a denoising model with {more[0]}, whose inputs are not known here. {_KNOWN}")
    return _KINDS[name]


def text_pipeline(kind: Denoising, parts: Mapping[str, Any]) -> Any:
    """A diffusers pipeline that encodes prompts: with text encoders and tokenizers, without a VAE.

    Args:
        kind: of the denoising model.
        parts: of the pipeline, by name.
    """
    import diffusers

    with quiet_imports():
        made = getattr(diffusers, kind.pipeline)
    wanted = [name for name in inspect.signature(made.__init__).parameters if name != "self"]
    known = {name: part for name, part in parts.items() if name in wanted and name not in ("vae", "scheduler")}
    needed = {name: None for name in wanted if name in ("vae", "scheduler", "safety_checker", "feature_extractor")}
    needed |= {name: None for name in wanted if name.startswith(("text_encoder", "tokenizer", "unet", "transformer"))}
    extra = {"requires_safety_checker": False} if "requires_safety_checker" in wanted else {}
    return made(**{**needed, **known, **extra})


def encoded_rows(text: Text, rows: Sequence[int] | Tensor) -> Text:
    """Some rows of encoded prompts."""
    return {name: values[rows] for name, values in text.items()}
