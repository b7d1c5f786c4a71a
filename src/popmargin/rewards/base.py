"""The reward protocol, and checks of rewards' answers."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
class Noted(Protocol):
    """A reward that cannot score every text in full, and reports what it did with those."""

    def take_notes(self) -> list[str]:
        """What happened to texts since the last call, as sentences; empty if all were scored in full."""
        ...


@runtime_checkable
class PaidReward(Protocol):
    """A reward whose scores cost money."""

    def cost_lines(self, prompts: list[Prompt], completions: list[str]) -> list[str]:
        """What scoring these will cost, in lines; none if no price is known."""
        ...


@runtime_checkable
class PartialReward(Reward, Protocol):
    """A reward that knows which completions it could not score, where `score` must give a number for all."""

    def score_some(self, prompts: list[Prompt], completions: list[str]) -> list[float]:
        """One number for each completion, in order; nan where there is none."""
        ...


@dataclass(frozen=True)
class Answer:
    """A response, with what is known of how it was sampled.

    Attributes:
        prompt: what it answers.
        text: of the response.
        token_ids: as sampled; None if unknown.
        finished: whether it ended by itself; None if unknown.
        prompt_tokens: how many tokens of the prompt the sampler saw; None if unknown.
    """

    prompt: Prompt
    text: str
    token_ids: Sequence[int] | None = None
    finished: bool | None = None
    prompt_tokens: int | None = None


@runtime_checkable
class AnswerReward(Reward, Protocol):
    """A reward that looks at the tokens of a response where they are known, and not at its text alone."""

    def score_answers(self, answers: Sequence[Answer]) -> list[float]:
        """One number for each response, in order; nan where there is none."""
        ...


def notes_of(reward: Any) -> tuple[str, ...]:
    """A reward's notes on what it has just scored."""
    return tuple(reward.take_notes()) if isinstance(reward, Noted) else ()


def say_cost(reward: Any, prompts: Sequence[Prompt], completions: Sequence[str]) -> None:
    """Say what scores will cost before the first is asked for, if they cost something."""
    if isinstance(reward, PaidReward):
        for line in reward.cost_lines(list(prompts), list(completions)):
            print(line, file=sys.stderr, flush=True)


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
        return checked_rewards(self._call(prompts, completions), len(completions), self._name)

    def score_some(self, prompts: list[Prompt], completions: list[str]) -> list[float]:
        """The same; None and nan stand for no reward."""
        return checked_rewards(self._call(prompts, completions), len(completions), self._name, some=True)

    def _call(self, prompts: list[Prompt], completions: list[str]) -> Any:
        check_rows(prompts, completions)
        with running(f"reward '{self._name}'"):
            return self._function(prompts=prompts, completions=completions)


def checked_rewards(values: Any, count: int, name: str, *, some: bool = False, of: str = "completion") -> list[float]:
    """Rewards as floats.

    Args:
        values: what a reward returned.
        count: of completions, or images.
        name: of the reward, for messages.
        some: None and nan stand for no reward, and come back as nan.
        of: what is scored, for messages.

    Raises:
        RunError: there are not `count` values, or one is not a finite number.
    """
    try:
        rewards = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RunError(f"Reward {name!r} returned {type(values).__name__}, not numbers ({error}).") from error
    if rewards.shape != (count,):
        raise RunError(
            f"Reward {name!r} returned shape {rewards.shape} for {counted(count, of)}; return one number each."
        )
    wrong = np.flatnonzero(np.isinf(rewards) if some else ~np.isfinite(rewards))
    if len(wrong):
        raise RunError(
            f"Reward {name!r} returned {rewards[wrong[0]]} for {of} {wrong[0]} ({len(wrong)} of {count} are not "
            f"finite). Return a finite number for every {of}{', including an empty one' if of == 'completion' else ''}."
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
