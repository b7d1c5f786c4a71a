"""A judge that compares two responses, on a benchmark: every pair that counts, in both orders.

A response wins where both orders name it. Where the orders contradict each other, or one of them is a tie, it is a tie.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from popmargin.data.conversation import Text
from popmargin.errors import DataError, RunError, counted
from popmargin.evaluation.benchmarks.evaluate import Benchmark, BenchmarkResult
from popmargin.evaluation.benchmarks.question import Compared, Pair, Question
from popmargin.statistics.intervals import binomial_interval

Compare = Callable[[Sequence[Text], Sequence[Text], Sequence[Text]], Sequence[str]]
"""compare(prompts, first, second): "first", "second", "tie" or "unsure" for each; see `label.ranking.comparers`."""

KIND = "judge that compares"
MEANING = "each pair is asked in both orders, and contradictions are ties"
NEEDS_SCORES, NO_PAIR = "counts by scores, and this judge compares", "all responses are worth the same"
_ANSWERS = ("first", "second", "tie", "unsure")
_Shown = tuple[Text, Text, Text]  # prompt, the response shown first, the other one


@dataclass(frozen=True)
class JudgingPlan:
    """What will be asked, before anything is.

    Attributes:
        benchmark: its questions that a judge can answer; the others are among `left_out`.
        asked: of each question, the pairs that count and their two ordered questions; none for identical responses.
        shown: every different ordered question, by its key.
    """

    benchmark: Benchmark
    asked: list[dict[Pair, tuple[str, str] | None]]
    shown: dict[str, _Shown]

    @property
    def pairs(self) -> int:
        """Pairs that count."""
        return sum(len(pairs) for pairs in self.asked)

    def cost(self, price: float | None = None) -> str:
        """What it takes at most, as a sentence.

        Args:
            price: of a call.
        """
        calls = len(self.shown)
        text = (
            f"{counted(len(self.asked), 'question')}, {counted(self.pairs, 'pair')}, {counted(calls, 'call')} at most "
            "(fewer from the cache; one more for each answer that cannot be read)"
        )
        return text if price is None else f"{text}, which cost {price * calls:.6g}"


def plan_judging(benchmark: Benchmark) -> JudgingPlan:
    """The pairs of a benchmark that count, as ordered questions; equal ones are asked once.

    Example:
        >>> from popmargin.evaluation.benchmarks.evaluate import read_benchmark
        >>> plan_judging(read_benchmark([{"prompt": "2+2?", "chosen": ["4"], "rejected": ["5", "6"]}])).cost(0.01)[:31]
        '1 question, 2 pairs, 4 calls at'
    """
    read, left_out = benchmark.read, Counter(benchmark.read.left_out)
    kept: list[Question] = []
    asked: list[dict[Pair, tuple[str, str] | None]] = []
    shown: dict[str, _Shown] = {}
    for question in read.questions:
        reason = NEEDS_SCORES if benchmark.layout.by_scores(question) else "" if question.compared else NO_PAIR
        if reason:
            left_out[f"{question.subset}: {reason}" if question.subset else reason] += 1
            continue
        of_pair: dict[Pair, tuple[str, str] | None] = {}
        for pair in question.compared:
            both = [_shown(question, i, j) for i, j in (pair, pair[::-1])]
            keys = [json.dumps(one, sort_keys=True, ensure_ascii=False) for one in both]
            of_pair[pair] = None if keys[0] == keys[1] else (keys[0], keys[1])
            if keys[0] != keys[1]:
                shown.update(zip(keys, both, strict=True))
        kept.append(question)
        asked.append(of_pair)
    return JudgingPlan(replace(benchmark, read=replace(read, questions=kept, left_out=left_out)), asked, shown)


def judge_benchmark(plan: JudgingPlan, compare: Compare, name: str, *, again: Compare | None = None) -> BenchmarkResult:
    """Ask, and count.

    An answer that cannot be read is asked for once more; then its pair counts one half, and among `unread`.

    Args:
        plan: what to ask.
        compare: answers ordered questions.
        name: of the judge.
        again: asked where `compare` is unsure; `compare` itself when None.

    Raises:
        DataError: there is no question.
        RunError: `compare` gives another number of answers, or something else than an answer.
    """
    if not plan.asked:
        read = plan.benchmark.read
        raise DataError(f"{plan.benchmark.name}: {counted(read.rows_in, 'row')}, and none is a question for a judge.")
    said = dict(zip(plan.shown, _ask(compare, list(plan.shown.values())), strict=True))
    unsure = [key for key, answer in said.items() if answer == "unsure"]
    said.update(zip(unsure, _ask(again or compare, [plan.shown[key] for key in unsure]), strict=True))
    outcomes = Counter[str]()
    answers: list[Compared] = []
    for pairs in plan.asked:
        wins: dict[Pair, float] = {}
        for pair, keys in pairs.items():
            outcome = "identical" if keys is None else _outcome(said[keys[0]], said[keys[1]])
            outcomes[outcome] += 1
            wins[pair] = {"right": 1.0, "wrong": 0.0}.get(outcome, 0.5)
        answers.append(Compared(wins))
    account = {"pairs": plan.pairs, **{kind: outcomes[kind] for kind in (*_SAID, *_ALIKE)}}
    sentences = tuple(_sentences(account))
    return BenchmarkResult(plan.benchmark, name, KIND, MEANING, answers, sentences, comparisons=account)


def _shown(question: Question, first: int, second: int) -> _Shown:
    """A prompt and two responses; what differs between the prompts of responses of several turns is theirs."""
    (prompt, one), (other_prompt, other) = question.answers[first], question.answers[second]
    if prompt == other_prompt or isinstance(prompt, str) or isinstance(other_prompt, str):
        return prompt, one, other  # type: ignore[return-value]
    common = next(
        (at for at, (a, b) in enumerate(zip(prompt, other_prompt, strict=False)) if a != b),
        min(len(prompt), len(other_prompt)),
    )
    sides = [[*turns[common:], {"role": "assistant", "content": text}] for turns, text in
             ((prompt, one), (other_prompt, other))]  # fmt: skip
    return prompt[:common], sides[0], sides[1]  # type: ignore[return-value]


def _ask(compare: Compare, shown: Sequence[_Shown]) -> list[str]:
    if not shown:
        return []
    prompts, first, second = (list(column) for column in zip(*shown, strict=True))
    answers = list(compare(prompts, first, second))
    if len(answers) != len(shown):
        raise RunError(f"{len(shown)} comparisons were asked, but {len(answers)} answers came. Give one each.")
    wrong = [answer for answer in answers if answer not in _ANSWERS]
    if wrong:
        raise RunError(f"A comparison was answered with {wrong[0]!r}. Answer with {', '.join(_ANSWERS)}.")
    return answers


def _outcome(better_first: str, worse_first: str) -> str:
    """Of a pair, from the answers with the better response shown first, and shown second.

    Example:
        >>> _outcome("first", "second"), _outcome("first", "first"), _outcome("first", "tie")
        ('right', 'both_first', 'tie')
    """
    if "unsure" in (better_first, worse_first):
        return "unread"
    if "tie" in (better_first, worse_first):
        return "tie"
    if better_first == worse_first:
        return f"both_{better_first}"
    return "right" if better_first == "first" else "wrong"


_SAID = {"right": "for the better response", "wrong": "for the other one"}
_ALIKE = {
    "tie": "tied", "both_first": "contradicted for the response shown first",
    "both_second": "contradicted for the one shown second", "unread": "with an answer that cannot be read",
    "identical": "of identical responses",
}  # fmt: skip
"""Outcomes that count one half."""


def _sentences(account: Mapping[str, int]) -> list[str]:
    """The account of the pairs, and what the contradictions say about position bias."""
    parts = [f"{account[kind]} {said}" for kind, said in _SAID.items()]
    alike = [f"{account[kind]} {said}" for kind, said in _ALIKE.items() if account[kind]]
    halves = "; all but the first two count one half" if alike else ""
    lines = [f"{counted(account['pairs'], 'pair')} = {' + '.join([*parts, *alike])}{halves}"]
    first, contradictions = account["both_first"], account["both_first"] + account["both_second"]
    if contradictions:
        found = binomial_interval(first, contradictions)
        lines.append(
            f"position bias: {first} of {counted(contradictions, 'contradiction')} are for the response shown first "
            f"({100 * found.estimate:.1f}%, 95% {100 * found.low:.1f} to {100 * found.high:.1f}); without bias half are"
        )
    return lines
