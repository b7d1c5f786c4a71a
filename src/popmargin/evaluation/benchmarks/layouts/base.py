"""What a layout of a benchmark is, and what all of them share.

Axis suffixes: Q questions, C columns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from popmargin.errors import DataError, a_kind
from popmargin.evaluation.benchmarks.question import Answers, Question, picked
from popmargin.rewards.base import Prompt
from popmargin.statistics.intervals import Clusters
from popmargin.statistics.jackknife import Estimate, without_each

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Read:
    """What was read of a benchmark's data.

    Attributes:
        questions: that can be asked.
        rows_in: rows of the data.
        left_out: reason -> number of rows that are no question.
        notes: what was done to rows, in sentences.
    """

    questions: list[Question]
    rows_in: int
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """A layout of rows, and how its benchmark counts.

    Attributes:
        name: for --layout.
        summary: the columns, in a sentence without a full stop.
        fits: whether rows have it.
        read: rows with their places, and the column of the subset, become questions; None where the data are read as
            preferences.
        results: named results from questions and a model's answers, the main one first.
        values: what each question counts in the table of subsets (Q,).
        counted: how the results are computed, in sentences.
        by_scores: whether a question counts by the sizes of scores, so that a judge that compares cannot answer it.
    """

    name: str
    summary: str
    fits: Callable[[Sequence[Row]], bool]
    results: Callable[[Sequence[Question], Answers], dict[str, Estimate]]
    values: Callable[[Sequence[Question], Answers], np.ndarray] = lambda questions, scores: picks(questions, scores)
    read: Callable[[Sequence[Row], Sequence[str], str], list[Question]] | None = None
    counted: str = ""
    by_scores: Callable[[Question], bool] = lambda question: False


def prompt_of(row: Row, place: str, *names: str) -> Prompt:
    """The row's prompt: text or messages, from the first of these columns.

    Raises:
        DataError: there is none.
    """
    for name in names:
        value = row.get(name)
        if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], Mapping)):
            return value  # type: ignore[return-value]
    held = ", ".join(f"{name} is {a_kind(row.get(name))}" for name in names)
    raise DataError(f"{place}: there is no prompt ({held}). Remedy: write a text or a list of messages.")


def texts_of(row: Row, place: str, name: str) -> list[str]:
    """The texts of a column that holds a list of them.

    Raises:
        DataError: it does not.
    """
    value = row.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise DataError(f"{place}, column {name}: it is {a_kind(value)}. Remedy: write a list of texts, at least one.")
    return value


def id_of(row: Row, number: int) -> str:
    """The row's id, or its number."""
    value = row.get("id", row.get("question_id"))
    return str(number) if value is None else str(value)


def lists_of_texts(rows: Sequence[Row], *names: str) -> bool:
    """Whether each of the columns holds lists of texts in the first row."""
    return bool(rows) and all(
        isinstance(value := rows[0].get(name), list) and value and all(isinstance(text, str) for text in value)
        for name in names
    )


def picks(questions: Sequence[Question], scores: Answers) -> np.ndarray:
    """What the first choice of each question is worth (Q,)."""
    return np.array([picked(score, question.worth) for question, score in zip(questions, scores, strict=True)])


def share(values_Q: np.ndarray, questions: Sequence[Question], inside_Q: np.ndarray | None = None) -> Estimate:
    """The mean of a value of each question, of all or of some; its variance is that over clusters."""
    weight_Q = np.ones(len(questions)) if inside_Q is None else inside_Q.astype(np.float64)
    return weighted_shares(values_Q, questions, [(weight_Q, 1.0)])


def weighted_shares(
    values_Q: np.ndarray, questions: Sequence[Question], parts: Sequence[tuple[np.ndarray, float]]
) -> Estimate:
    """A weighted mean of the means of parts.

    Args:
        values_Q: of each question (Q,).
        questions: for their clusters.
        parts: of each part, which questions belong to it (Q,), and its weight. Parts without questions do not count.
    """
    held = [(inside.astype(np.float64), weight) for inside, weight in parts if inside.any()]
    columns_QC = np.stack([column for inside, _ in held for column in (values_Q * inside, inside)], axis=-1)
    weights = np.array([weight for _, weight in held]) / sum(weight for _, weight in held)

    def statistic(sums: np.ndarray) -> np.ndarray:
        return (sums[..., 0::2] / sums[..., 1::2]) @ weights

    return without_each(columns_QC[None], Clusters([question.cluster for question in questions]), statistic)


def subsets_of(questions: Sequence[Question]) -> list[str]:
    """The names of subsets, in the order of the data."""
    return list(dict.fromkeys(question.subset for question in questions))


def inside(questions: Sequence[Question], *subsets: str) -> np.ndarray:
    """Which questions belong to one of the subsets (Q,)."""
    return np.array([question.subset in subsets for question in questions])
