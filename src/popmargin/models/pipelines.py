"""Text-to-image models in diffusers' format: a folder with a model_index.json and one folder for each part."""

import importlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]

from popmargin.engine.diffusion.schedules import Schedule
from popmargin.engine.logps import autocast
from popmargin.errors import ConfigError, RunError, import_extra
from popmargin.files import digest
from popmargin.models.denoisers import (
    Denoising,
    Text,
    encoded_rows,
    kind_of_denoiser,
    refuse_unknown_class,
    text_pipeline,
)
from popmargin.models.path import resolve_path
from popmargin.models.policies import device
from popmargin.models.quiet import quiet_loading
from popmargin.models.refusals import FAILURES, reason, refuse_pickles
from popmargin.safe_reading import read_json

INDEX = "model_index.json"
TRAINED = ("unet", "transformer")
"""Parts that are trained."""
_LIBRARIES = ("diffusers", "transformers")
_SKIPPED = ("safety_checker", "feature_extractor", "image_encoder")
_KEPT_PROMPTS = 1024
"""Prompts whose encodings are kept while images are sampled."""


@dataclass(frozen=True, eq=False)
class Pipeline:
    """The parts of a text-to-image model; those that are not trained are frozen.

    Attributes:
        path: as it was given.
        folder: on disk.
        parts: by name, without the trained one.
        name: of the trained part, `unet` or `transformer`.
        model: the trained part as it was loaded, frozen.
        size: height and width of its images in pixels.
    """

    path: str
    folder: Path
    parts: dict[str, Any]
    name: str
    model: nn.Module
    size: int

    @cached_property
    def kind(self) -> Denoising:
        """How the trained part takes its inputs."""
        return kind_of_denoiser(self.model, self.path)

    @cached_property
    def schedule(self) -> Schedule:
        """Signal and noise at every time."""
        return Schedule.of_scheduler(self.parts["scheduler"])

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return next(self.model.parameters()).device

    @property
    def vae(self) -> Any:
        """The autoencoder; None if latents are pixels."""
        return self.parts.get("vae")

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Of an image's latents: channels, height, width."""
        config: Any = self.model.config
        side, rest = divmod(self.size, _scale(self.vae))
        if rest:
            raise ConfigError(
                f"task.size {self.size} is not a multiple of {_scale(self.vae)}, by which the VAE of '{self.path}' "
                "reduces images."
            )
        return int(config.in_channels), side, side

    @torch.no_grad()
    def encode_images(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Latents of pixels from −1 to 1: the mean of the VAE's distribution, shifted and scaled."""
        if self.vae is None:
            return pixels
        found = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype))
        latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found[0]
        return (latents - _number(self.vae, "shift_factor", 0.0)) * _number(self.vae, "scaling_factor", 1.0)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Pixels of latents, from −1 to 1 (values beyond are possible)."""
        if self.vae is None:
            return latents
        scale, shift = _number(self.vae, "scaling_factor", 1.0), _number(self.vae, "shift_factor", 0.0)
        return self.vae.decode((latents / scale + shift).to(self.vae.dtype), return_dict=False)[0]

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Text:
        """Prompts as the trained part takes them, one row each."""
        with quiet_loading():
            return self.kind.encode(text_pipeline(self.kind, {**self.parts, self.name: self.model}), list(prompts),
                                    self.device)  # fmt: skip

    def cut_prompts(self, prompts: Sequence[str]) -> list[str]:
        """A sentence if prompts are longer than all text encoders take, so that their ends are not seen."""
        tokenizers = [part for name, part in self.parts.items() if name.startswith("tokenizer")]
        lengths = [[len(one(prompt, verbose=False)["input_ids"]) for prompt in prompts] for one in tokenizers]
        over = [[length > one.model_max_length for length in of] for one, of in zip(tokenizers, lengths, strict=True)]
        cut = sum(all(of_prompt) for of_prompt in zip(*over, strict=True))
        limit = max((int(one.model_max_length) for one in tokenizers), default=0)
        return (
            [f"prompts cut to the {limit} tokens that the text encoder takes: {cut} of {len(prompts)}"] if cut else []
        )

    def fingerprint(self, *names: str) -> str:
        """Hash of the weights and configurations of some parts; of all if none is named."""
        chosen = {**self.parts, self.name: self.model}
        chosen = {name: chosen[name] for name in sorted(chosen) if name in names or not names}
        return digest(*(f"{name}:{part_fingerprint(part)}".encode() for name, part in chosen.items()))

    @property
    def conditioning(self) -> list[str]:
        """Names of the text encoders and tokenizers."""
        return [name for name in self.parts if name.startswith(("text_encoder", "tokenizer"))]

    def denoiser(self, model: Any, precision: str = "fp32") -> "Denoiser":
        """The model for sampling: this pipeline with another model of the trained part."""
        return Denoiser(self, model, precision)


class Denoiser:
    """A text-to-image model as a sampler sees it.

    Args:
        pipeline: its other parts.
        model: the U-Net or transformer.
        precision: fp32 or bf16.
    """

    def __init__(self, pipeline: Pipeline, model: Any, precision: str = "fp32") -> None:
        self.pipeline, self.model, self.precision = pipeline, model, precision
        self._known: dict[str, Text] = {}

    @property
    def scheduler(self) -> Any:
        """The pipeline's scheduler."""
        return self.pipeline.parts["scheduler"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image's latents: channels, height, width."""
        return self.pipeline.shape

    @torch.no_grad()
    def predict(
        self, latents: Float[Tensor, "B C h w"], times: Float[Tensor, "B"], prompts: Sequence[str]
    ) -> Float[Tensor, "B C h w"]:
        """What the model predicts of noisy latents: noise, velocity, image or flow, as its scheduler says."""
        with self._autocast(latents):
            found = self.pipeline.kind.predict(self.model, latents, times.to(latents.dtype), self._text(prompts),
                                               self.pipeline.size)  # fmt: skip
        return found.to(latents.dtype)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Pixels from −1 to 1."""
        return self.pipeline.decode(latents)

    def _autocast(self, latents: Tensor) -> AbstractContextManager[Any]:
        return autocast(latents.device, self.precision)

    def _text(self, prompts: Sequence[str]) -> Text:
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        if new:
            if len(self._known) + len(new) > _KEPT_PROMPTS:
                self._known.clear()
                new = list(dict.fromkeys(prompts))
            text = self.pipeline.encode_prompts(new)
            self._known |= {prompt: encoded_rows(text, [row]) for row, prompt in enumerate(new)}
        each = [self._known[prompt] for prompt in prompts]
        return {name: torch.cat([one[name] for one in each]) for name in each[0]}


def load_pipeline(path: str, dtype: torch.dtype, *, size: int | None = None, dropout: bool = False) -> Pipeline:
    """A text-to-image model from a diffusers folder or a hub id, on the default accelerator.

    Args:
        path: of the folder, or a hub id.
        dtype: of the trained part's weights; the other parts are kept in fp32.
        size: height and width of the images in pixels; None for those that the model was trained on.
        dropout: keep the trained part's own dropout.

    Raises:
        RunError: it cannot be loaded, or is no text-to-image pipeline.
        ConfigError: its parts are of kinds that are not known.
        MissingExtraError: diffusers is not installed.
    """
    import_extra("diffusers", "images")
    folder = _folder(path)
    index = _index(folder, path)
    name = next((part for part in TRAINED if part in index), None)
    if name is None or "scheduler" not in index:
        raise RunError(f"'{path}' has no {' or '.join(TRAINED) if name is None else 'scheduler'} in its {INDEX}.")
    parts = {part: _load(folder, part, kind, path, dtype if part == name else torch.float32)
             for part, kind in index.items()}  # fmt: skip
    model = parts.pop(name)
    if not dropout:
        for module in model.modules():
            if isinstance(module, _DropoutNd):
                module.p = 0.0
    size = size or _own_size(model, parts.get("vae"), path)
    pipeline = Pipeline(path, folder, parts, name, model, size)
    _check(pipeline)
    return pipeline


def sketch_denoiser(path: str) -> nn.Module:
    """The trained part of a text-to-image model, of the right shapes, made from its configuration alone.

    Raises:
        RunError: it is no text-to-image pipeline, or its configuration cannot be read.
        MissingExtraError: diffusers is not installed.
    """
    diffusers = import_extra("diffusers", "images")
    folder = _folder(path)
    index = _index(folder, path)
    name = next((part for part in TRAINED if part in index), None)
    found: Any = None if name is None else getattr(diffusers, index[name][1], None)
    if name is None or not _is_module(found):
        raise RunError(f"'{path}' has no {' or '.join(TRAINED)} of diffusers' in its {INDEX}.")
    try:
        with quiet_loading():
            return found.from_config(found.load_config(folder / name))
    except FAILURES as error:
        raise RunError(f"The part '{name}' of '{path}' cannot be read: {reason(error)}") from error


def load_part(folder: Path, like: nn.Module, path: str, dtype: torch.dtype) -> nn.Module:
    """The trained part of a saved pipeline, of the class of another.

    Args:
        folder: of the part.
        like: the start model's.
        path: for messages.
        dtype: of its weights.

    Raises:
        RunError: it cannot be loaded.
    """
    kind = (type(like).__module__.partition(".")[0], type(like).__name__)
    return _load(folder.parent, folder.name, kind, path, dtype)


def part_fingerprint(part: Any) -> str:
    """Hash of a part's weights and configuration; of a tokenizer or scheduler, of its files' contents."""
    if isinstance(part, nn.Module):
        config: Any = part.config
        settings = config.to_diff_dict() if hasattr(config, "to_diff_dict") else dict(config)
        kept = {key: value for key, value in settings.items() if not key.startswith("_") and key != "dtype"}
        rows = [json.dumps(kept, sort_keys=True, default=str).encode()]
        for name, tensor in sorted(part.state_dict().items()):
            flat = tensor.detach().cpu().contiguous().flatten()
            rows += [f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode(), flat.view(torch.uint8).numpy().tobytes()]
        return digest(*rows)
    if hasattr(part, "get_vocab"):
        core = getattr(part, "backend_tokenizer", None)
        rules: Any = sorted(part.get_vocab().items())
        if core is not None:  # padding and truncation are those of its last use
            rules = {key: value for key, value in json.loads(core.to_str()).items()
                     if key not in ("padding", "truncation")}  # fmt: skip
        return digest(json.dumps([rules, part.model_max_length], default=str).encode())
    return digest(json.dumps(dict(part.config), sort_keys=True, default=str).encode())


def _folder(path: str) -> Path:
    place = Path(resolve_path(path))
    if place.is_dir():
        return place
    diffusers: Any = importlib.import_module("diffusers")
    try:
        with quiet_loading():
            return Path(diffusers.DiffusionPipeline.download(path, use_safetensors=True, trust_remote_code=False))
    except FAILURES as error:
        raise RunError(f"The text-to-image model '{path}' cannot be loaded: {reason(error)}") from error


def _index(folder: Path, path: str) -> dict[str, tuple[str, str]]:
    """Name → library and class of each part of a pipeline that images are made with."""
    file = folder / INDEX
    if not file.is_file():
        raise RunError(f"'{path}' is no text-to-image model: it has no {INDEX}. Give a folder that diffusers saved.")
    values: dict[str, Any] = read_json(file)
    pairs = {name: value for name, value in values.items() if isinstance(value, list) and name not in _SKIPPED}
    return {name: (str(value[0]), str(value[1])) for name, value in pairs.items() if value[0] is not None}


def _load(folder: Path, name: str, kind: tuple[str, str], path: str, dtype: torch.dtype) -> Any:
    library, class_name = kind
    found: Any = getattr(importlib.import_module(library), class_name, None) if library in _LIBRARIES else None
    if found is None:
        raise RunError(
            f"The part '{name}' of '{path}' is of the class {library}.{class_name}, which neither diffusers nor "
            "transformers has: code next to a model never runs here."
        )
    if not _is_part(found):
        raise RunError(
            f"The part '{name}' of '{path}' is of the class {library}.{class_name}, which is no model, tokenizer, "
            f"processor or scheduler. Write the class itself into {INDEX}: an Auto class may ask for code next to it."
        )
    if name in TRAINED:
        refuse_unknown_class(class_name, path)
    is_model = _is_module(found)
    if is_model:
        refuse_pickles(str(folder / name), f"{path}/{name}")
    names = {"diffusers": "torch_dtype", "transformers": "dtype"}
    options: dict[str, Any] = {names[library]: dtype, "use_safetensors": True} if is_model else {}
    options |= {"trust_remote_code": False} if library == "transformers" else {}
    try:
        with quiet_loading():
            part = found.from_pretrained(folder / name, **options)
    except FAILURES as error:
        raise RunError(f"The part '{name}' of '{path}' cannot be loaded: {reason(error)}") from error
    return part.to(device()).eval().requires_grad_(False) if is_model else part


def _is_module(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, nn.Module)


def _is_part(found: Any) -> bool:
    """Whether a class is one that only reads files; pipelines and Auto classes can run code that lies beside them."""
    transformers: Any = importlib.import_module("transformers")
    diffusers: Any = importlib.import_module("diffusers")
    readers = (
        transformers.PreTrainedTokenizerBase,
        transformers.ImageProcessingMixin,
        transformers.FeatureExtractionMixin,
        diffusers.SchedulerMixin,
    )
    return _is_module(found) or (isinstance(found, type) and issubclass(found, readers))


def _own_size(model: Any, vae: Any, path: str) -> int:
    found = model.config.get("sample_size")
    if isinstance(found, list | tuple):
        found = found[0] if len(set(found)) == 1 else None
    if not found:
        raise ConfigError(f"'{path}' does not say for which size of images it is. Set task.size, in pixels.")
    return int(found) * _scale(vae)


def _scale(vae: Any) -> int:
    """Pixels along a side of one latent."""
    if vae is None:
        return 1
    channels = vae.config.get("block_out_channels") or vae.config.get("encoder_block_out_channels")
    return 2 ** (len(channels) - 1)


def _number(vae: Any, name: str, default: float) -> float:
    value = vae.config.get(name)
    return default if value is None else float(value)


def _check(pipeline: Pipeline) -> None:
    """Check that the parts fit together."""
    _ = pipeline.kind, pipeline.schedule
    given = pipeline.shape[0]
    made = 3 if pipeline.vae is None else int(pipeline.vae.config.latent_channels)
    if given != made:
        raise ConfigError(
            f"The {pipeline.name} of '{pipeline.path}' takes {given} channels, but latents have {made}: it is not a "
            "model that makes images from prompts alone (inpainting and upscaling models are not trained here)."
        )
