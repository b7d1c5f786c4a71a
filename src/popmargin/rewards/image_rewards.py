"""The protocol of rewards of images, and Python functions as such rewards."""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from popmargin.errors import RunError, counted
from popmargin.rewards.base import Prompt, checked_rewards
from popmargin.user_code import running

if TYPE_CHECKING:
    from PIL.Image import Image


@runtime_checkable
class ImageReward(Protocol):
    """Scores images; higher is better, in the reward's own unit."""

    def score_images(self, prompts: "list[Prompt]", images: "list[Image]") -> list[float]:
        """One finite number per image, in order.

        Args:
            prompts: that the images were made for.
            images: RGB.
        """
        ...


@runtime_checkable
class PartialImageReward(ImageReward, Protocol):
    """A reward that knows which images it could not score, where `score_images` must give a number for all."""

    def score_some_images(self, prompts: "list[Prompt]", images: "list[Image]") -> list[float]:
        """One number for each image, in order; nan where there is none."""
        ...


class CallableImageReward:
    """A Python function of (prompts, images) as a reward; its answers are checked.

    Args:
        function: called with prompts= and images=, returns one number for each image.
        name: for error messages.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._name = name

    def score_images(self, prompts: "list[Prompt]", images: "list[Image]") -> list[float]:
        """The function's rewards.

        Raises:
            RunError: the function fails, or returns the wrong number of values or a value that is not a finite number.
        """
        return checked_rewards(self._call(prompts, images), len(images), self._name, of="image")

    def score_some_images(self, prompts: "list[Prompt]", images: "list[Image]") -> list[float]:
        """The same; None and nan stand for no reward."""
        return checked_rewards(self._call(prompts, images), len(images), self._name, some=True, of="image")

    def _call(self, prompts: "list[Prompt]", images: "list[Image]") -> Any:
        check_image_rows(prompts, images)
        with running(f"reward '{self._name}'"):
            return self._function(prompts=prompts, images=images)


def scores_images(target: Any) -> bool:
    """Whether a reward, or a function that is to be one, is for images: it has `score_images`, or takes `images`.

    Example:
        >>> scores_images(lambda prompts, images: []), scores_images(lambda prompts, completions: [])
        (True, False)
    """
    if not isinstance(target, type) and isinstance(target, ImageReward):
        return True
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # no function, or a built-in one without a signature
        return False
    return "images" in parameters and "completions" not in parameters


def check_image_rows(prompts: "Sequence[Prompt]", images: "Sequence[Image]") -> None:
    """Refuse unequal numbers of prompts and images.

    Raises:
        RunError: the numbers differ.
    """
    if len(prompts) != len(images):
        raise RunError(
            f"{counted(len(prompts), 'prompt')} but {counted(len(images), 'image')}; give one prompt per image."
        )
