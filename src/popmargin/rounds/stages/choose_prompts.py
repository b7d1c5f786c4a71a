"""Choosing which prompts to have labelled, within a budget."""

from typing import Any, Literal

import numpy as np

from popmargin.data.responses import Responses
from popmargin.rounds.plan import Output, Plan, Stage, Work
from popmargin.rounds.stages.label_responses import LABEL

Choice = Literal["uncertain", "random"]


def add_choice(plan: Plan, name: str, scored: Output, *, budget: int, choose: Choice, seed: int) -> Stage:
    """Append the choice; its output `responses` holds the chosen prompts without the score that chose them.

    Args:
        plan: of the recipe.
        name: of the stage.
        scored: responses with the implicit reward as `label`.
        budget: prompts to keep.
        choose: those whose best and worst response the policy tells apart least, or any.
        seed: of a random choice.
    """
    return plan.add(
        name,
        choose_stage,
        inputs={"responses": scored},
        settings={"budget": budget, "choose": choose, "seed": seed},
        outputs={"responses": "responses.parquet"},
    )


def choose_stage(work: Work) -> dict[str, Any]:
    """Keep the chosen prompts, in their order."""
    responses, settings = Responses.load(work.inputs["responses"]), work.settings
    rows = choose_prompts(responses, settings["budget"], settings["choose"], settings["seed"])
    chosen = responses.select(rows).with_scores(dict.fromkeys(responses.score_names))
    chosen.save(work.outputs["responses"])
    beyond = len(responses) - len(chosen)
    work.say(f"  prompts: {len(responses)} in = {len(chosen)} to label + {beyond} beyond the budget")
    return {"prompts": len(responses), "chosen": len(chosen)}


def choose_prompts(responses: Responses, budget: int, choose: Choice, seed: int) -> np.ndarray:
    """Numbers of the prompts to label (at most `budget`), in their order.

    Uncertain ones have the smallest gap between the largest and the smallest `label`, in random order where gaps are
    equal, as those of an untrained policy are; prompts with fewer than two scored responses come last.

    Example:
        >>> table = Responses(["a", "b", "c"], [["x", "y"]] * 3, {"label": [0.0, 3.0, 0.0, 1.0, 0.0, 2.0]})
        >>> choose_prompts(table, 2, "uncertain", seed=0).tolist()
        [1, 2]
    """
    count = min(budget, len(responses))
    anyhow = np.random.default_rng(seed).permutation(len(responses))
    if choose == "random":
        return np.sort(anyhow[:count])
    score, ends = responses.score(LABEL), np.concatenate([[0], np.cumsum(responses.counts)])
    gaps = np.full(len(responses), np.inf)
    for row in range(len(responses)):
        known = score[ends[row] : ends[row + 1]]
        known = known[np.isfinite(known)]
        if len(known) > 1:
            gaps[row] = known.max() - known.min()
    return np.sort(np.lexsort((anyhow, gaps))[:count])
