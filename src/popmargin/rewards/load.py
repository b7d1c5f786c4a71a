"""Rewards: what scores a completion. Python code, a reward model, a policy's log-ratio, or a judge on a server."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from popmargin.errors import ConfigError, RunError, did_you_mean
from popmargin.files import no_such_file
from popmargin.models.path import looks_like_path
from popmargin.rewards.base import CallableReward, Reward
from popmargin.rewards.image_rewards import CallableImageReward, ImageReward, scores_images
from popmargin.rewards.naming import Named, read_name
from popmargin.user_code import load_object

IMAGE_FORMS = "module:function, file.py:function or model:PATH"


def load_reward(spec: str | Callable[..., Any] | Reward, **options: Any) -> Reward:
    """A reward from its specification.

    Specifications (see `popmargin.rewards.naming`):
        "module:function", "file.py:function": a Python function, or an object with a `score` method;
        "model:PATH": a sequence-classification model with one output (options of `ModelReward`);
        "implicit:RUN", "implicit:RUN@REFERENCE": the log-ratio of a trained policy to its reference, or to another
            model (options of `ImplicitReward`);
        "judge:MODEL@URL": a model behind an OpenAI-compatible server that rates responses (options of `JudgeReward`);
            "judge:URL" if the option `model` names it;
        a function or a `Reward`: itself.

    Args:
        spec: the specification.
        options: of the reward model or the judge.

    Returns:
        The reward.

    Raises:
        ConfigError: the specification names nothing usable, a function does not take prompts and completions, or an
            option is unknown.

    Example:
        >>> shortness = load_reward(lambda prompts, completions: [-len(text) for text in completions])
        >>> shortness.score(["Say hi."], ["hi"])
        [-2.0]
    """
    if not isinstance(spec, str):
        return _of_code(spec, getattr(spec, "__qualname__", repr(spec)), options)
    named = read_name(spec)
    if named.kind == "ratings":
        raise ConfigError("'ratings' are the data's own and cannot rate completions. Name a reward, or omit it.")
    if named.kind == "model":
        if named.use == "judge":
            raise ConfigError(
                f"{spec!r} is a language model that compares responses, but single responses are rated here. Give "
                "model:PATH of a reward model, or judge:MODEL@URL."
            )
        from popmargin.rewards.reward_model import ModelReward

        return ModelReward(named.place, **_known(ModelReward, spec, options))
    if named.kind == "implicit":
        from popmargin.rewards.implicit import ImplicitReward

        if named.reference and options.get("reference", named.reference) != named.reference:
            raise ConfigError(
                f"{spec!r} names the reference '{named.reference}', and the option reference '{options['reference']}'. "
                "Give one of them."
            )
        given: dict[str, Any] = {"reference": named.reference} if named.reference else {}
        return ImplicitReward(named.place, **{**_known(ImplicitReward, spec, options), **given})
    if named.kind == "server":
        from popmargin.rewards.rating_judge import JudgeReward

        return JudgeReward(named.place, **_known(JudgeReward, spec, with_model(named, options)))
    return _of_code(load_object(named.place, "reward"), named.place, options)


def load_image_reward(spec: str | Callable[..., Any] | ImageReward, **options: Any) -> ImageReward:
    """A reward of images from its specification.

    Specifications:
        "module:function", "file.py:function": a Python function of (prompts, images), or an object with a
            `score_images` method; images are `PIL.Image.Image` in RGB;
        "model:PATH": a model with a text tower and an image tower, such as CLIP or PickScore (options of
            `ImageTextReward`), or an image classifier (options of `ImageClassifierReward`);
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
        return _code_of_images(spec, getattr(spec, "__qualname__", repr(spec)), options)
    named = read_name(spec)
    if named.kind == "model" and named.use != "judge":
        kind = _model_of_images(named.place)
        return kind(named.place, **_known(kind, spec, options))
    if named.kind != "code":
        raise ConfigError(
            f"{spec!r} scores texts, and the responses here are images. Give a reward of images: {IMAGE_FORMS}."
        )
    return _code_of_images(load_object(named.place, "reward"), named.place, options)


def loader(*, images: bool) -> Callable[..., Reward | ImageReward]:
    """What loads a reward: `load_image_reward`, or `load_reward` for texts."""
    return load_image_reward if images else load_reward


def check_reward(spec: str, options: Mapping[str, Any], *, images: bool = False) -> None:
    """Find mistakes in a specification or its options before any work; only user code is loaded.

    Args:
        spec, options: as in `load_reward`.
        images: the responses are images.

    Raises:
        ConfigError, RunError: as for `load_reward`; a folder of a model or run is missing.
    """
    named = read_name(spec)
    if (images and named.kind != "model") or named.kind in ("code", "ratings"):
        loader(images=images)(spec, **options)
        return
    for option in options:
        if option not in (known := _of_image_models() if images else option_names(spec)):
            raise ConfigError(f"Reward {spec!r} has no option '{option}'. {did_you_mean(option, known)}")
    if named.kind == "server":
        from popmargin.rewards.rating_judge import check_options

        with_model(named, options)
        check_options(options)
    elif named.kind in ("model", "implicit"):
        for path in filter(None, (named.place, named.reference)):
            if not Path(path).expanduser().exists() and looks_like_path(path):
                raise RunError(no_such_file(path, what="folder or model"))


def option_names(spec: str) -> list[str]:
    """Names of the options that a reward takes; none for Python code.

    Example:
        >>> option_names("implicit:runs/dpo")
        ['reference', 'per_token', 'tokens_per_batch', 'precision']
    """
    kind = read_name(spec).kind
    if kind == "server":
        from popmargin.rewards.rating_judge import JudgeReward

        return _keywords(JudgeReward)
    if kind == "implicit":
        from popmargin.rewards.implicit import ImplicitReward

        return _keywords(ImplicitReward)
    if kind == "model":
        from popmargin.rewards.reward_model import ModelReward

        return _keywords(ModelReward)
    return []


def _of_image_models() -> list[str]:
    """Names of the options that some model of images takes; which it is, only its files say."""
    from popmargin.rewards.image_classifier import ImageClassifierReward
    from popmargin.rewards.image_text import ImageTextReward

    return list(dict.fromkeys([*_keywords(ImageTextReward), *_keywords(ImageClassifierReward)]))


def _keywords(kind: type) -> list[str]:
    return [p.name for p in inspect.signature(kind).parameters.values() if p.kind is p.KEYWORD_ONLY]


def with_model(named: Named, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a server, with the model's name from the specification or from the option `model`.

    Raises:
        ConfigError: both name one, and they differ.
    """
    given = options.get("model", "")
    if named.model and given not in ("", named.model):
        raise ConfigError(
            f"The judge at {named.place} has the model '{named.model}' in its name but '{given}' in the option model. "
            "Give only one."
        )
    return {**options, "model": named.model or given}


def _of_code(target: Any, name: str, options: Mapping[str, Any]) -> Reward:
    """A function or an object with a `score` method as a reward."""
    if options:
        raise ConfigError(f"Reward {name!r} is Python code and takes no options, but got {', '.join(sorted(options))}.")
    if not isinstance(target, type) and isinstance(target, Reward):
        return target
    if scores_images(target):
        raise ConfigError(
            f"Reward {name!r} scores images, and the responses here are texts. Give a reward that takes prompts and "
            "completions, or set task: images, with a text-to-image model."
        )
    if callable(target):
        _check_signature(target, name)
        return CallableReward(target, name)
    raise ConfigError(
        f"Reward {name!r} is of type {type(target).__name__}; it must be a function or an object with a score method."
    )


def _check_signature(function: Callable[..., Any], name: str) -> None:
    try:
        inspect.signature(function).bind(prompts=[], completions=[])
    except (TypeError, ValueError) as error:  # built-in functions may have no signature
        raise ConfigError(
            f"Reward {name!r} cannot be called with prompts= and completions= ({error}). A reward takes both as "
            f"lists of equal length and returns one number per completion."
        ) from error


def _model_of_images(path: str) -> type[Any]:
    """The class of reward that a model of images is."""
    from popmargin.rewards.image_classifier import ImageClassifierReward, is_classifier
    from popmargin.rewards.image_text import ImageTextReward

    return ImageClassifierReward if is_classifier(path) else ImageTextReward


def _code_of_images(target: Any, name: str, options: dict[str, Any]) -> ImageReward:
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


def _known(kind: type, spec: str, options: dict[str, Any]) -> dict[str, Any]:
    names = _keywords(kind)
    for option in options:
        if option not in names:
            raise ConfigError(f"Reward {spec!r} has no option '{option}'. {did_you_mean(option, names)}")
    return options
