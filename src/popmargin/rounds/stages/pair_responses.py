"""Preferences from labelled responses."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from popmargin.data.pairs import Pairing
from popmargin.data.responses import Responses
from popmargin.data.schema import Preferences
from popmargin.errors import counted
from popmargin.rounds.plan import Output, Plan, Stage, Work
from popmargin.rounds.stages.label_responses import LABEL


def add_pairs(
    plan: Plan, name: str, labelled: Output, *, pairs: Pairing, min_gap: float, drop_unfinished: bool, seed: int
) -> Stage:
    """Append the pairing; its output `preferences` can be trained on.

    Args:
        plan: of the recipe.
        name: of the stage.
        labelled: responses with the score `label`.
        pairs: which: see `Responses.pairs`.
        min_gap: least gap of the label.
        drop_unfinished: leave out pairs with a response that was cut at the limit.
        seed: of `best_vs_random`.
    """
    settings: Mapping[str, Any] = {"pairs": pairs, "min_gap": min_gap, "drop_unfinished": drop_unfinished, "seed": seed}
    return plan.add(name, pair_stage, inputs={"responses": labelled}, settings=settings,
                    outputs={"preferences": "preferences.parquet"})  # fmt: skip


def pair_stage(work: Work) -> dict[str, Any]:
    """Pair the responses to each prompt by their label."""
    responses = Responses.load(work.inputs["responses"])
    settings = work.settings
    preferences = responses.pairs(
        settings["pairs"],
        by=LABEL,
        min_gap=settings["min_gap"],
        seed=settings["seed"],
        unfinished="drop" if settings["drop_unfinished"] else "keep",
    )
    preferences.save(work.outputs["preferences"])
    facts = about_pairs(preferences)
    account = work.tell(preferences.report.step(f"pairs of {counted(len(responses), 'prompt')}"))
    left_out = preferences.report.left_out
    return facts | {"prompts": len(responses), "left_out": left_out, "account": account}


def about_pairs(preferences: Preferences) -> dict[str, Any]:
    """Numbers that show what a labeller prefers: lengths of both sides, and how often the longer one is chosen."""
    sides = [np.array([len(str(text)) for batch in preferences.batches(side) for text in batch[side]], dtype=float)
             for side in ("chosen", "rejected")]  # fmt: skip
    unit = "characters"
    if {"chosen_tokens", "rejected_tokens"} <= set(preferences.columns):
        sides = [preferences.column(f"{side}_tokens") for side in ("chosen", "rejected")]
        unit = "tokens"
    chosen, rejected = sides
    gaps = preferences.rating_gap
    gaps = gaps[np.isfinite(gaps)]
    return {
        "pairs": len(preferences),
        "chosen_length": float(chosen.mean()),
        "rejected_length": float(rejected.mean()),
        "length_unit": unit,
        "longer_chosen": float((np.sign(chosen - rejected) / 2 + 0.5).mean()),
        "label_gap": float(np.mean(gaps)) if len(gaps) else None,
    }
