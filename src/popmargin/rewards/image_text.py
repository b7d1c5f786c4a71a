"""A model with a text tower and an image tower as a reward of images: CLIP, SigLIP, PickScore and the like."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from popmargin.errors import ConfigError, RunError, counted
from popmargin.models.loading import load_pretrained, load_tokenizer_files
from popmargin.models.path import resolve_path
from popmargin.models.refusals import FAILURES, reason
from popmargin.rewards.base import Prompt, checked_rewards
from popmargin.rewards.image_rewards import check_image_rows

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageTextReward:
    """How well an image fits its prompt: exp(logit scale) · cos(text, image), plus the logit bias of models with one.

    That is the model's own `logits_per_image` for the pair; PickScore's published figures are on this scale. Any model
    of transformers works that has text features, image features and a logit scale. Images are resized and normalised as
    the model's preprocessor_config.json says, by Pillow.

    Args:
        path: folder (or hub id) of the model, its tokenizer and image processor, weights in safetensors.
        batch_size: images in one forward pass; the rewards do not depend on it.
        device: of the model.
        dtype: of the weights.

    Raises:
        ConfigError: nothing can be loaded from the path, or the model is of another kind or untrained.
    """

    def __init__(self, path: str, *, batch_size: int = 16, device: str = "cpu", dtype: str = "float32") -> None:
        from transformers import AutoImageProcessor, AutoModel

        if batch_size < 1:
            raise ConfigError(f"batch_size of the image model {path} is {batch_size}; give at least 1.")
        try:
            model, info = load_pretrained(AutoModel, path, "a model of texts and images", dtype=getattr(torch, dtype))
            missing_parts = [
                name for name in ("get_text_features", "get_image_features", "logit_scale") if not hasattr(model, name)
            ]
            if missing_parts:
                raise ConfigError(
                    f"{path} is a {type(model).__name__} without {', '.join(missing_parts)}, so it cannot score images "
                    "against prompts. Use a model such as CLIP, SigLIP or PickScore, or write a function of (prompts, "
                    "images)."
                )
            self._tokenizer = load_tokenizer_files(path)
            self._processor: Any = AutoImageProcessor.from_pretrained(
                resolve_path(path), backend="pil", trust_remote_code=False
            )
        except ConfigError:
            raise
        except RunError as error:
            raise ConfigError(f"The image model {path} does not load: {error}") from error
        except FAILURES as error:
            raise ConfigError(f"{path} has no image processor that loads: {reason(error)}") from error
        if info["missing_keys"]:
            missing = ", ".join(sorted(info["missing_keys"])[:3])
            raise ConfigError(
                f"The image model {path} has no weights for {missing}: it is not trained, and its scores would be "
                "random. Use a trained model of texts and images."
            )
        self._model = model.to(device).eval()
        known = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 10**9
        self._longest = min(self._tokenizer.model_max_length, known)
        self._path, self._batch_size = path, batch_size
        self._scored = self._cut = 0

    @torch.no_grad()
    def score_images(self, prompts: "list[Prompt]", images: "list[Image]") -> list[float]:
        """One reward per image.

        Raises:
            RunError: a prompt is a conversation, or a reward is not finite.
        """
        check_image_rows(prompts, images)
        talks = [row for row, prompt in enumerate(prompts) if not isinstance(prompt, str)]
        if talks:
            raise RunError(f"Prompt {talks[0]} is a conversation; models of images score plain prompts.")
        texts = list(dict.fromkeys(map(str, prompts)))
        places = {text: place for place, text in enumerate(texts)}
        of_texts = self._of_texts(texts, [str(prompt) for prompt in prompts])
        rewards: list[float] = []
        for start in range(0, len(images), self._batch_size):
            batch = images[start : start + self._batch_size]
            pixels = self._processor(images=[image.convert("RGB") for image in batch], return_tensors="pt")
            found = _features(self._model.get_image_features(**self._on_device(pixels)))
            rows = [places[str(prompt)] for prompt in prompts[start : start + len(batch)]]
            cosines = (found * of_texts[rows]).sum(-1)
            bias = getattr(self._model, "logit_bias", 0.0)
            rewards += (self._model.logit_scale.exp() * cosines + bias).float().cpu().reshape(-1).tolist()
        return checked_rewards(rewards, len(images), f"model:{self._path}", of="image")

    def take_notes(self) -> list[str]:
        """Number of prompts cut since the last call."""
        scored, cut = self._scored, self._cut
        self._scored = self._cut = 0
        what = f"prompts cut to the {counted(self._longest, 'token')} of the image model {self._path}"
        return [f"{what}: {cut} of {scored}"] if cut else []

    def _of_texts(self, texts: list[str], prompts: list[str]) -> Tensor:
        """Unit vectors of the distinct prompts, always padded to the longest that the model takes."""
        whole = {text: len(self._tokenizer(text, verbose=False)["input_ids"]) for text in texts}
        self._scored += len(prompts)
        self._cut += sum(whole[prompt] > self._longest for prompt in prompts)
        found: list[Tensor] = []
        for start in range(0, len(texts), self._batch_size):
            tokens = self._tokenizer(
                texts[start : start + self._batch_size],
                padding="max_length", truncation=True, max_length=self._longest, return_tensors="pt",
            )  # fmt: skip
            found.append(_features(self._model.get_text_features(**self._on_device(tokens))))
        return torch.cat(found) if found else torch.zeros(0, 1)

    def _on_device(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights: Any = self._model.logit_scale
        return {
            name: value.to(weights.device, weights.dtype if value.is_floating_point() else value.dtype)
            for name, value in batch.items()
        }


def _features(output: Any) -> Tensor:
    """Unit vectors (B, D) from what a tower returns."""
    return normalize(output if isinstance(output, Tensor) else output.pooler_output, dim=-1)
