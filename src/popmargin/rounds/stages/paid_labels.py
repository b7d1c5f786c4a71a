"""What a judge may be told about labelling, and what its labels cost, said before the first call."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from popmargin.config_names import PAYING
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError, RunError, counted, did_you_mean
from popmargin.rewards.base import Reward
from popmargin.rewards.configured import Rewards
from popmargin.rewards.load import check_reward, option_names
from popmargin.rewards.naming import read_name
from popmargin.rewards.rate_responses import answers_of
from popmargin.rewards.rating_judge import JudgeReward

IMPLICIT, RANDOM = "implicit", "random"
OF_LABELLING = ("price", "limit")
"""Options of labelling by a judge beside those of the judge: price of a call, and most calls of a stage."""
_HOW = (
    "api_key_env", "cache", "workers", "retries", "backoff", "timeout", "requests_per_minute", "again", "max_unparsed",
    "price", *PAYING,
)  # fmt: skip
"""Those that do not decide what an answer is: they may change when a stage goes on."""


def label_options(by: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check the options of a labeller.

    Args:
        by: `implicit`, `random`, or a reward or judge as `evaluation.reward` names it.
        options: of the reward or judge; of a judge also `price`, of a call, and `limit`, most calls of a stage: further
            prompts are left out, and counted.

    Returns:
        Those that decide what the labels are, and the others.

    Raises:
        ConfigError, RunError: the labeller names nothing usable, or an option is unknown, has no effect or a wrong
            value.

    Example:
        >>> label_options("judge:m@http://localhost:8000/v1", {"workers": 2, "max_tokens": 8})
        ({'max_tokens': 8}, {'workers': 2})
    """
    if by in (IMPLICIT, RANDOM):
        if options:
            raise ConfigError(f"recipe.label_options has no effect: labels: {by} takes none. Remove it.")
        return {}, {}
    judge = read_name(by).kind == "server"
    known = [*option_names(by), *(OF_LABELLING if judge else ())]
    for name in options:
        if known and name not in known:
            of_judges = " That is an option of judges on a server." if name in OF_LABELLING else ""
            raise ConfigError(f"recipe.label_options: {by!r} has no option '{name}'.{of_judges} "
                              f"{did_you_mean(name, known)}")  # fmt: skip
    _check_number(options, "price", (int, float), "a number")
    _check_number(options, "limit", (int,), "a whole number", least=1)
    check_reward(by, {name: value for name, value in options.items() if name not in OF_LABELLING or not judge})
    how = _HOW if judge else ()
    return (
        {name: value for name, value in options.items() if name not in how},
        {name: value for name, value in options.items() if name in how},
    )


def _check_number(options: Mapping[str, Any], name: str, kinds: tuple[type, ...], what: str, *, least: int = 0) -> None:
    value = options.get(name, least)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < math.inf:
        raise ConfigError(f"recipe.label_options.{name} is {value!r}; give {what}, {least} or more.")


def refuse_too_few(reward: Reward, missing: int, count: int) -> None:
    """Stop before labels that a judge did not give are done without, if they are many.

    Raises:
        RunError: more are missing than the judge's `max_unparsed` allows; what was answered is in its cache.
    """
    if isinstance(reward, JudgeReward) and missing > reward.max_unparsed * count:
        raise RunError(
            f"{reward.name} gave no rating for {missing} of {counted(count, 'response')} (allowed: "
            f"{reward.max_unparsed:.0%}). The others are in {reward.cache}: run again to ask for those without an "
            "answer (recipe.label_options.again: true for those without a rating, too), or raise "
            "recipe.label_options.max_unparsed."
        )


def measuring_cost(rewards: Rewards | None, responses: int) -> dict[str, float]:
    """What rating generations costs at most: a call for each, of every judge on a server; nothing of other rewards."""
    every = () if rewards is None else (rewards.first, *rewards.also.values())
    calls = responses * sum(isinstance(reward, JudgeReward) for reward in every)
    return {"calls at most": calls} if calls else {}


@dataclass(frozen=True)
class Paid:
    """What labels cost at most.

    Attributes:
        cost: for the manifest; the same whether a stage was killed in between or not.
        left_out: reason -> prompts.
    """

    cost: dict[str, float] = field(default_factory=dict[str, float])
    left_out: dict[str, int] = field(default_factory=dict[str, int])


def announced(
    reward: Reward,
    responses: Responses,
    say: Callable[[str], None],
    *,
    limit: int | None = None,
    price: float | None = None,
) -> tuple[Responses, Paid]:
    """Say what a judge's ratings of responses will cost, before the first is asked for; other rewards cost nothing.

    Args:
        reward: that rates.
        responses: to rate.
        say: prints a line.
        limit: most calls, whether or not the cache answers them, so that a stage that was killed gives the same labels;
            the first prompts that stay within it are kept.
        price: of a call.

    Raises:
        ConfigError: the limit leaves no prompt.
    """
    if not isinstance(reward, JudgeReward):
        return responses, Paid()
    answers = answers_of(responses)
    asked = reward.questions([answer.prompt for answer in answers], [answer.text for answer in answers])
    distinct: set[str] = set()
    cached: set[str] = set()
    kept, start = 0, 0
    for count in responses.counts.tolist():
        here = asked[start : start + count]
        more = distinct | {key for key, _ in here}
        if limit is not None and len(more) > limit:
            break
        distinct, cached = more, cached | {key for key, known in here if known}
        kept, start = kept + 1, start + count
    if not kept:
        raise ConfigError(f"recipe.label_options.limit {limit} is less than the calls of the first prompt. Raise it.")
    left = len(responses) - kept
    new = len(distinct) - len(cached)
    line = (
        f"  {reward.name}: {counted(start, 'response')} of {counted(kept, 'prompt')}, {counted(len(distinct), 'call')}"
    )
    line += f", {len(cached)} of them answered in {reward.cache}" if cached else ""
    line += "" if price is None else f"; {counted(new, 'call')} to pay cost {price * new:.6g}"
    say(line + (f"; {counted(left, 'prompt')} left out, beyond the limit of {limit} calls" if left else ""))
    cost: dict[str, float] = {"calls": len(distinct)}
    cost |= {} if price is None else {"for calls at most": round(price * len(distinct), 6)}
    return (
        responses.select(range(kept)) if left else responses,
        Paid(cost, {"prompts beyond the limit of calls": left} if left else {}),
    )
