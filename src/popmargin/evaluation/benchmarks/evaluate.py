"""A model on a benchmark: read the questions, score the responses, count.

Axis suffixes: Q questions.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.data.load import load_preferences
from popmargin.data.locate import open_source
from popmargin.data.read_responses import raw_rows
from popmargin.data.schema import holds_images
from popmargin.errors import ConfigError, DataError, counted
from popmargin.evaluation.benchmarks.layouts import LAYOUTS, find_layout
from popmargin.evaluation.benchmarks.layouts.base import Layout, Read, inside, share, subsets_of
from popmargin.evaluation.benchmarks.layouts.reward_bench_2 import MEAN, is_ties
from popmargin.evaluation.benchmarks.layouts.rm_bench import matrices
from popmargin.evaluation.benchmarks.question import Answer, Answers, Compared, Question, Scores
from popmargin.evaluation.benchmarks.scorer import Scorer
from popmargin.evaluation.best_of_n import divergence, expected_best
from popmargin.rewards.rate import last_turn
from popmargin.statistics.intervals import Interval
from popmargin.statistics.jackknife import Estimate, row_means

_CURVE = (1, 2, 4, 8, 16, 32, 64)
_KEYS = ("subset", "domain", "category")


@dataclass(frozen=True)
class Benchmark:
    """What is asked, and how it is counted.

    Attributes:
        name: of the data.
        layout: how a row holds its responses, and how they are counted.
        read: the questions, with the account of rows.
    """

    name: str
    layout: Layout
    read: Read

    @property
    def questions(self) -> list[Question]:
        """The questions."""
        return self.read.questions


@dataclass(frozen=True)
class BenchmarkResult:
    """A model's result.

    Attributes:
        benchmark: what was asked.
        model: what answered.
        kind: what it was used as.
        meaning: of a score.
        scores: of each question's responses; of a judge that compares, which of two is better.
        notes: what the model did with responses that it could not score in full, or what a judge's answers were.
        comparisons: of a judge that compares, how many pairs had which outcome.
    """

    benchmark: Benchmark
    model: str
    kind: str
    meaning: str
    scores: Answers
    notes: tuple[str, ...] = ()
    comparisons: Mapping[str, Any] | None = None

    def estimates(self) -> dict[str, Estimate]:
        """The benchmark's results by name, the main one first."""
        return self.benchmark.layout.results(self.benchmark.questions, self.scores)

    @property
    def results(self) -> dict[str, Interval]:
        """The same with their 95% intervals over questions."""
        ties = [name for name in subsets_of(self.benchmark.questions) if is_ties(name)]
        plain = [*ties, MEAN] if ties else []  # no shares: the score of Ties goes up to 1.01
        return {
            name: found.interval(scale="share" if self.shares and name not in plain else "plain")
            for name, found in self.estimates().items()
        }

    @property
    def shares(self) -> bool:
        """Whether responses are right or wrong, and not graded."""
        return {value for question in self.benchmark.questions for value in question.worth} <= {0.0, 1.0}

    def subsets(self) -> list[dict[str, Any]]:
        """Of all questions and each subset: their number, the model's mean, the longest response's, and a guess's."""
        questions, values = self.benchmark.questions, self.benchmark.layout.values
        columns = {"model": values(questions, self.scores), "longest": values(questions, self._as_asked(lengths))}
        guess = values(questions, self._as_asked(lambda some: [np.zeros(len(question.worth)) for question in some]))
        names, rows = subsets_of(questions), list[dict[str, Any]]()
        for name in [None, *(names if len(names) > 1 else [])]:
            rows_Q = np.ones(len(questions), bool) if name is None else inside(questions, name)
            scale = "share" if self.shares else "plain"
            found = {key: share(column, questions, rows_Q).interval(scale=scale) for key, column in columns.items()}
            rows.append({"subset": name, "questions": int(rows_Q.sum()), **found, "guess": float(guess[rows_Q].mean())})
        return rows

    def matrix(self) -> list[list[float]] | None:
        """RM-Bench's: the share of questions in which style i of the right response beats style j of the wrong one."""
        if self.benchmark.layout.name != "rm_bench":
            return None
        return matrices(self.benchmark.questions, self.scores).mean(axis=0).tolist()

    def curve(self) -> list[tuple[int, float, Interval]]:
        """For samples that are right or graded: n, KL of the best of n in nats (an upper bound), and its worth."""
        scores = [score for score in self.scores if isinstance(score, np.ndarray)]
        if self.benchmark.layout.name != "rated_samples" or self.comparisons is not None:
            return []
        questions = self.benchmark.questions
        most = min(len(question.worth) for question in questions)
        ns = [n for n in _CURVE if n <= most]
        rows = [expected_best(score, q.worth, ns) for score, q in zip(scores, questions, strict=True)]
        values, clusters = np.array(rows), [question.cluster for question in questions]
        return [
            (n, divergence(n), row_means(values[None, :, place], clusters).interval()) for place, n in enumerate(ns)
        ]

    def _as_asked(self, score: Callable[[Sequence[Question]], Scores]) -> Answers:
        """Scores, or how they decide the pairs that the model was asked about, so that both are counted alike."""
        questions = self.benchmark.questions
        if self.comparisons is None:
            return score(questions)
        return [
            Compared.by_score(question.compared, one) for question, one in zip(questions, score(questions), strict=True)
        ]

    def minus(self, other: Mapping[str, Any]) -> dict[str, Interval]:
        """Differences from another model's stored result on the same questions, paired by question.

        Raises:
            DataError: it is of other questions.
        """
        if other.get("fingerprint") != fingerprint(self.benchmark):
            raise DataError("The other result is of other questions. Evaluate both models on the same data.")
        second = BenchmarkResult(
            self.benchmark, "", "", "", [_answer_of(row) for row in other["questions"]]
        ).estimates()
        return {name: found.minus(second[name]) for name, found in self.estimates().items() if name in second}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `questions` has each question's scores, so that other results can be compared."""
        read = self.benchmark.read
        plain: dict[str, Any] = {
            "kind": "benchmark",
            "data": self.benchmark.name,
            "layout": self.benchmark.layout.name,
            "fingerprint": fingerprint(self.benchmark),
            "rows": {"in": read.rows_in, "questions": len(read.questions), "left_out": dict(read.left_out)},
            "notes": [*read.notes, *self.notes],
            "model": {"name": self.model, "used_as": self.kind, "score": self.meaning},
            "results": {name: interval.to_dict() for name, interval in self.results.items()},
            "subsets": [
                {key: value.to_dict() if isinstance(value, Interval) else value for key, value in row.items()}
                for row in self.subsets()
            ],
            "questions": [
                {"id": question.id, "subset": question.subset, **_plain(score), "worth": question.worth}
                for question, score in zip(read.questions, self.scores, strict=True)
            ],
        }
        if self.comparisons is not None:
            plain["comparisons"] = dict(self.comparisons)
        if (matrix := self.matrix()) is not None:
            plain["matrix"] = matrix
        if curve := self.curve():
            plain["best_of_n"] = [{"n": n, "kl": kl, **found.to_dict()} for n, kl, found in curve]
        return plain


def read_benchmark(
    source: str | Path | list[dict[str, Any]],
    *,
    layout: str = "auto",
    split: str | None = None,
    subset: str | None = None,
) -> Benchmark:
    """Read a benchmark.

    Args:
        source: a file, folder, hub id or list of dictionaries.
        layout: a name in `LAYOUTS`, or "auto" to find it from the columns.
        split: of a data set that has several.
        subset: the column that names a question's subset; by default `subset`, `domain` or `category` if there is one.

    Raises:
        ConfigError: there is no such layout.
        DataError: the data cannot be read, or do not have the layout.

    Example:
        >>> row = {"prompt": "2+2?", "chosen": ["4", "four"], "rejected": ["5"]}
        >>> read_benchmark([row]).layout.name
        'reward_bench_2'
    """
    if layout not in ("auto", *LAYOUTS):
        find_layout(layout, [])
    opened = open_source(source, split=split)
    first = next((rows for batch in opened.batches() if (rows := batch.read())), [])
    if not first:
        raise DataError(f"{opened.name} holds no rows, so there is nothing to ask.")
    found, column = find_layout(layout, first), _subset_column(first, subset)
    if found.read is None:
        return Benchmark(opened.name, found, _of_preferences(source, split, column))
    _, rows, places, _ = raw_rows(source, split=split)
    return Benchmark(opened.name, found, Read(found.read(rows, places, column), len(rows)))


def _subset_column(rows: Sequence[Mapping[str, Any]], named: str | None) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if named is None:
        return next((name for name in _KEYS if name in names), "subset")
    if named not in names:
        raise ConfigError(f"There is no column '{named}' of subsets. The data have {', '.join(names)}.")
    return named


def _of_preferences(source: Any, split: str | None, column: str) -> Read:
    """Preferences in any layout; those that cannot be used are reported and left out."""
    prefs = load_preferences(source, split=split, bad_rows="drop", contradictions="keep")
    if holds_images(prefs):
        raise DataError("The responses are images, and a benchmark compares texts. Rate them with popmargin data rate.")
    has = column in prefs.columns
    names = ["prompt", "chosen", "rejected", "id", *([column] if has else [])]
    questions: list[Question] = []
    for batch in prefs.batches(*names):
        for row in range(len(batch["id"])):
            label, prompt = batch["id"][row], batch["prompt"][row]
            answers = [
                last_turn(prompt, batch[side][row], f"the preference '{label}'") for side in ("chosen", "rejected")
            ]
            subset = batch[column][row] if has else ""
            questions.append(Question(label, answers, [1.0, 0.0], "" if subset is None else str(subset)))
    report = prefs.report
    first = {problem.candidate: problem.kind for problem in reversed(report.problems)}
    return Read(questions, report.rows_in, Counter(first.values()), tuple(report.notes))


def _plain(answer: Answer) -> dict[str, Any]:
    """An answer for JSON: scores, or [better, worse, win] of each pair."""
    if isinstance(answer, Compared):
        return {"pairs": [[i, j, win] for (i, j), win in answer.wins.items()]}
    return {"scores": answer.tolist()}


def _answer_of(row: Mapping[str, Any]) -> Answer:
    """The inverse of `_plain`."""
    if "pairs" in row:
        return Compared({(int(i), int(j)): float(win) for i, j, win in row["pairs"]})
    return np.array(row["scores"], dtype=np.float64)


def lengths(questions: Sequence[Question]) -> Scores:
    """The number of characters of each response as its score: the baseline that every table shows."""
    return [np.array([float(len(text)) for _, text in question.answers]) for question in questions]


def fingerprint(benchmark: Benchmark) -> str:
    """SHA-256 of what is asked: ids, prompts, responses and what they are worth."""
    digest = hashlib.sha256()
    for question in benchmark.questions:
        digest.update(json.dumps([question.id, question.answers, question.worth], sort_keys=True).encode())
    return digest.hexdigest()


def evaluate_benchmark(benchmark: Benchmark, scorer: Scorer) -> BenchmarkResult:
    """Score every response, and count.

    Raises:
        DataError: there is no question.
        RunError: the model cannot score a response.
    """
    if not benchmark.questions:
        raise DataError(f"{benchmark.name}: {counted(benchmark.read.rows_in, 'row')}, and none is a question.")
    scores = scorer.score(benchmark.questions)
    return BenchmarkResult(benchmark, scorer.name, scorer.kind, scorer.meaning, scores, tuple(scorer.take_notes()))
