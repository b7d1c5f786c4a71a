"""Preferences in any layout that popmargin reads: how often the better response has the higher score."""

from collections.abc import Sequence

from popmargin.evaluation.benchmarks.layouts.base import Layout, inside, picks, share, subsets_of, weighted_shares
from popmargin.evaluation.benchmarks.question import Answers, Question
from popmargin.statistics.jackknife import Estimate


def results(questions: Sequence[Question], scores: Answers) -> dict[str, Estimate]:
    """The accuracy over all pairs, and the mean over subsets where there are several."""
    right = picks(questions, scores)
    found = {"accuracy": share(right, questions)}
    names = subsets_of(questions)
    if len(names) > 1:
        found["mean of subsets"] = weighted_shares(right, questions, [(inside(questions, name), 1.0) for name in names])
    return found


ENTRY = Layout(
    "pairs",
    "preferences in any layout that popmargin data check reads",
    fits=lambda rows: True,
    results=results,
    counted="A pair with equal scores counts one half.",
)
