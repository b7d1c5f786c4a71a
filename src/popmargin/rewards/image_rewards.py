"""Rewards of images: a Python function, or a model with a text tower and an image tower."""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from popmargin.errors import ConfigError, RunError, counted, did_you_mean
from popmargin.rewards.base import Prompt, Reward, checked_rewards
from popmargin.rewards.naming import read_name
from popmargin.user_code import load_object, running

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_FORMS = "module:function, file.py:function or model:PATH"


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


def load_image_reward(spec: "str | Callable[..., Any] | ImageReward", **options: Any) -> ImageReward:
    """A reward of images from its specification.

    Specifications:
        "module:function", "file.py:function": a Python function of (prompts, images), or an object with a
            `score_images` method; images are `PIL.Image.Image` in RGB;
        "model:PATH": a model with a text tower and an image tower, such as CLIP or PickScore (options of
            `ImageTextReward`);
        a function or an `ImageReward`: itself.

    Args:
        spec: the specification.
        options: of the model.

    Raises:
        ConfigError: the specification names nothing usable, or something that scores texts.

    Example:
        >>> from PIL import Image
        >>> redness = load_image_reward(lambda prompts, images: [image.getpixel((0, 0))[0] for image in images])
        >>> redness.score_images(["a red dot"], [Image.new("RGB", (1, 1), (200, 0, 0))])
        [200.0]
    """
    if not isinstance(spec, str):
        return _of_code(spec, getattr(spec, "__qualname__", repr(spec)), options)
    named = read_name(spec)
    if named.kind == "model" and named.use != "judge":
        from popmargin.rewards.image_text import ImageTextReward

        return ImageTextReward(named.place, **checked_options(ImageTextReward, spec, options))
    if named.kind != "code":
        raise ConfigError(
            f"{spec!r} scores texts, and the responses here are images. Give a reward of images: {IMAGE_FORMS}."
        )
    return _of_code(load_object(named.place, "reward"), named.place, options)


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


def checked_options(kind: type, spec: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a reward's class, which its keyword-only arguments name.

    Raises:
        ConfigError: one is unknown.
    """
    parameters = inspect.signature(kind).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for option in options:
        if option not in names:
            raise ConfigError(f"Reward {spec!r} has no option '{option}'. {did_you_mean(option, names)}")
    return options


def check_image_rows(prompts: "Sequence[Prompt]", images: "Sequence[Image]") -> None:
    """Refuse unequal numbers of prompts and images.

    Raises:
        RunError: the numbers differ.
    """
    if len(prompts) != len(images):
        raise RunError(
            f"{counted(len(prompts), 'prompt')} but {counted(len(images), 'image')}; give one prompt per image."
        )


def _of_code(target: Any, name: str, options: dict[str, Any]) -> ImageReward:
    if options:
        raise ConfigError(f"Reward {name!r} is Python code and takes no options, but got {', '.join(sorted(options))}.")
    if not isinstance(target, type) and isinstance(target, ImageReward):
        return target
    if isinstance(target, Reward) or not callable(target):
        raise ConfigError(
            f"Reward {name!r} is of type {type(target).__name__} and does not score images; give a function of "
            "(prompts, images), or an object with a score_images method."
        )
    try:
        inspect.signature(target).bind(prompts=[], images=[])
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"Reward {name!r} cannot be called with prompts= and images= ({error}). The responses here are images: a "
            "reward takes prompts and PIL images as lists of equal length and returns one number per image."
        ) from error
    return CallableImageReward(target, name)
