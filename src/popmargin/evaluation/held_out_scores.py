"""Scores of held-out preferences under a model, and the objective's loss on them.

Axis suffixes: N held-out preferences, R rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor

from popmargin.engine.scores import PairScores
from popmargin.engine.sequences import split_to_budget
from popmargin.errors import DataError
from popmargin.objectives.base import Logps
from popmargin.pop.edges import PopEdges
from popmargin.training.batches import TrainingRows
from popmargin.training.build import Run
from popmargin.training.loss import Loss
from popmargin.training.workspace import Workspace


@torch.no_grad()
def held_out_scores(model: Any, run: Run, workspace: Workspace, *, selected: bool = False) -> PairScores:
    """Scores of all held-out preferences (N,) of the objective's kind, on the CPU, independent of batching.

    Args:
        model: in the run's task; it is scored in evaluation mode and left unchanged.
        run: the objective and the settings of evaluation.
        workspace: the held-out preferences.
        selected: let the run's token selector weigh the tokens, as in training.

    Raises:
        DataError: the model cannot score a row; the message names it.
    """
    loss, data, task, settings = run.loss, workspace.test, workspace.task, run.evaluation
    task.check_scoring(data.encoded, model)
    tokens = loss.tokens if selected else None
    scorer = task.scorer(model, loss.kind, precision=run.model.precision, wide=True, tokens=tokens)
    scoring = None if tokens is None or loss.scoring is None else task.reference(data.encoded, loss.scoring)
    inputs = task.inputs(data.encoded, scorer, reference=data.reference, scoring=scoring)
    device = next(model.parameters()).device
    parts: list[tuple[list[int], PairScores]] = []
    was_training = model.training
    model.eval()
    try:
        for rows in split_to_budget(inputs.costs().tolist(), settings.tokens_per_batch):
            batch = send_to_device(inputs.collate(np.array(rows)), device)
            parts.append((rows, scorer.score(model, batch, torch.Generator().manual_seed(settings.seed))))
    finally:
        model.train(was_training)
    return _together(parts, len(data))


def _together(parts: Sequence[tuple[list[int], PairScores]], count: int) -> PairScores:
    """Scores of all preferences (N,) from those of parts."""

    def joined(values: Sequence[Tensor | None]) -> Tensor | None:
        if not values or values[0] is None:
            return None
        whole = torch.empty(count, dtype=values[0].dtype)
        for (rows, _), value in zip(parts, values, strict=True):
            whole[rows] = value.cpu()  # pyright: ignore[reportOptionalMemberAccess]
        return whole

    logps = [vars(scores.logps) for _, scores in parts if scores.logps is not None]
    sums: dict[str, Any] = {name: joined([each[name] for each in logps]) for name in (logps[0] if logps else {})}
    chosen, rejected = (joined([getattr(scores, side) for _, scores in parts]) for side in ("chosen", "rejected"))
    none = torch.empty(0, dtype=torch.float64)
    return PairScores(none if chosen is None else chosen, none if rejected is None else rejected,
                      Logps(**sums) if sums else None)  # fmt: skip


def why_no_loss(loss: Loss, workspace: Workspace, edges: PopEdges | None) -> str:
    """Why the objective has no loss on held-out preferences, as the end of a sentence; empty if it has one.

    Args:
        loss: with its target.
        workspace: the held-out preferences.
        edges: PoP edges between them; None if there are none.
    """
    name = loss.objective.name
    if loss.needs.scale:
        return f"'{name}' reads a strength scale, which is fitted to training preferences alone"
    if loss.needs.edges and edges is None:
        return f"'{name}' needs PoP edges, and there are none between held-out preferences without known strengths"
    if loss.decoupling:
        return f"'{name}' contrasts the logits of policy and reference, which evaluation does not compute"
    if loss.target is not None and loss.target.forward == "none":
        return "the target is a bank of gaps, which holds training preferences alone"
    try:
        _columns(loss, workspace)
    except DataError as error:
        return f"the held-out preferences lack a column: {error}"
    return ""


@torch.no_grad()
def held_out_loss(
    model: Any,
    run: Run,
    workspace: Workspace,
    *,
    loss: Loss,
    scores: PairScores,
    edges: PopEdges | None,
    state: Mapping[str, Tensor],
) -> float:
    """The mean loss over held-out rows, as minimized in training, with regularizers, margin and weights.

    Rows are preferences, or the PoP edges between them for an objective that needs edges. For an objective
    with statistics over the rows forwarded together, they all form one batch, so the loss does not depend on the batch
    size.

    Args:
        model: as in `held_out_scores`.
        run: as in `held_out_scores`.
        workspace: as in `held_out_scores`.
        loss: the training loss, with its target.
        scores: the result of `held_out_scores`.
        edges: PoP edges between the held-out preferences.
        state: of the objective.
    """
    rows = _rows_of(loss, len(scores.chosen), edges, workspace)
    if loss.tokens is not None:
        scores = held_out_scores(model, run, workspace, selected=True)
    target_N = None
    if loss.target is not None:
        target_N = scores.gap
        if loss.target.forward == "all":
            with loss.target.scoring():
                target_N = held_out_scores(model, run, workspace, selected=loss.tokens is not None).gap
    matched = torch.from_numpy(rows.weaker >= 0)
    part: dict[str, Any] = {
        "stronger": torch.from_numpy(rows.stronger),
        "weaker": torch.from_numpy(np.maximum(rows.weaker, 0)),
        "has_weaker": matched,
        "stronger_share": torch.from_numpy(rows.stronger_share),
        "weaker_share": torch.from_numpy(rows.weaker_share),
        "columns": {
            name: torch.from_numpy(values[rows.stronger]) for name, values in _columns(loss, workspace).items()
        },
    }
    seen = loss.rows(part, scores, target_N, progress=1.0, state=state, gather=lambda values: values)
    loss_R = loss.of_rows(seen, loss.less_margin(seen))
    weight_R = seen.columns.get("weight", torch.ones_like(loss_R))
    return float((loss_R * weight_R).sum() / weight_R.sum())


def _columns(loss: Loss, workspace: Workspace) -> dict[str, np.ndarray]:
    data = workspace.test
    names = loss.columns(data.preferences)
    return {name: data.column(name, loss.signals.get(name), beta=loss.beta) for name in names}


def _rows_of(loss: Loss, count: int, edges: PopEdges | None, workspace: Workspace) -> TrainingRows:
    if not loss.needs.edges or edges is None:
        return TrainingRows.of_preferences(count)
    stronger, weaker = edges.resolve(workspace.test.ids)
    weaker = np.full_like(weaker, -1) if loss.needs.weaker == "none" else weaker
    return TrainingRows.of_edges(stronger, weaker, count, everyone=loss.needs.weaker == "gradient")
