"""The account of a run's data: what loading, splitting, tokenization, edges and the objective kept and dropped."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from popmargin.account import Step
from popmargin.data.load_report import LoadReport
from popmargin.data.schema import Preferences
from popmargin.errors import counted
from popmargin.pop.edges import PopEdges
from popmargin.tasks.base import EncodingReport

_PLACES = 3


def reading_step(report: LoadReport, name: str | None = None) -> Step:
    """The step of loading a file or data set.

    Args:
        report: of the loading.
        name: of the step; None for the source's name.
    """
    notes = [f"format '{report.format}' ({report.container})"]
    notes += [f"left out: {problem.place}: {problem.message}" for problem in report.problems[:_PLACES]]
    if len(report.problems) > _PLACES:
        notes.append(f"… and more; list all with: popmargin data check {report.source}")
    if report.columns_unused:
        notes.append(f"columns that are not kept: {', '.join(report.columns_unused)}")
    return report.step(name, [*notes, *report.notes])


def memory_steps(preferences: Preferences, what: str) -> list[Step]:
    """The steps of preferences passed from Python: their loading, and the selection from what was loaded."""
    report = preferences.report
    steps = [reading_step(report)]
    if len(preferences) < report.rows_kept:
        steps.append(
            Step(
                name=f"{what} given in memory",
                rows_in=report.rows_kept,
                kept={"kept": len(preferences)},
                left_out={"not passed on": report.rows_kept - len(preferences)},
            )
        )
    return steps


def encoding_step(report: EncodingReport, name: str) -> Step:
    """The step of a task's encoding of preferences, such as tokenization."""
    return Step(
        name=name,
        rows_in=report.rows_in,
        kept={"kept": report.rows_kept},
        left_out=Counter(reason for _, reason in report.dropped),
        notes=tuple(report.notes()),
    )


def edge_step(edges: PopEdges, source: str | None, *, trained: bool) -> Step:
    """The step of PoP edges.

    Args:
        edges: those between training preferences.
        source: the file or store they come from; None if sampled.
        trained: whether edges are the training rows (ties never are).
    """
    left_out = dict(edges.parameters.get("left_out", {}))
    labels = edges.parameters.get("comparisons") if "labelled" in edges.parameters else None
    if labels is not None:
        left_out["involve preferences that are not trained on"] = labels - len(edges)
    ties = int(np.sum(edges.table["tie"].to_numpy())) if trained else 0
    rows_in = len(edges) + sum(left_out.values())
    lone = edges.table["weaker"].null_count
    notes = [f"without a weaker side (margin 0): {lone}"] if lone else []
    if source is None:
        asked = edges.parameters.get("comparisons")
        notes.append(f"sampled from the strengths{'' if asked is None else f' with {asked} comparisons'}")
    return Step(
        name="PoP edges" if source is None else f"PoP edges of {source}",
        rows_in=rows_in,
        kept={"used": len(edges) - ties},
        left_out=left_out | ({"ties, which are not trained on": ties} if ties else {}),
        notes=tuple(notes),
        unit="edges",
    )


def row_step(
    objective: str, count: int, stronger: np.ndarray, weaker: np.ndarray, *, gradient: bool, notes: Iterable[str] = ()
) -> Step:
    """The step of an objective: which training preferences it trains on.

    Args:
        objective: its name.
        count: training preferences.
        stronger: preference of every row (R,).
        weaker: its weaker side, −1 if there is none (R,).
        gradient: whether the weaker side gets a gradient too.
        notes: further notes.
    """
    as_stronger, as_weaker = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    as_stronger[stronger], as_weaker[weaker[weaker >= 0]] = True, True
    only_weaker = as_weaker & ~as_stronger
    trained = as_stronger | as_weaker if gradient else as_stronger
    left_out = {"only the weaker side of edges, scored but not trained on": int(np.sum(only_weaker))}
    left_out = {} if gradient else left_out
    return Step(
        name=f"what '{objective}' trains on",
        rows_in=count,
        kept={f"trained on, in {counted(len(stronger), 'row')}": int(trained.sum())},
        left_out={reason: number for reason, number in
                  (left_out | {"in no edge": int(np.sum(~as_stronger & ~as_weaker))}).items() if number},
        notes=tuple(notes),
    )  # fmt: skip
