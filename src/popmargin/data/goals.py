"""Goals in prompts: a text that names the score of the response that is wanted, what it says, and where it stands.

Reward-augmented preferences (`popmargin.data.augment`) carry a goal in every prompt. What is known of these goals, the
facts, stands in a column of the data and so goes wherever the rows go; a run keeps it, and asks for the best goal.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from popmargin.data.conversation import Message, Text, prompt_key
from popmargin.data.schema import Preferences
from popmargin.data.template import content_of
from popmargin.errors import ConfigError, DataError, did_you_mean

Place = Literal["system", "user"]
TEXT = "Write the answer that would be rated as follows, on a scale from 1 (worst) to 10 (best).\n{goal}"
"""What stands in a prompt (own wording)."""
HEAD = TEXT.partition("{goal}")[0]
LEAST, MOST = 1.0, 10.0
FACTS = "goal_facts"
"""Column with what is known of the goals, as JSON: the same in all rows."""
SCORES = "goal_scores"
"""Column with the scores that each row's prompt asks for, one for each attribute."""
_BREAK = "\n\n"


@dataclass(frozen=True)
class GoalFacts:
    """What is known of the goals in prompts.

    Attributes:
        attributes: what is scored, as printed, such as "Overall score".
        maps: for each attribute how its scores became those from 1 to 10, as JSON values.
        place: where the text stands in a conversation: in the system message, or before the first user turn.
        text: what stands there, with {goal} in it.
        best: the largest score of each attribute that was seen in training; None before there was any.
    """

    attributes: tuple[str, ...]
    maps: tuple[Mapping[str, Any], ...]
    place: Place = "system"
    text: str = TEXT
    best: tuple[float, ...] | None = None

    def line(self, scores: Sequence[float]) -> str:
        """The scores as they are printed.

        Example:
            >>> GoalFacts(("Helpfulness", "Honesty"), ({}, {})).line([8.0, 9.5])
            'Helpfulness: 8, Honesty: 9.5'
        """
        return ", ".join(f"{name}: {score:g}" for name, score in zip(self.attributes, scores, strict=True))

    def alike(self, score: float) -> tuple[float, ...]:
        """The same score for every attribute."""
        return (score,) * len(self.attributes)

    def prefix(self, scores: Sequence[float]) -> str:
        """The text that asks for these scores."""
        return self.text.replace("{goal}", self.line(scores))

    def to_json(self) -> str:
        """The facts as JSON text."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON values."""
        return json.loads(self.to_json())

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "GoalFacts":
        """Read what `to_dict` gave."""
        best = values["best"]
        return GoalFacts(
            tuple(values["attributes"]), tuple(values["maps"]), values["place"], values["text"],
            None if best is None else tuple(best),
        )  # fmt: skip

    def note(self) -> str:
        """What prompts are asked for, as a sentence."""
        if self.best is None:
            return f"prompts ask for a goal ({', '.join(self.attributes)})"
        return (
            f"prompts ask for '{self.line(self.best)}', the best goal seen in training (the scale ends at {MOST:g}; "
            f"scores {' and '.join(dict.fromkeys(self.ways))})"
        )

    @property
    def ways(self) -> list[str]:
        """How the scores of each attribute became goals, in words."""
        return [_way(found) for found in self.maps]


def _way(found: Mapping[str, Any]) -> str:
    """How scores became goals, in words."""
    if found.get("kind") == "affine":
        return f"from {found['min']:g} … {found['max']:g} mapped to it in steps of {found['step']:g}"
    if found.get("kind") == "quantile":
        return f"as quantiles of {found['of']} of them, in steps of {found['step']:g}"
    return "as they are"


def with_goal(
    prompts: Sequence[Text], goal: float | Sequence[float] | Mapping[str, float] | None, facts: GoalFacts
) -> list[Text]:
    """Prompts that ask for a goal.

    The text goes to the beginning: of the system message, of the first user turn where the facts say so, or of a plain
    text; two line breaks separate it from what stands there.

    Args:
        prompts: texts or messages (P,), without a goal.
        goal: the score, or one for each attribute, in their order or by name; None asks for the best seen in training.
        facts: of the goals that were trained on.

    Returns:
        The prompts (P,).

    Raises:
        ConfigError: another number of scores, an unknown attribute, a score outside 1 to 10, or no best goal is known.
        DataError: a prompt has a goal already, or no user turn where one is needed.

    Example:
        >>> facts = GoalFacts(("Overall score",), ({},), best=(9.5,))
        >>> print(with_goal(["Name a city."], None, facts)[0])
        Write the answer that would be rated as follows, on a scale from 1 (worst) to 10 (best).
        Overall score: 9.5
        <BLANKLINE>
        Name a city.
    """
    text = facts.prefix(_scores(goal, facts))
    made: list[Text] = []
    for row, prompt in enumerate(prompts):
        if asks_for_goal(prompt, facts):
            raise DataError(f"Prompt {row} has a goal already: {str(prompt)[:80]!r}. Give the prompts without goals.")
        made.append(_put(prompt, text, facts.place, row))
    return made


def _scores(goal: float | Sequence[float] | Mapping[str, float] | None, facts: GoalFacts) -> Sequence[float]:
    if goal is None:
        if facts.best is None:
            raise ConfigError("No best goal is known. Name the scores to ask for.")
        return facts.best
    if isinstance(goal, Mapping):
        for name in goal:
            if name not in facts.attributes:
                raise ConfigError(f"The goals have no attribute '{name}'. {did_you_mean(name, facts.attributes)}")
        scores = [float(goal[name]) for name in facts.attributes if name in goal]
    else:
        scores = [float(goal)] if isinstance(goal, int | float) else [float(score) for score in goal]
    if len(scores) != len(facts.attributes):
        names = ", ".join(facts.attributes)
        raise ConfigError(f"{len(scores)} scores for {len(facts.attributes)} attributes ({names}). Give one of each.")
    for name, score in zip(facts.attributes, scores, strict=True):
        if not LEAST <= score <= MOST:
            raise ConfigError(f"The goal '{name}: {score:g}' is outside the scale from {LEAST:g} to {MOST:g}.")
    return scores


def _put(prompt: Text, text: str, place: Place, row: int) -> Text:
    if isinstance(prompt, str):
        return text + _BREAK + prompt
    if place == "system" and prompt[0]["role"] != "system":
        return [Message(role="system", content=text), *prompt]
    numbers = [0] if place == "system" else [n for n, turn in enumerate(prompt) if turn["role"] == "user"]
    if not numbers:
        raise DataError(f"Prompt {row} has no user turn for the goal to stand in. Remove it, or give it one.")
    turns = list(prompt)
    turn = turns[numbers[0]]
    turns[numbers[0]] = cast(Message, {**turn, "content": text + _BREAK + content_of(turn)})
    return turns


def without_goal(prompt: Text, facts: GoalFacts) -> Text:
    """A prompt as it was before its goal; one without a goal is returned as it is.

    Example:
        >>> facts = GoalFacts(("Overall score",), ({},), place="user")
        >>> prompt = with_goal([[{"role": "user", "content": "Hi"}]], 7, facts)[0]
        >>> without_goal(prompt, facts)
        [{'role': 'user', 'content': 'Hi'}]
    """
    pattern = _pattern(facts)
    if isinstance(prompt, str):
        found = pattern.match(prompt)
        return prompt if found is None else prompt[found.end() :]
    for number, turn in enumerate(prompt):
        found = pattern.match(content_of(turn)) if turn["role"] == facts.place else None
        if found is not None:
            rest = content_of(turn)[found.end() :]
            kept = [cast(Message, {**turn, "content": rest})] if rest or facts.place == "user" else []
            return [*prompt[:number], *kept, *prompt[number + 1 :]]
    return prompt


def goal_in(prompt: Text, facts: GoalFacts) -> str:
    """The text of the goal as it stands in a prompt; empty where there is none."""
    texts = [prompt] if isinstance(prompt, str) else [content_of(turn) for turn in prompt]
    found = next((match for text in texts if (match := _pattern(facts).match(text))), None)
    return "" if found is None else found[0].removesuffix(_BREAK)


def _pattern(facts: GoalFacts) -> re.Pattern[str]:
    head, _, tail = facts.text.partition("{goal}")
    names = ", ".join(rf"{re.escape(name)}: [0-9.]+" for name in facts.attributes)
    return re.compile(rf"{re.escape(head)}(?:{names}){re.escape(tail)}(?:{_BREAK}|\Z)")


def asks_for_goal(prompt: Text, facts: GoalFacts | None = None) -> bool:
    """Whether a prompt holds the text of a goal: of these facts, or of any that was written with the text of today."""
    texts = [prompt] if isinstance(prompt, str) else [content_of(turn) for turn in prompt]
    heads = {HEAD, *(() if facts is None else (facts.text.partition("{goal}")[0],))}
    return any(text.startswith(head) for text in texts for head in heads)


def goal_facts(preferences: Preferences) -> GoalFacts | None:
    """What is known of the goals of preferences, with the best score of each attribute; None where there are none.

    Raises:
        DataError: only some rows carry a goal, or rows of several augmentations are mixed.
    """
    if FACTS not in preferences.columns:
        return None
    texts = [text for rows in preferences.batches(FACTS) for text in rows[FACTS]]
    kinds = set(texts)
    if None in kinds:
        raise DataError(
            f"{preferences.report.source}: {texts.count(None)} of {len(texts)} rows have no goal ('{FACTS}' is "
            "empty). Augment all rows, or none."
        )
    if len(kinds) > 1:
        raise DataError(
            f"{preferences.report.source}: rows of {len(kinds)} different augmentations stand in one file (column "
            f"'{FACTS}'). Augment them together."
        )
    if not texts:
        return None
    facts = GoalFacts.from_dict(json.loads(texts[0]))
    if facts.best is not None:
        return facts
    scores = np.array([row for rows in preferences.batches(SCORES) for row in rows[SCORES]], dtype=np.float64)
    return replace(facts, best=tuple(scores.max(axis=0).tolist()))


def bodies(preferences: Preferences) -> Iterator[Text]:
    """The prompts without their goals."""
    facts = goal_facts(preferences)
    for rows in preferences.batches("prompt"):
        for prompt in rows["prompt"]:
            yield prompt if facts is None else without_goal(prompt, facts)


def body_keys(preferences: Preferences) -> list[str]:
    """Canonical text of each row's prompt without its goal (N,): what says that two prompts are one."""
    return preferences.prompt_keys if FACTS not in preferences.columns else list(map(prompt_key, bodies(preferences)))


def asking(preferences: Preferences, facts: GoalFacts | None) -> Preferences:
    """Held-out preferences of a run that was trained on goals: those without a goal ask for the best one.

    Rows that carry goals keep them, so that their margins are those under their own goals.

    Args:
        preferences: held out.
        facts: of the training; None where it had no goals.

    Raises:
        DataError: they carry goals of another augmentation, or the training had none.
    """
    own = goal_facts(preferences)
    if facts is None:
        if own is not None:
            raise DataError(
                f"{preferences.report.source} carries goals, but the training data does not. Hold out the preferences "
                "that it was made from."
            )
        return preferences
    if own is None:
        prompts = with_goal(list(bodies(preferences)), None, facts)
        return preferences.with_columns({"prompt": prompts, FACTS: facts.to_json()})
    if replace(own, best=None) != replace(facts, best=None):
        raise DataError(
            f"{preferences.report.source} carries goals of another augmentation than the training data. Augment both "
            "alike, or hold out preferences without goals."
        )
    return preferences.with_columns({FACTS: facts.to_json()})


def distinct_rows(preferences: Preferences, count: int | None = None) -> list[int]:
    """The first row of each prompt, goals aside; of the first `count` prompts, or of all."""
    first = {key: row for row, key in reversed(list(enumerate(body_keys(preferences))))}
    return sorted(first.values())[:count]


def asked_prompts(preferences: Preferences, goal: float | None = None) -> list[Text]:
    """The prompts (N,) as a run answers them: where they carry goals, with the best one seen in training, or another.

    Args:
        preferences: held out.
        goal: score to ask for, of every attribute; None for the best.
    """
    facts = goal_facts(preferences)
    if facts is None:
        return [prompt for rows in preferences.batches("prompt") for prompt in rows["prompt"]]
    return with_goal(list(bodies(preferences)), None if goal is None else facts.alike(goal), facts)


def as_given(preferences: Preferences) -> Preferences:
    """Held-out preferences as they were before `asking`: without goals in their prompts."""
    facts = goal_facts(preferences)
    return preferences if facts is None else preferences.with_columns({"prompt": list(bodies(preferences))})


def check_goals(goals: Sequence[float] | None, preferences: Preferences) -> None:
    """Check before any work that held-out prompts can ask for some goals in turn.

    Args:
        goals: scores; None for none.
        preferences: held out.

    Raises:
        ConfigError: the run was not trained on goals.
    """
    if goals is not None and goal_facts(preferences) is None:
        raise ConfigError(
            "evaluation.goals (--goals): the run was trained on no goals, so it cannot be asked for one. Leave them "
            "out, or train on data from popmargin data augment."
        )
