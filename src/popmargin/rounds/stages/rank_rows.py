"""Ranking preferences by their loss under a policy, and keeping those that it fits best (ROPO's outer loop)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from popmargin.config import RunConfig, from_dict, merge, to_dict
from popmargin.data.load import load_preferences
from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError
from popmargin.evaluation.run import held_out_margins
from popmargin.files import PARQUET, whole_file
from popmargin.objectives.base import OBJECTIVES, Rows
from popmargin.rounds.plan import Output, Plan, Stage, Work
from popmargin.rounds.stages.split_data import known_flips
from popmargin.rounds.stages.trained_models import load_trained
from popmargin.statistics.intervals import UNDEFINED, Clusters
from popmargin.statistics.jackknife import share_of_sums
from popmargin.statistics.roc import roc_area
from popmargin.training.build import Run

_BINS = 40
Filter = Literal["loss", "random", "oracle"]


def keep_smallest(loss: np.ndarray, noise_share: float) -> np.ndarray:
    """Which rows to keep: the round((1 − f)·N) with the smallest loss; of equal losses the earlier row.

    Args:
        loss: of each row (N,), without nan.
        noise_share: f, the share of rows to drop.

    Returns:
        True where a row is kept (N,).

    Example:
        >>> keep_smallest(np.array([0.9, 0.1, 0.5, 0.7, 0.3]), 0.4).nonzero()[0].tolist()
        [1, 2, 4]
    """
    count = int(np.floor((1 - noise_share) * len(loss) + 0.5))
    kept = np.zeros(len(loss), dtype=bool)
    kept[np.argsort(loss, kind="stable")[:count]] = True
    return kept


def keep_rows(
    loss: np.ndarray, noise_share: float, *, by: Filter, wrong: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """Which rows to keep, by the loss or by one of its controls.

    Args:
        loss: of each row (N,), without nan.
        noise_share: f, the share of rows to drop; the oracle drops those that are wrong.
        by: `loss`; `random` drops as many rows, whatever their loss; `oracle` drops the rows known to be wrong.
        wrong: which rows are (N,), for the oracle.
        seed: of the random choice.

    Returns:
        True where a row is kept (N,).
    """
    if by == "random":
        return keep_smallest(np.random.default_rng(seed).random(len(loss)), noise_share)
    if by == "oracle":
        assert wrong is not None
        return ~wrong
    return keep_smallest(loss, noise_share)


def about_flips(rows: Preferences, loss: np.ndarray, kept: np.ndarray, wrong: np.ndarray) -> dict[str, Any]:
    """How well the loss finds labels that are known to be wrong, over the ranked rows; intervals are over prompts.

    Returns:
        `flips` among the ranked rows; `auc`, the probability that a flipped row has a larger loss than another one;
        `precision`, the share of the dropped rows that are flipped; `recall`, the share of the flipped rows that are
        dropped.
    """
    ranked = np.flatnonzero(np.isfinite(loss))
    wrong, dropped = wrong[ranked], ~kept[ranked]
    keys = rows.prompt_keys
    groups = Clusters([keys[row] for row in ranked])

    def share(of: np.ndarray) -> dict[str, Any]:
        if not of.any():
            return UNDEFINED.to_dict()
        return share_of_sums(groups.sums(np.stack([wrong & dropped, of], axis=1).astype(float))).to_dict()

    return {
        "flips": int(wrong.sum()),
        "auc": roc_area(loss[ranked], wrong, groups).to_dict(),
        "precision": share(dropped),
        "recall": share(wrong),
    }


def robust_loss(margin: np.ndarray, alpha: float) -> np.ndarray:
    """The ROPO loss of reward margins β·Δ (N,), without gradient."""
    gap = torch.from_numpy(margin)
    loss = OBJECTIVES.get("ropo")
    rows = Rows(chosen=gap, rejected=torch.zeros_like(gap))
    return loss.function(rows, loss.make_options({"beta": 1.0, "alpha": alpha})).numpy()


def add_ranking(
    plan: Plan,
    name: str,
    config: RunConfig,
    *,
    rows: Output,
    policies: Mapping[str, Output],
    halves: Mapping[str, Output] | None,
    inputs: Mapping[str, Output | Path],
    noise_share: float,
    objective: Mapping[str, Any],
    by: Filter = "loss",
    known: str | None = None,
    seed: int = 0,
) -> Stage:
    """Append the ranking of all original preferences.

    Args:
        plan: of the recipe.
        name: of the stage.
        config: shared settings, with the start model.
        rows: all original preferences.
        policies: `policy`, or with `halves` `a` and `b`.
        halves: the two halves that `a` and `b` were trained on; each ranks the rows of the other.
        inputs: `model.path` where the start model is a folder.
        noise_share: f, the share to drop.
        objective: ropo with its options.
        by: what decides which rows are dropped: see `keep_rows`.
        known: column that is not 0 where a label is known to be wrong, to measure the filter by.
        seed: of a random filter.
    """
    values = to_dict(config)
    settings: dict[str, Any] = {key: values[key] for key in ("seed", "model")} | {
        "data": {key: values["data"][key] for key in ("max_length", "truncation", "prompt", "reasoning")},
        "objective": dict(objective),
        "evaluation": {"tokens_per_batch": config.evaluation.tokens_per_batch},
        "noise_share": noise_share,
    }
    settings |= {"by": by, "random_seed": seed} if by == "random" else {"by": by} if by != "loss" else {}
    settings |= {} if known is None else {"known": known}
    for key in inputs:
        section, _, field = key.partition(".")
        settings[section].pop(field, None)
    given: dict[str, Output | Path] = {"rows": rows, **inputs, **policies}
    given |= {f"half-{half}": output for half, output in (halves or {}).items()}
    outputs = {"ranks": "ranks.parquet", "kept": "kept.parquet"}
    outputs |= {"dropped": "dropped.parquet"} if noise_share or by == "oracle" else {}
    outputs |= {f"kept-{half}": f"kept-{half}.parquet" for half in halves or ()}
    return plan.add(name, rank_stage, inputs=given, settings=settings, outputs=outputs)


def rank_stage(work: Work) -> dict[str, Any]:
    """Losses of all rows in evaluation mode; the kept and the dropped rows."""
    rows = load_preferences(work.inputs["rows"])
    halves = {name: set(load_preferences(path).ids) for name, path in work.inputs.items() if name.startswith("half-")}
    margin = np.full(len(rows), np.nan)
    place = {name: row for row, name in enumerate(rows.ids)}
    other = {"policy": None, "a": "half-b", "b": "half-a"}
    for policy, half in other.items():
        if policy in work.inputs:
            mine = (
                rows
                if half is None
                else rows.select([row for row, name in enumerate(rows.ids) if name in halves[half]])
            )
            for name, value in _margins(work, mine, work.inputs[policy]).items():
                margin[place[name]] = value
    ranked = np.flatnonzero(np.isfinite(margin))
    if not len(ranked):
        raise ConfigError("No row can be ranked: all are too long.")
    loss = np.full(len(rows), np.nan)
    loss[ranked] = robust_loss(margin[ranked], work.settings["objective"].get("alpha", 14.0))
    kept = np.zeros(len(rows), dtype=bool)
    settings = work.settings
    wrong = known_flips(rows, settings["known"]) if "known" in settings else None
    kept[ranked] = keep_rows(
        loss[ranked],
        settings["noise_share"],
        by=settings.get("by", "loss"),
        wrong=None if wrong is None else wrong[ranked],
        seed=settings.get("random_seed", 0),
    )
    _save(work, rows, margin, loss, kept)
    for half, names in halves.items():
        own = [row for row, name in enumerate(rows.ids) if name in names and kept[row]]
        rows.select(own).save(work.outputs[f"kept-{half.removeprefix('half-')}"])
    facts = _facts(rows, margin, loss, kept) | {"by": settings.get("by", "loss")}
    if wrong is not None:
        facts["known_flips"] = about_flips(rows, loss, kept, wrong)
    work.say(
        f"  {len(rows)} in = {facts['kept']} kept + {facts['dropped']} dropped + {facts['not_ranked']} not ranked; "
        f"the policy contradicts {facts['contradicted']:.0%}"
    )
    return facts


def _margins(work: Work, rows: Preferences, policy: Path) -> dict[str, float]:
    """Reward margin β·Δ of each row under a policy, by id; rows that are too long have none."""
    settings = {key: work.settings[key] for key in ("seed", "model", "data", "objective", "evaluation")}
    placed: dict[str, Any] = {"output": str(work.folder)}
    if "model.path" in work.inputs:
        placed["model"] = {"path": str(work.inputs["model.path"])}
    run = Run.read(from_dict(RunConfig, merge(settings, placed)))
    found = held_out_margins(load_trained(policy), run, run.workspace(test=rows))
    return dict(zip(found.ids, found.reward_margin.tolist(), strict=True))


def _save(work: Work, rows: Preferences, margin: np.ndarray, loss: np.ndarray, kept: np.ndarray) -> None:
    table = pa.table({"id": rows.ids, "reward_margin": margin, "loss": loss, "kept": kept})
    with whole_file(work.outputs["ranks"], PARQUET) as partial:
        pq.write_table(table, partial)
    rows.select(np.flatnonzero(kept)).save(work.outputs["kept"])
    if "dropped" in work.outputs:
        dropped = np.flatnonzero(~kept & np.isfinite(loss))
        rows.select(dropped).save(work.outputs["dropped"])


def _facts(rows: Preferences, margin: np.ndarray, loss: np.ndarray, kept: np.ndarray) -> dict[str, Any]:
    ranked = np.isfinite(margin)
    counts, edges = np.histogram(margin[ranked], bins=_BINS)
    dropped = ranked & ~kept
    lengths = np.array([len(str(text)) for batch in rows.batches("chosen") for text in batch["chosen"]], dtype=float)
    return {
        "rows": len(rows),
        "kept": int(kept.sum()),
        "dropped": int(dropped.sum()),
        "not_ranked": int((~ranked).sum()),
        "contradicted": float((margin[ranked] < 0).mean()),
        "cut": float(margin[dropped].max()) if dropped.any() else None,
        "histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
        "chosen_characters": {
            "kept": float(lengths[kept].mean()) if kept.any() else None,
            "dropped": float(lengths[dropped].mean()) if dropped.any() else None,
        },
    }
