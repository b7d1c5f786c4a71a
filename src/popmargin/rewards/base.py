"""The reward protocol, and checks of rewards' answers."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from popmargin.errors import RunError, counted
from popmargin.user_code import running

Prompt = str | list[dict[str, Any]]


@runtime_checkable
class Reward(Protocol):
    """Scores completions; higher is better, in the reward's own unit."""

    def score(self, prompts: list[Prompt], completions: list[str]) -> list[float]:
        """One finite number per completion, in order."""
        ...


@runtime_checkable
class NotedReward(Reward, Protocol):
    """A reward that cannot score every text in full, and reports what it did with those."""

    def take_notes(self) -> list[str]:
        """What happened to texts since the last call, as sentences; empty if all were scored in full."""
        ...


def notes_of(reward: Reward) -> tuple[str, ...]:
    """A reward's notes on the texts it has just scored."""
    return tuple(reward.take_notes()) if isinstance(reward, NotedReward) else ()


class CallableReward:
    """A Python function as a reward; its answers are checked.

    Args:
        function: called with prompts= and completions=, returns one number for each completion.
        name: for error messages.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._name = name

    def score(self, prompts: list[Prompt], completions: list[str]) -> list[float]:
        """The function's rewards.

        Raises:
            RunError: the function fails, or returns the wrong number of values or a value that is not a finite number.
        """
        check_rows(prompts, completions)
        with running(f"reward '{self._name}'"):
            rewards = self._function(prompts=prompts, completions=completions)
        return checked_rewards(rewards, len(completions), self._name)


def checked_rewards(values: Any, count: int, name: str) -> list[float]:
    """Rewards as floats.

    Raises:
        RunError: there are not `count` values, or one is not a finite number.
    """
    try:
        rewards = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RunError(f"Reward {name!r} returned {type(values).__name__}, not numbers ({error}).") from error
    if rewards.shape != (count,):
        raise RunError(
            f"Reward {name!r} returned shape {rewards.shape} for {counted(count, 'completion')}; return one number "
            "each."
        )
    wrong = np.flatnonzero(~np.isfinite(rewards))
    if len(wrong):
        raise RunError(
            f"Reward {name!r} returned {rewards[wrong[0]]} for completion {wrong[0]} ({len(wrong)} of {count} are not "
            "finite). Return a finite number for every completion, including an empty one."
        )
    return cast("list[float]", rewards.tolist())


def check_rows(prompts: Sequence[Prompt], completions: Sequence[str]) -> None:
    """Refuse unequal numbers of prompts and completions.

    Raises:
        RunError: the numbers differ.
    """
    if len(prompts) != len(completions):
        raise RunError(
            f"{counted(len(prompts), 'prompt')} but {counted(len(completions), 'completion')}; give one prompt per "
            "completion."
        )
