"""Many samples of each prompt, each right or wrong: the best of n, and pairs of a right and a wrong one (as in PPE)."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from popmargin.errors import DataError, a_kind, counted
from popmargin.evaluation.benchmarks.layouts.base import Layout, Row, id_of, picks, prompt_of, share
from popmargin.evaluation.benchmarks.question import Answers, Compared, Question, beats
from popmargin.statistics.jackknife import Estimate

_NUMBERED = re.compile(r"response_(\d+)")
_WORTH = ("scores", "ratings")
_PAIRS = ("sampled_conflict_pairs", "conflict_pairs")


def read(rows: Sequence[Row], places: Sequence[str], subset: str) -> list[Question]:
    """Each row is a question: `responses` or `response_1`, `response_2` … and what each is worth in `scores`.

    Raises:
        DataError: a row with other numbers of responses and scores, or a score that is no finite number.
    """
    questions: list[Question] = []
    for number, (row, place) in enumerate(zip(rows, places, strict=True)):
        prompt = prompt_of(row, place, "prompt", "question")
        texts = _responses(row)
        if len(texts) < 2 or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{place}: the responses are not two texts or more. Remedy: write a text for each.")
        column = next(name for name in _WORTH if name in row)
        worth = [_worth(value, place, column) for value in row[column] or ()]
        if len(worth) != len(texts):
            raise DataError(
                f"{place}, column {column}: it has {counted(len(worth), 'value')}, and the row has "
                f"{counted(len(texts), 'response')}. Remedy: give one value for each."
            )
        pairs = _pairs(row, place, len(texts))
        chosen = [(i, j) if worth[i] > worth[j] else (j, i) for i, j in pairs if worth[i] != worth[j]]
        answers = [(prompt, text) for text in texts]
        name = row.get(subset)
        questions.append(
            Question(id_of(row, number), answers, worth, "" if name is None else str(name), place=place, pairs=chosen)
        )
    return questions


def results(questions: Sequence[Question], scores: Answers) -> dict[str, Estimate]:
    """What the response with the highest score is worth, and how often the better one of a pair has a higher score.

    A judge that compares has no score, only pairs.
    """
    told = np.array([bool(question.compared) for question in questions])
    scored = not any(isinstance(score, Compared) for score in scores)
    found = {"the highest score": share(picks(questions, scores), questions)} if scored else {}
    right = _pairs_right(questions, scores)
    return found | ({"accuracy of pairs": share(right, questions, told)} if told.any() else {})


def values(questions: Sequence[Question], scores: Answers) -> np.ndarray:
    """What the response with the highest score is worth, or the accuracy of pairs if they were compared (Q,)."""
    compared = any(isinstance(score, Compared) for score in scores)
    return _pairs_right(questions, scores) if compared else picks(questions, scores)


def _pairs_right(questions: Sequence[Question], scores: Answers) -> np.ndarray:
    return np.array(
        [
            np.mean([beats(score, i, j) for i, j in question.compared]) if question.compared else 0.0
            for question, score in zip(questions, scores, strict=True)
        ]
    )


def _responses(row: Row) -> list[Any]:
    if isinstance(row.get("responses"), list):
        return row["responses"]
    numbered = {int(found[1]): row[name] for name in row if (found := _NUMBERED.fullmatch(name))}
    return [numbered[number] for number in sorted(numbered) if numbered[number] is not None]


def _pairs(row: Row, place: str, count: int) -> list[tuple[int, int]]:
    """The pairs that the row names, by the numbers of responses from 0.

    Raises:
        DataError: one is no pair of responses.
    """
    found: list[tuple[int, int]] = []
    for column in _PAIRS:
        for pair in row.get(column) or ():
            if len(pair) != 2 or not all(isinstance(number, int) and 0 <= number < count for number in pair):
                raise DataError(
                    f"{place}, column {column}: {str(pair)[:40]} is no pair of responses. Remedy: write two numbers "
                    f"from 0 to {count - 1}."
                )
            found.append((pair[0], pair[1]))
        if found:
            break
    return found


def _worth(value: Any, place: str, column: str) -> float:
    if not isinstance(value, bool | int | float) or not np.isfinite(value):
        raise DataError(
            f"{place}, column {column}: one value is {a_kind(value)}. Remedy: write true, false or a number."
        )
    return float(value)


def fits(rows: Sequence[Row]) -> bool:
    """A list of what the responses are worth, and three responses or more."""
    if not rows or not any(isinstance(rows[0].get(name), list) for name in _WORTH):
        return False
    texts = _responses(rows[0])
    return len(texts) > 1 and all(isinstance(text, str) for text in texts)


ENTRY = Layout(
    "rated_samples",
    "prompt, responses (a list, or response_1, response_2 …), and scores (a list: which are right, or a grade of each)",
    fits=fits,
    results=results,
    values=values,
    read=read,
    counted="The first number is what the response with the highest score is worth; of tied ones each is equally "
    "likely. Pairs are those of conflict_pairs if the data have them, otherwise all of different worth; every "
    "question counts the same. A judge that compares has the pairs only.",
)
