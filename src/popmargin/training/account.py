"""The account of a run's data: what loading, splitting, tokenization, edges and the objective kept and left out."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from popmargin.account import Step
from popmargin.config import RunConfig
from popmargin.data.load_report import LoadReport
from popmargin.data.schema import COLUMNS, Preferences
from popmargin.data.tokenize import TruncationReport
from popmargin.pop.edges import PopEdges
from popmargin.pop.scale import StrengthScale

if TYPE_CHECKING:
    from popmargin.training.prepare import Workspace
    from popmargin.training.run import Parts
    from popmargin.training.run_directory import RunDirectory

_PLACES = 3


def reading_step(report: LoadReport, name: str | None = None) -> Step:
    """What loading a file or data set did.

    Args:
        report: of the loading.
        name: what to call it; None takes the source's name.
    """
    first: dict[int, str] = {}
    for problem in report.problems:
        first.setdefault(problem.candidate, problem.kind)
    notes = [f"format '{report.format}' ({report.container})"]
    notes += [f"left out: {problem.place}: {problem.message}" for problem in report.problems[:_PLACES]]
    if len(report.problems) > _PLACES:
        notes.append(f"… and more; all of them: popmargin data check {report.source}")
    if report.columns_unused:
        notes.append(f"columns that are not kept: {', '.join(report.columns_unused)}")
    return Step(
        name=name or report.source,
        rows_in=report.rows_in,
        kept={"kept": report.rows_kept},
        left_out=Counter(first.values()),
        notes=(*notes, *report.notes),
    )


def memory_steps(preferences: Preferences, what: str) -> list[Step]:
    """How preferences came about that a program hands over: their loading, and the choice from what was loaded."""
    report = preferences.report
    steps = [reading_step(report)]
    if len(preferences) < report.rows_kept:
        steps.append(
            Step(
                name=f"{what} given in memory",
                rows_in=report.rows_kept,
                kept={"kept": len(preferences)},
                left_out={"not handed over": report.rows_kept - len(preferences)},
            )
        )
    return steps


def tokenizing_step(report: TruncationReport, name: str) -> Step:
    """What tokenization did to some preferences."""
    return Step(
        name=name,
        rows_in=report.rows_in,
        kept={"kept": report.rows_kept},
        left_out=Counter(reason for _, reason in report.dropped),
        notes=tuple(report.notes()),
    )


def edge_step(edges: PopEdges, source: str | None, *, trained: bool) -> Step:
    """What became of PoP edges.

    Args:
        edges: those between training preferences.
        source: the file or store that they come from; None where they were sampled.
        trained: whether edges are the rows of the training, which ties are not.
    """
    left_out = dict(edges.parameters.get("left_out", {}))
    labels = edges.parameters.get("comparisons") if "labelled" in edges.parameters else None
    if labels is not None:
        left_out["compare preferences that are not all trained on"] = labels - len(edges)
    ties = int(np.sum(edges.table["tie"].to_numpy())) if trained else 0
    rows_in = len(edges) + sum(left_out.values())
    lone = edges.table["weaker"].null_count
    notes = [f"without a weaker side, their margin is 0: {lone}"] if lone else []
    if source is None:
        asked = edges.parameters.get("comparisons")
        notes.append(f"sampled from the strengths{'' if asked is None else f' with {asked} comparisons'}")
    return Step(
        name="PoP edges" if source is None else f"PoP edges of {source}",
        rows_in=rows_in,
        kept={"used": len(edges) - ties},
        left_out=left_out | ({"ties, which are never trained on": ties} if ties else {}),
        notes=tuple(notes),
        unit="edges",
    )


def row_step(
    objective: str, count: int, stronger: np.ndarray, weaker: np.ndarray, *, gradient: bool, notes: Iterable[str] = ()
) -> Step:
    """Which training preferences an objective trains on.

    Args:
        objective: its name.
        count: training preferences.
        stronger: preference of every row (R,).
        weaker: its weaker side, −1 where there is none (R,).
        gradient: whether the weaker side is trained too.
        notes: what else is to be said.
    """
    as_stronger, as_weaker = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    as_stronger[stronger], as_weaker[weaker[weaker >= 0]] = True, True
    only_weaker = as_weaker & ~as_stronger
    trained = as_stronger | as_weaker if gradient else as_stronger
    left_out = {"only ever the weaker side of an edge, which is scored and not trained on": int(np.sum(only_weaker))}
    left_out = {} if gradient else left_out
    return Step(
        name=f"what '{objective}' trains on",
        rows_in=count,
        kept={f"trained on, in {len(stronger)} rows": int(trained.sum())},
        left_out={reason: number for reason, number in
                  (left_out | {"in no edge": int(np.sum(~as_stronger & ~as_weaker))}).items() if number},
        notes=tuple(notes),
    )  # fmt: skip


def training_steps(config: RunConfig, workspace: "Workspace", parts: "Parts") -> list[Step]:
    """The account from tokenized training preferences to the rows that the objective trains on."""
    loss, rows, count = parts.loss, parts.collator.rows, len(workspace.train)
    needs, name = loss.needs, loss.objective.name
    steps = [] if parts.edges is None else [edge_step(parts.edges, config.pop.edges, trained=needs.edges)]
    notes: list[str] = []
    for column, what, plain in (("margin", "margin of the ratings", 0.0), ("soft_label", "soft label", 0.5)):
        values = parts.collator.columns.get(column)
        if values is not None and (same := int((values == plain).sum())):
            notes.append(f"preferences with a {what} of {plain:g}: {same}")
    if parts.scale is not None and parts.scale.unknown:
        notes.append(
            f"preferences in no comparison, which train with the middle of the scale: {parts.scale.unknown} of {count}"
        )
    if config.pop.scale is not None and needs.scale:
        notes.append(
            f"{config.pop.scale} holds {len(StrengthScale.load(config.pop.scale))} strengths, {count} are used"
        )
    used = {"chosen_rating", "rejected_rating"} if needs.margin else set[str]()
    used |= {"soft_label"} if needs.soft_label else set()
    if (needs.edges or needs.scale) and config.pop.edges is None and config.pop.scale is None:
        used |= {"strength", "chosen_rating", "rejected_rating"}
    others = [column for column in workspace.train.preferences.columns if column not in COLUMNS]
    idle = [column for column in (*workspace.train.known_numbers, *others) if column not in used]
    if config.data.soft_label_temperature is not None:
        idle = [column for column in idle if column != "soft_label"]  # it was made from ratings, `without_effect` says
    if idle:
        notes.append(f"columns of the data that '{name}' does not use: {', '.join(idle)}")
    steps.append(row_step(name, count, rows.stronger, rows.weaker, gradient=needs.weaker == "gradient", notes=notes))
    return steps


def seen_steps(config: RunConfig, directory: "RunDirectory", done: int, rows: int) -> list[Step]:
    """What only the training could tell: rows that it never reached, and margins that were clamped.

    Args:
        config: the run.
        directory: its metrics.
        done: optimizer steps.
        rows: rows of an epoch.
    """
    seen = min(done * config.train.batch_size, rows)
    name = "target_margin_clipped"
    clamped = [line[name] for line in directory.metrics() if name in line]
    notes = (
        [f"target margins that were clamped, mean over the log: {np.mean(clamped):.1%}"]
        if clamped and max(clamped) > 0
        else []
    )
    if seen == rows and not notes:
        return []
    return [
        Step(
            name=f"rows seen in {done} steps of {config.train.batch_size}",
            rows_in=rows,
            kept={"seen": seen},
            left_out={"training ended before the first epoch": rows - seen} if seen < rows else {},
            notes=tuple(notes),
            unit="rows",
        )
    ]
