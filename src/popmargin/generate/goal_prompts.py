"""Prompts for a policy that was trained on goals: asked for one, and kept without it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from popmargin.data.conversation import prompt_key
from popmargin.data.goals import GoalFacts, goal_in, with_goal, without_goal
from popmargin.data.read_prompts import Prompts
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError

Goal = float | Sequence[float] | Mapping[str, float] | None
NO_GOAL = "none"
"""What `--goal` says where a policy is to be asked without a goal."""


def read_goal(text: str, facts: GoalFacts) -> Goal:
    """A goal as it stands on a command line: 7, or Helpfulness=8,Honesty=9.

    Raises:
        ConfigError: it is neither.

    Example:
        >>> facts = GoalFacts(("Help", "Style"), ({}, {}))
        >>> read_goal("Help=8,Style=9.5", facts), read_goal("7", facts)
        ({'Help': 8.0, 'Style': 9.5}, 7.0)
    """
    try:
        if "=" not in text:
            return float(text)
        named = [entry.partition("=") for entry in text.split(",")]
        return {name.strip(): float(score) for name, _, score in named}
    except ValueError:
        names = ",".join(f"{name}=8" for name in facts.attributes)
        raise ConfigError(f"--goal {text}: give a score from 1 to 10, {names}, or none.") from None


def asked_for(prompts: Prompts, goal: Goal, facts: GoalFacts) -> tuple[Prompts, Prompts, str]:
    """The prompts without goals, the same asking for one, and that goal as it is printed.

    Prompts that carry a goal lose it, and those that are the same without it are one.

    Args:
        prompts: see `load_prompts`.
        goal: see `with_goal`; None is the best seen in training.
        facts: of the policy's training.

    Raises:
        ConfigError: a goal that the facts do not know.

    Example:
        >>> facts = GoalFacts(("Overall score",), ({},), best=(9.0,))
        >>> plain, asked, line = asked_for(Prompts(["Hi"]), None, facts)
        >>> plain.prompts, asked.prompts[0].endswith("Overall score: 9\\n\\nHi"), line
        (['Hi'], True, 'Overall score: 9')
    """
    bodies = [without_goal(prompt, facts) for prompt in prompts.prompts]
    first = {prompt_key(body): row for row, body in reversed(list(enumerate(bodies)))}
    rows = sorted(first.values())
    columns = {name: [values[row] for row in rows] for name, values in prompts.columns.items()}
    notes, left_out = prompts.notes, prompts.left_out
    if len(rows) < len(bodies):
        notes = (*notes, f"prompts that differ in their goal only, one each: {len(bodies) - len(rows)} left out")
        left_out = {**left_out, "differ in their goal only": len(bodies) - len(rows)}
    plain = replace(prompts, prompts=[bodies[row] for row in rows], columns=columns, left_out=left_out, notes=notes)
    asked = replace(plain, prompts=with_goal(plain.prompts, goal, facts))
    return plain, asked, goal_in(asked.prompts[0], facts).rpartition("\n")[2] if asked.prompts else ""


def on_prompts(responses: Responses, prompts: Prompts, goal: str) -> Responses:
    """Responses with the prompts without goals, and the goal that they were asked for as a column.

    Args:
        responses: as sampled.
        prompts: without goals, in the same order.
        goal: as it is printed.
    """
    ends = responses.counts.cumsum().tolist()

    def of_prompt(values: Any) -> list[Any]:
        return [list(values[end - count : end]) for end, count in zip(ends, responses.counts.tolist(), strict=True)]

    return Responses(
        prompts.prompts,
        of_prompt(responses.texts),
        {name: of_prompt(responses.score(name)) for name in responses.score_names},
        fields={name: of_prompt(responses.field(name)) for name in responses.field_names},
        columns={name: responses.column(name) for name in responses.column_names} | {"goal": [goal] * len(responses)},
    )
