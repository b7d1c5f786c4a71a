"""Iterative pairwise ranking: the best and the worst response to each prompt, from comparisons of two."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

from popmargin.data.conversation import Text, prompt_key
from popmargin.data.questions import Verdict
from popmargin.data.responses import Responses
from popmargin.errors import RunError
from popmargin.label.ranking.contests import Contest, Orders, plan_ranking
from popmargin.label.ranking.ranking import PromptRanking, Ranking, fate_of
from popmargin.label.ranking.schemes import Outcome, Pair, Scheme, replay, turned

Compare = Callable[[Sequence[Text], Sequence[Text], Sequence[Text]], Sequence[Verdict]]
"""Compares two responses to each of some prompts, as compare(prompts, first, second): "first", "second", "tie", or
"unsure" where an answer cannot be read."""

_Question = tuple[int, int, int]  # number of the prompt, of the response shown first, of the other one
_ANSWERS = ("first", "second", "tie", "unsure")


def rank_responses(
    responses: Responses,
    compare: Compare,
    *,
    scheme: Scheme = "champion",
    seed: int = 0,
    orders: Orders = "both",
    again: Compare | None = None,
    limit: int | None = None,
) -> Ranking:
    """Find the best and the worst response to each prompt by pairwise comparisons.

    Every comparison is asked in both orders: where both name one response, it is better; where they contradict each
    other, or one of them is a tie, it is a tie. Every ordered question is asked once, however often prompts and
    responses repeat, and all questions that do not depend on one another are asked together. An unreadable answer is
    asked for once more; then its comparison has no outcome and counts neither as a tie nor as a loss, and the response
    that stayed so far stays. The result depends on the answers, the scheme and the seed alone.

    Args:
        responses: to each prompt; identical ones are merged, empty ones do not play.
        compare: called with prompts, first and second responses; "first", "second", "tie" or "unsure" for each.
        scheme: "champion" (2M − 3 comparisons), "pairs" (⌈3M/2⌉ − 2) or "round_robin" (M(M − 1)/2).
        seed: of the order of play, which counts, since a tie keeps the champion.
        orders: "one" asks only one order, drawn with the seed: half the calls, but position bias then counts as wins.
        again: asked where `compare` is unsure; `compare` itself when None.
        limit: most calls without those made again, see `plan_ranking`.

    Returns:
        The ranking: `preferences()`, `comparisons()`, `report()`.

    Raises:
        ConfigError: an unknown scheme or order, or a limit below 0.
        RunError: `compare` gives another number of answers, or something else than an answer.

    Example:
        >>> def shorter(prompts, first, second):
        ...     return ["first" if len(a) < len(b) else "second" for a, b in zip(first, second)]
        >>> ranking = rank_responses(Responses(["Hi"], [["Hello there", "Hey", "Good day"]]), shorter)
        >>> ranking.preferences()[0]["chosen"], ranking.preferences()[0]["rejected"], ranking.calls
        ('Hey', 'Hello there', 6)
    """
    plan = plan_ranking(responses, scheme=scheme, seed=seed, orders=orders, limit=limit)
    asker = _Asker(responses, compare, again or compare)
    known: list[dict[Pair, Outcome]] = [{} for _ in plan.contests]
    given: list[dict[Pair, Verdict]] = [{} for _ in plan.contests]
    standings = [replay(scheme, contest.order, {}) for contest in plan.contests]
    while True:
        asked = {
            (number, pair): questions_of(contest, pair, orders, seed)
            for number, (contest, standing) in enumerate(zip(plan.contests, standings, strict=True))
            for pair in standing.wanted
        }
        if not asked:
            break
        asker.ask([question for questions in asked.values() for question in questions])
        for (number, pair), questions in asked.items():
            answers: dict[Pair, Verdict] = {question[1:]: asker.answer(question) for question in questions}
            given[number] |= answers
            known[number][pair] = outcome_of_answers(pair, answers)
        for number in {number for number, _ in asked}:
            standings[number] = replay(scheme, plan.contests[number].order, known[number])
    ranked = [
        PromptRanking(contest, standing, games, answers, fate_of(standing, games))
        for contest, standing, games, answers in zip(plan.contests, standings, known, given, strict=True)
    ]
    return Ranking(responses, scheme, seed, orders, plan, tuple(ranked), asker.calls, asker.repeated)


def questions_of(contest: Contest, pair: Pair, orders: Orders, seed: int) -> list[_Question]:
    """The ordered questions that decide a pair: both orders, or one that the seed draws."""
    sides = [pair, turned(pair)]
    if orders == "one":
        low, high = sorted(pair)
        coin = random.Random(f"{seed}\x1f{contest.row}\x1f{low}\x1f{high}").random() < 0.5
        sides = [(low, high) if coin else (high, low)]
    return [(contest.row, first, second) for first, second in sides]


def outcome_of_answers(pair: Pair, answers: Mapping[Pair, Verdict]) -> Outcome:
    """What the answers to the ordered questions of a pair say together.

    Args:
        pair: the two responses.
        answers: (shown first, shown second) -> which place won.

    Example:
        >>> outcome_of_answers((4, 7), {(4, 7): "first", (7, 4): "second"})
        'first'
        >>> outcome_of_answers((4, 7), {(4, 7): "first", (7, 4): "first"})
        'tie'
    """
    if any(answer not in ("first", "second", "tie") for answer in answers.values()):
        return "unknown"
    better = {
        None if answer == "tie" else shown[0] if answer == "first" else shown[1] for shown, answer in answers.items()
    }
    if len(better) > 1 or better == {None}:
        return "tie"
    return "first" if better == {pair[0]} else "second"


class _Asker:
    """Asks each ordered question once, by its content."""

    def __init__(self, responses: Responses, compare: Compare, again: Compare) -> None:
        self._prompts, self._texts = responses.prompts, responses.texts
        self._starts = [0, *responses.counts.cumsum().tolist()]
        self._compare, self._again = compare, again
        self._known: dict[tuple[str, str, str], Verdict] = {}
        self.repeated = 0

    @property
    def calls(self) -> int:
        """Different ordered questions that were asked, without repeats."""
        return len(self._known)

    def ask(self, questions: Iterable[_Question]) -> None:
        """Ask what is not known; what comes back unsure a second time."""
        new = {key: question for question in questions if (key := self._key(question)) not in self._known}
        answers = self._answers(self._compare, list(new.values()))
        unsure = [place for place, answer in enumerate(answers) if answer == "unsure"]
        if unsure:
            asked = list(new.values())
            self.repeated += len(unsure)
            given = self._answers(self._again, [asked[place] for place in unsure])
            for place, answer in zip(unsure, given, strict=True):
                answers[place] = answer
        self._known.update(zip(new, answers, strict=True))

    def answer(self, question: _Question) -> Verdict:
        """What was answered."""
        return self._known[self._key(question)]

    def _shown(self, question: _Question) -> tuple[Text, Text, Text]:
        row, first, second = question
        start = self._starts[row]
        return self._prompts[row], self._texts[start + first], self._texts[start + second]

    def _key(self, question: _Question) -> tuple[str, str, str]:
        prompt, first, second = self._shown(question)
        return prompt_key(prompt), prompt_key(first), prompt_key(second)

    def _answers(self, compare: Compare, questions: Sequence[_Question]) -> list[Verdict]:
        if not questions:
            return []
        prompts, first, second = (list(column) for column in zip(*map(self._shown, questions), strict=True))
        answers = list(compare(cast(Sequence[Text], prompts), first, second))
        if len(answers) != len(questions):
            raise RunError(f"{len(questions)} comparisons were asked, but {len(answers)} answers came. Give one each.")
        wrong = [answer for answer in answers if answer not in _ANSWERS]
        if wrong:
            raise RunError(f"A comparison was answered with {wrong[0]!r}. Answer with {', '.join(_ANSWERS)}.")
        return answers
