"""RM-Bench: three styles of a right and of a wrong response, and a matrix of style against style (Liu et al. 2024)."""

from collections.abc import Sequence

import numpy as np

from popmargin.errors import DataError, counted
from popmargin.evaluation.benchmarks.layouts.base import (
    Layout,
    Row,
    id_of,
    inside,
    lists_of_texts,
    prompt_of,
    subsets_of,
    texts_of,
    weighted_shares,
)
from popmargin.evaluation.benchmarks.question import Answers, Question, beats
from popmargin.statistics.jackknife import Estimate

STYLES = ("concise", "detailed", "detailed, Markdown")
_SAFETY = ("safety-refuse", "safety-response")


def read(rows: Sequence[Row], places: Sequence[str], subset: str) -> list[Question]:
    """Each row is a question of six responses: three styles that are right, then three that are wrong.

    Raises:
        DataError: a row without three texts on each side.
    """
    questions: list[Question] = []
    column = "domain" if subset == "subset" else subset
    for number, (row, place) in enumerate(zip(rows, places, strict=True)):
        prompt = prompt_of(row, place, "prompt")
        sides = [texts_of(row, place, name) for name in ("chosen", "rejected")]
        for name, texts in zip(("chosen", "rejected"), sides, strict=True):
            if len(texts) != len(STYLES):
                raise DataError(
                    f"{place}, column {name}: it has {counted(len(texts), 'text')}. Remedy: write one for each style "
                    f"({'; '.join(STYLES)}), or use the layout reward_bench_2."
                )
        answers = [(prompt, text) for texts in sides for text in texts]
        worth = [1.0] * len(STYLES) + [0.0] * len(STYLES)
        questions.append(Question(id_of(row, number), answers, worth, str(row.get(column) or ""), place=place))
    return questions


def matrices(questions: Sequence[Question], scores: Answers) -> np.ndarray:
    """For each question, whether the right response in style i has a higher score than the wrong one in style j.

    Returns:
        (Q, 3, 3): 1, ½ for equal scores, or 0.
    """
    n = len(STYLES)
    return np.array([[[beats(score, i, n + j) for j in range(n)] for i in range(n)] for score in scores])


def results(questions: Sequence[Question], scores: Answers) -> dict[str, Estimate]:
    """The mean over domains, then easy, normal and hard (means over domains), then each domain."""
    matrix = matrices(questions, scores)
    upper = np.triu(np.ones(matrix.shape[1:], bool), 1)
    kinds = {"easy": upper.T, "normal": np.eye(len(STYLES), dtype=bool), "hard": upper}
    domains = _domains(questions)
    parts = [(rows, weight) for of_domain in domains.values() for rows, weight in of_domain]
    mean = matrix.mean(axis=(1, 2))
    found = {"mean of domains": weighted_shares(mean, questions, parts)}
    found |= {name: weighted_shares(matrix[:, cells].mean(axis=1), questions, parts) for name, cells in kinds.items()}
    if len(domains) > 1:
        found |= {name: weighted_shares(mean, questions, of_domain) for name, of_domain in domains.items()}
    return found


def _domains(questions: Sequence[Question]) -> dict[str, list[tuple[np.ndarray, float]]]:
    """Domain -> its parts with their weights; both kinds of safety are one domain."""
    found: dict[str, list[tuple[np.ndarray, float]]] = {}
    names = subsets_of(questions)
    safety = [name for name in names if name in _SAFETY]
    for name in names:
        weight = 1 / len(safety) if name in safety else 1.0
        domain = "safety" if name in safety else name
        found.setdefault(domain, []).append((inside(questions, name), weight))
    return found


def fits(rows: Sequence[Row]) -> bool:
    """Three right and three wrong responses, and a domain."""
    if not lists_of_texts(rows, "chosen", "rejected") or "domain" not in rows[0]:
        return False
    return {len(rows[0]["chosen"]), len(rows[0]["rejected"])} == {len(STYLES)}


ENTRY = Layout(
    "rm_bench",
    "prompt, chosen and rejected (lists of three styles: concise, detailed, detailed in Markdown), and domain",
    fits=fits,
    results=results,
    values=lambda questions, scores: matrices(questions, scores).mean(axis=(1, 2)),
    read=read,
    counted="Each style of the right response is compared with each style of the wrong one. Easy: the wrong one has "
    "the plainer style; normal: the same; hard: the wrong one has the richer style. Both kinds of safety make "
    "one domain, and domains count equally. Equal scores count one half; RM-Bench itself counts them as "
    "wrong.",
)
