"""What compares two responses: a judge, a reward, or a function, by the same names as everywhere."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from popmargin.data.conversation import Text, prompt_key
from popmargin.data.questions import PreferenceText, Verdict
from popmargin.errors import ConfigError
from popmargin.generate.spending import Budget, Forecast
from popmargin.judges.backends import ServerBackend, refuse_unasked
from popmargin.judges.comparing import Judge
from popmargin.judges.labeller import Account, Question
from popmargin.label.labellers.load import load_labeller
from popmargin.label.labellers.numeric import RewardLabeller, by_difference
from popmargin.label.ranking.rank import Compare
from popmargin.rewards.base import Reward, notes_of, say_cost
from popmargin.rewards.naming import read_name
from popmargin.rewards.rate import last_turn
from popmargin.user_code import load_object, running


@dataclass(frozen=True)
class Comparer:
    """Something that compares responses, for `rank_responses`.

    Attributes:
        name: of the judge or reward.
        compare: asks.
        again: asks once more where an answer could not be read; None asks the same again.
        pays: what costs something: each "comparison", or each "response" that a reward scores once.
        account: what it took so far.
        forecast: what comparing these would take, as `compare` is called; None if nothing is paid by the token.
        budget: of a judge on a server.
    """

    name: str
    compare: Compare
    again: Compare | None = None
    pays: Literal["comparison", "response"] = "comparison"
    account: Account = field(default_factory=Account)
    forecast: Callable[[Sequence[Text], Sequence[Text], Sequence[Text]], Forecast] | None = None
    budget: Budget | None = None

    def cost_lines(self, shown: Sequence[tuple[Text, Text, Text]]) -> list[str]:
        """What ordered questions would cost, and what is left to pay; nothing without prices.

        Args:
            shown: prompt, the response shown first, the other one.
        """
        if self.forecast is None or self.budget is None or not shown:
            return []
        prompts, first, second = (list(column) for column in zip(*shown, strict=True))
        found = self.forecast(prompts, first, second)
        return [f"{self.name}: {found}", *self.budget.lines(found)] if found.priced else []


def load_comparer(spec: str, *, prompt: str | Path | None = None, progress: bool = False, **options: Any) -> Comparer:
    """What compares, from its name.

    Names are those of `load_labeller`: a language model or a server is asked which of two responses is better; a reward
    scores every response once, and the higher score wins. A function that takes prompts, first and second compares by
    itself and says "first", "second", "tie" or "unsure" for each.

    Args:
        spec: the name.
        prompt: file with the judge's prompt; the built-in one when None.
        progress: show progress bars.
        options: of the judge or reward.

    Raises:
        ConfigError: the name is not understood, or an option is unknown for it.

    Example:
        >>> comparer = load_comparer("popmargin.demo.sentiment:sentiment_reward")
        >>> comparer.compare(["Well?", "Well?"], ["Great!", "Bad."], ["Awful.", "Bad."])
        ['first', 'tie']
    """
    named = read_name(spec)
    if named.kind == "ratings":
        raise ConfigError(
            "'ratings' are the data's own: responses that have scores need no ranking. Make pairs of them with "
            "Responses.pairs, or name a judge."
        )
    if named.kind == "code" and (function := load_object(named.place, "judge")) and _compares(function):
        if options or prompt is not None:
            given = ", ".join([*options, *(["prompt"] if prompt is not None else [])])
            raise ConfigError(f"Judge {spec!r} is Python code and takes no options, but got {given}.")
        return Comparer(spec, _of_function(function, spec))
    prompts: Any = None if prompt is None else {"preference": prompt}
    labeller = load_labeller(spec, prompts=prompts, **options)
    if isinstance(labeller, RewardLabeller) and isinstance(labeller.reward, Reward):
        account = Account()
        return Comparer(labeller.name, _ByScore(labeller.reward, account), pays="response", account=account)
    if not isinstance(labeller, Judge):
        raise ConfigError(f"Judge {spec!r} cannot compare two responses.")
    return of_judge(labeller, progress=progress)


def of_judge(judge: Judge, *, progress: bool = False) -> Comparer:
    """A judge as a comparer: one ordered question at a time, and a reminder of the form where it asks again.

    Args:
        judge: its own orders do not count; the ranking asks both.
        progress: show progress bars.
    """
    account = Account()
    single, backend = judge.in_one_order(), judge.backend

    def asks(labeller: Judge) -> Compare:
        def compare(prompts: Sequence[Text], first: Sequence[Text], second: Sequence[Text]) -> list[Verdict]:
            questions = _questions(prompts, first, second)
            opinions = labeller.label(questions, account, progress=progress)
            refuse_unasked(labeller, opinions)
            return [opinion.verdict for opinion in opinions]

        return compare

    def forecast(prompts: Sequence[Text], first: Sequence[Text], second: Sequence[Text]) -> Forecast:
        assert isinstance(backend, ServerBackend), "only these are paid"
        found = backend.forecast(single.prompts(_questions(prompts, first, second)))
        return replace(found, questions=len(prompts))

    paid = isinstance(backend, ServerBackend)
    return Comparer(
        judge.name, asks(single), asks(single.reminding()), account=account, forecast=forecast if paid else None,
        budget=backend.budget if paid else None,
    )  # fmt: skip


def _questions(prompts: Sequence[Text], first: Sequence[Text], second: Sequence[Text]) -> list[Question]:
    shown = zip(prompts, first, second, strict=True)
    return [
        Question("preference", PreferenceText(id="", prompt=prompt, chosen=one, rejected=other))
        for prompt, one, other in shown
    ]


class _ByScore:
    """Compares by a reward's scores; each response to a prompt is scored once."""

    def __init__(self, reward: Reward, account: Account) -> None:
        self._reward, self._account = reward, account
        self._scores: dict[tuple[str, str], float] = {}

    def __call__(self, prompts: Sequence[Text], first: Sequence[Text], second: Sequence[Text]) -> list[Verdict]:
        """The higher score wins, equal ones are a tie."""
        sides = [(prompt, text) for texts in (first, second) for prompt, text in zip(prompts, texts, strict=True)]
        new = {key: side for side in sides if (key := _key(*side)) not in self._scores}
        for text in (True, False):  # rewards take prompts of one kind at a time
            of_kind = {key: side for key, side in new.items() if isinstance(side[0], str) == text}
            if of_kind:
                self._score(of_kind)
        pairs = zip(prompts, first, second, strict=True)
        gaps = [self._scores[_key(prompt, one)] - self._scores[_key(prompt, other)] for prompt, one, other in pairs]
        return [by_difference(gap).verdict for gap in gaps]

    def _score(self, sides: Mapping[tuple[str, str], tuple[Text, Text]]) -> None:
        asked = [last_turn(prompt, text, f"the prompt {str(prompt)[:60]!r}") for prompt, text in sides.values()]
        prompts, texts = [prompt for prompt, _ in asked], [text for _, text in asked]
        say_cost(self._reward, prompts, texts)
        scores = self._reward.score(prompts, texts)
        self._scores.update(zip(sides, scores, strict=True))
        self._account.asked += len(sides)
        self._account.notes += notes_of(self._reward)


def _key(prompt: Text, text: Text) -> tuple[str, str]:
    return prompt_key(prompt), prompt_key(text)


def _compares(function: Any) -> bool:
    """Whether it takes prompts, first and second responses, rather than prompts and completions."""
    try:
        inspect.signature(function).bind(prompts=[], first=[], second=[])
    except (TypeError, ValueError):
        return False
    return True


def _of_function(function: Callable[..., Any], name: str) -> Compare:
    def compare(prompts: Sequence[Text], first: Sequence[Text], second: Sequence[Text]) -> list[Verdict]:
        with running(f"judge '{name}'"):
            return list(function(prompts=prompts, first=first, second=second))

    return compare
