"""An image classifier as a reward: one output is the reward itself; of several labels, a probability."""

from typing import TYPE_CHECKING, Any

import torch

from popmargin.errors import ConfigError, RunError, did_you_mean
from popmargin.models.loading import load_pretrained
from popmargin.models.path import resolve_path
from popmargin.models.refusals import FAILURES, reason
from popmargin.rewards.base import Prompt, checked_rewards
from popmargin.rewards.image_rewards import check_image_rows

if TYPE_CHECKING:
    from PIL.Image import Image


def is_classifier(path: str) -> bool:
    """Whether a model's configuration says that it classifies images.

    Raises:
        ConfigError: there is no such model.
    """
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(resolve_path(path), trust_remote_code=False)
    except RunError as error:
        raise ConfigError(f"The image model {path} does not load: {error}") from error
    except FAILURES as error:
        raise ConfigError(f"The image model {path} does not load: {reason(error)}") from error
    return any(name.endswith("ForImageClassification") for name in config.architectures or ())


class ImageClassifierReward:
    """Scores images with AutoModelForImageClassification.

    A model with one output gives that output, such as an aesthetic score. One with several labels gives the probability
    of `label`, or else of the label that the prompt names: whether an image is still of the class it was asked for.

    Args:
        path: folder (or hub id) of the model and its image processor, weights in safetensors.
        label: whose probability is the reward; None takes the prompt, in any case.
        batch_size: images in one forward pass; the rewards do not depend on it.
        device: of the model.
        dtype: of the weights.

    Raises:
        ConfigError: nothing can be loaded from the path, the model is untrained, or it has no such label.
    """

    def __init__(
        self,
        path: str,
        *,
        label: str | None = None,
        batch_size: int = 16,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        if batch_size < 1:
            raise ConfigError(f"batch_size of the image model {path} is {batch_size}; give at least 1.")
        try:
            model, info = load_pretrained(
                AutoModelForImageClassification, path, "an image classifier", dtype=getattr(torch, dtype)
            )
            self._processor: Any = AutoImageProcessor.from_pretrained(
                resolve_path(path), backend="pil", trust_remote_code=False
            )
        except RunError as error:
            raise ConfigError(f"The image model {path} does not load: {error}") from error
        except FAILURES as error:
            raise ConfigError(f"{path} has no image processor that loads: {reason(error)}") from error
        if info["missing_keys"]:
            raise ConfigError(
                f"The image model {path} has no weights for {', '.join(sorted(info['missing_keys'])[:3])}: it is not "
                "trained, and its scores would be random. Use a trained classifier."
            )
        self._labels = {str(name).casefold(): place for place, name in sorted(model.config.id2label.items())}
        if label is not None and (model.config.num_labels == 1 or label.casefold() not in self._labels):
            raise ConfigError(f"The image model {path} has no label '{label}'. {did_you_mean(label, self._labels)}")
        self._model, self._path, self._label, self._batch_size = model.to(device).eval(), path, label, batch_size

    @torch.no_grad()
    def score_images(self, prompts: "list[Prompt]", images: "list[Image]") -> list[float]:
        """One reward per image.

        Raises:
            RunError: a prompt is no label, or a reward is not finite.
        """
        check_image_rows(prompts, images)
        places = [self._place(prompt) for prompt in prompts]
        rewards: list[float] = []
        for start in range(0, len(images), self._batch_size):
            batch = [image.convert("RGB") for image in images[start : start + self._batch_size]]
            pixels = self._processor(images=batch, return_tensors="pt")["pixel_values"]
            logits = self._model(pixel_values=pixels.to(self._model.device, self._model.dtype)).logits.float()
            values = logits if logits.shape[1] == 1 else logits.softmax(-1)
            rows = torch.arange(len(batch))
            rewards += values[rows, torch.tensor(places[start : start + len(batch)])].cpu().tolist()
        return checked_rewards(rewards, len(images), f"model:{self._path}", of="image")

    def _place(self, prompt: Prompt) -> int:
        if self._model.config.num_labels == 1:
            return 0
        name = str(prompt if self._label is None else self._label)
        if name.casefold() not in self._labels:
            raise RunError(
                f"The image model {self._path} has no label for the prompt {name!r:.80}. "
                f"{did_you_mean(name.casefold(), self._labels)} For one label of all images, set the option label."
            )
        return self._labels[name.casefold()]
