"""Rewards: what scores a completion. A Python callable, a reward model, or a judge behind an HTTP server."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from popmargin.errors import ConfigError, did_you_mean
from popmargin.rewards.base import CallableReward, Reward
from popmargin.user_code import load_object


def load_reward(spec: str | Callable[..., Any] | Reward, **options: Any) -> Reward:
    """A reward from its specification.

    Specifications:
        "module:function": a Python function, or an object with a `score` method, from an importable module, from the
            working directory, or from a file ("rewards.py:function");
        "model:PATH": a sequence-classification model with one output (options of `ModelReward`);
        "judge:URL": an OpenAI-compatible server that rates responses (options of `JudgeReward`; `model` is needed);
        a function or a `Reward`: itself.

    Args:
        spec: the specification.
        options: of the reward model or the judge.

    Returns:
        The reward.

    Raises:
        ConfigError: the specification names nothing that can be used, a function does not take prompts and completions,
            or an option is unknown.

    Example:
        >>> shortness = load_reward(lambda prompts, completions: [-len(text) for text in completions])
        >>> shortness.score(["Say hi."], ["hi"])
        [-2.0]
    """
    if isinstance(spec, str):
        _refuse_two_meanings(spec)
    if isinstance(spec, str) and spec.startswith("model:"):
        from popmargin.rewards.reward_model import ModelReward

        return ModelReward(spec.removeprefix("model:"), **_known(ModelReward, spec, options))
    if isinstance(spec, str) and spec.startswith("judge:"):
        from popmargin.rewards.rating_judge import JudgeReward

        return JudgeReward(spec.removeprefix("judge:"), **_known(JudgeReward, spec, options))
    if options:
        raise ConfigError(f"Reward {spec!r} is Python code and takes no options, but got {', '.join(sorted(options))}.")
    target = load_object(spec, "reward") if isinstance(spec, str) else spec
    name = spec if isinstance(spec, str) else getattr(spec, "__qualname__", repr(spec))
    if not isinstance(target, type) and isinstance(target, Reward):
        return target
    if callable(target):
        _check_signature(target, name)
        return CallableReward(target, name)
    raise ConfigError(
        f"Reward {name!r} is a {type(target).__name__}; it must be a function or an object with a score method."
    )


def _refuse_two_meanings(spec: str) -> None:
    """A user's own model.py or judge.py in the working directory would be taken for a model or a server."""
    kind, _, rest = spec.partition(":")
    if kind in ("model", "judge") and rest.isidentifier() and Path(f"{kind}.py").is_file() and not Path(rest).exists():
        raise ConfigError(
            f"Reward {spec!r} names a {'model' if kind == 'model' else 'server'}, but there is also a file {kind}.py "
            f"here. For your function: '{kind}.py:{rest}'. For the {kind}: rename the file."
        )


def _check_signature(function: Callable[..., Any], name: str) -> None:
    try:
        inspect.signature(function).bind(prompts=[], completions=[])
    except (TypeError, ValueError) as error:  # built-in functions may tell no signature
        raise ConfigError(
            f"Reward {name!r} cannot be called with prompts= and completions= ({error}). A reward takes both as "
            "lists of equal length and returns one number per completion."
        ) from error


def _known(kind: type, spec: str, options: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(kind).parameters.values()
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in names:
            raise ConfigError(f"Reward {spec!r} has no option '{option}'. {did_you_mean(option, names)}")
    return options
