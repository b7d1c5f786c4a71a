"""The account of one run: the rows that its objective trains on, and facts known only after training."""

from collections.abc import Collection, Sequence

import numpy as np

from popmargin.account import Step
from popmargin.data.schema import COLUMNS, Preferences
from popmargin.errors import counted
from popmargin.pop.scale import StrengthScale
from popmargin.training.account import edge_step, row_step
from popmargin.training.build import Parts, Run
from popmargin.training.signals import own_order, weight_notes
from popmargin.training.workspace import Workspace


def training_steps(run: Run, workspace: Workspace, parts: Parts) -> list[Step]:
    """The account from tokenized training preferences to the rows the objective trains on."""
    pop, loss, rows, count = run.pop, parts.loss, parts.collator.rows, len(workspace.train)
    needs, name = loss.needs, loss.objective.name
    steps = [] if parts.edges is None else [edge_step(parts.edges, pop.edges, trained=needs.edges)]
    preferences = workspace.train.preferences
    signals, columns = loss.columns(preferences), parts.collator.columns
    sampled = loss.samples_edges(pop)
    order = loss.signals.get("order") if sampled else None
    told = signals if order is None else {**signals, "order": order}
    notes = [signal.describe(use, preferences.report.columns_used) for use, signal in told.items()]
    if sampled and order is None:
        notes.append(own_order(preferences))
    for use, plain in (("margin", 0.0), ("soft_label", 0.5)):
        if use in columns and (same := int((columns[use] == plain).sum())):
            notes.append(f"preferences with a {use.replace('_', ' ')} of {plain:g}: {same}")
    weights = rows.weights(columns)
    if weights is not None:
        notes += weight_notes(weights)
    if parts.edges is not None and needs.edges:
        lighter: dict[str, float] = parts.edges.parameters.get("weights", {})
        notes += [f"each edge of {name} counts {weight:g}" for name, weight in lighter.items()]
    if parts.scale is not None and parts.scale.unknown:
        notes.append(
            f"preferences without a comparison, trained at the middle of the scale: {parts.scale.unknown} of {count}"
        )
    if pop.scale is not None and needs.scale:
        notes.append(
            f"{pop.scale} has {counted(len(StrengthScale.load(pop.scale)), 'strength')}, of which {count} are used"
        )
    used = {*workspace.task.columns, *(name for signal in told.values() for name in signal.sources)}
    if sampled and order is None:
        used |= {"strength", "chosen_rating", "rejected_rating"}
    idle = _idle(preferences, workspace.train.known_numbers, used)
    if run.data.soft_label_temperature is not None:
        idle = [
            column for column in idle if column != "soft_label"
        ]  # it was made from ratings, as `without_effect` says
    if idle:
        notes.append(f"data columns not used by '{name}': {', '.join(idle)}")
    notes += run.copies
    steps.append(row_step(name, count, rows.stronger, rows.weaker, gradient=needs.weaker == "gradient", notes=notes))
    return steps


def _idle(preferences: Preferences, numbers: Sequence[str], used: Collection[str]) -> list[str]:
    """The columns of the data that are not used. A file's `margin` that was read as the strength is one column."""
    source = preferences.report.columns_used
    read = {source.get(name, name) for name in used}
    own = [name for name in numbers if name not in used and source.get(name, name) not in read]
    read |= {source.get(name, name) for name in own}
    return [*own, *(name for name in preferences.columns if name not in {*COLUMNS, *used, *read})]


def seen_steps(run: Run, done: int, rows: int, notes: Sequence[str] = ()) -> list[Step]:
    """Facts known only after training: rows it never reached, clamped margins, and that nothing was trained.

    Args:
        run: with its metrics.
        done: optimizer steps.
        rows: rows per epoch.
        notes: further sentences.
    """
    batch_size = run.train.batch_size
    seen = min(done * batch_size, rows)
    name = "target_margin_clipped"
    clamped = [line[name] for line in run.directory.metrics() if name in line]
    told = [*notes]
    if clamped and max(clamped) > 0:
        told.append(f"share of clipped target margins, mean over the log: {np.mean(clamped):.1%}")
    told += untrained(run)
    if seen == rows and not told:
        return []
    return [
        Step(
            name=f"rows seen in {counted(done, 'step')} of {batch_size}",
            rows_in=rows,
            kept={"seen": seen},
            left_out={"training ended before the first epoch": rows - seen} if seen < rows else {},
            notes=tuple(told),
            unit="rows",
        )
    ]


def untrained(run: Run) -> list[str]:
    """A sentence if every logged step had a learning rate of 0, as a run of a single step that is all warm-up."""
    rates = [line["learning_rate"] for line in run.directory.metrics() if "learning_rate" in line]
    if not rates or any(rates):
        return []
    if not run.train.learning_rate:
        return ["nothing was trained: train.learning_rate is 0"]
    why = "every step was a warm-up step at a learning rate of 0"
    return [f"nothing was trained: {why}; lower train.warmup_ratio, or train for more steps"]
