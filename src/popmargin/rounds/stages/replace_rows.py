"""Replacing dropped preferences by pairs of the policy's own samples (ROPO's outer loop, ours)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq

from popmargin.config import RunConfig
from popmargin.data.conversation import Text, prompt_key
from popmargin.data.load import load_preferences
from popmargin.data.responses import Responses
from popmargin.data.schema import Preferences
from popmargin.errors import DataError, counted
from popmargin.rewards.implicit import ImplicitReward
from popmargin.rewards.rate_responses import rate_responses
from popmargin.rounds.plan import Output, Plan, Stage, Work
from popmargin.rounds.stages.label_responses import LABEL
from popmargin.rounds.stages.trained_models import policy_of


def add_replacements(
    plan: Plan,
    name: str,
    config: RunConfig,
    *,
    labelled: Output,
    ranked: Stage,
    rule: str,
    beta: float,
    policy: Output,
    reference: Path | str,
) -> Stage:
    """Append the replacing; its outputs are `rows` (kept and new ones) and `replacements`.

    Args:
        plan: of the recipe.
        name: of the stage.
        config: shared settings.
        labelled: samples for the dropped prompts, with their implicit rewards.
        ranked: the ranking stage.
        rule: `best_worst` or `against_original`.
        beta: reward units per nat, of the ranks.
        policy: of the implicit reward of original responses (`against_original`).
        reference: the start model.
    """
    settings: dict[str, Any] = {
        "rule": rule,
        "beta": beta,
        "precision": config.model.precision,
        "tokens_per_batch": config.evaluation.tokens_per_batch,
    }
    inputs: dict[str, Output | Path] = {"responses": labelled}
    inputs |= {part: ranked[part] for part in ("ranks", "kept", "dropped")}
    if rule == "against_original":
        inputs["policy"] = policy
        if isinstance(reference, str):
            settings["reference"] = reference
        else:
            inputs["reference"] = reference
    return plan.add(name, replace_stage, inputs=inputs, settings=settings,
                    outputs={"rows": "rows.parquet", "replacements": "replacements.parquet"})  # fmt: skip


def replace_stage(work: Work) -> dict[str, Any]:
    """Take new pairs for the prompts of dropped rows, and put them with the kept ones."""
    responses = Responses.load(work.inputs["responses"])
    kept, dropped = (load_preferences(work.inputs[part]) for part in ("kept", "dropped"))
    ranks = pq.read_table(work.inputs["ranks"]).to_pydict()
    margins = np.array(ranks["reward_margin"])[np.array(ranks["kept"])]
    median = float(np.median(margins)) / work.settings["beta"]
    if work.settings["rule"] == "best_worst":
        new, reasons = best_and_worst(responses, median)
    else:
        originals = _originals(dropped)
        rated = rate_responses(originals, _implicit(work), name=LABEL).responses
        new, reasons = against_original(responses, rated)
    rows = weighted(_rows(kept), new, kept, dropped)
    load_preferences(rows).save(work.outputs["rows"])
    table = load_preferences(new) if new else kept.select([])
    table.save(work.outputs["replacements"])
    rows_of = f"{counted(len(dropped), 'dropped row')} of {counted(len(responses), 'prompt')}"
    work.say(f"  {rows_of}: {len(new)} replaced" + (f"; {reasons}" if reasons else ""))
    return {"dropped": len(dropped), "replaced": len(new), "not_replaced": reasons, "median_gap": median}


def weighted(
    rows: list[dict[str, Any]], new: list[dict[str, Any]], kept: Preferences, dropped: Preferences
) -> list[dict[str, Any]]:
    """Kept and new rows; weights, if there are any, stay, and a new row has that of the dropped ones of its prompt."""
    if "weight" not in kept.columns:
        return rows + new
    lost: dict[str, list[float]] = {}
    for key, weight in zip(dropped.prompt_keys, dropped.column("weight").tolist(), strict=True):
        lost.setdefault(key, []).append(weight)
    weights = kept.column("weight").tolist()
    weights += [float(np.mean(lost[prompt_key(row["prompt"])])) for row in new]
    return [row | {"weight": weight} for row, weight in zip(rows + new, weights, strict=True)]


def best_and_worst(responses: Responses, least_gap: float) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The best against the worst sample of each prompt, where their gap is large enough.

    Args:
        responses: with the score `label`, nats.
        least_gap: nats; below 0 counts as 0.

    Returns:
        The new rows, and why other prompts have none.
    """
    try:
        pairs = responses.pairs("best_vs_worst", by=LABEL, min_gap=max(0.0, least_gap))
    except DataError:  # no pair is left
        return [], {"no pair with a large enough gap": len(responses)}
    left_out = {reason.replace("_", " "): count for reason, count in pairs.report.left_out.items()}
    return _rows(pairs), left_out


def against_original(responses: Responses, originals: Responses) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The best sample of each prompt against the original response with the lower implicit reward, where that is lower.

    Args:
        responses: samples with the score `label`.
        originals: the original responses to the same prompts, with the same score.

    Returns:
        The new rows, and why other prompts have none.
    """
    known = {prompt_key(prompt): row for row, prompt in enumerate(originals.prompts)}
    scores, ends = originals.score(LABEL), np.concatenate([[0], np.cumsum(originals.counts)])
    new: list[dict[str, Any]] = []
    worse = 0
    for prompt, text, score in zip(*_best(responses), strict=True):
        row = known[prompt_key(prompt)]
        places = range(int(ends[row]), int(ends[row + 1]))
        lowest = min(places, key=lambda place: scores[place])
        if scores[lowest] < score and str(originals.texts[lowest]).strip() != str(text).strip():
            rejected = originals.texts[lowest]
            new.append({"prompt": prompt, "chosen": _like(text, rejected), "rejected": rejected})
        else:
            worse += 1
    return new, {"the best sample is not better than the original responses": worse} if worse else {}


def _best(responses: Responses) -> tuple[list[Text], list[Text], list[float]]:
    best = responses.best(LABEL)
    return best.prompts, best.texts, best.score(LABEL).tolist()


def _like(text: Text, other: Text) -> Text:
    """A sampled text in the form of the other response."""
    if isinstance(text, str) and not isinstance(other, str):
        return cast(Text, [{"role": "assistant", "content": text}])
    return text


def _originals(dropped: Preferences) -> Responses:
    """Both responses of dropped rows; rows of one prompt together."""
    rows: dict[str, tuple[Text, list[Text]]] = {}
    for row in _rows(dropped):
        _, texts = rows.setdefault(prompt_key(row["prompt"]), (row["prompt"], []))
        texts += [row["chosen"], row["rejected"]]
    return Responses([prompt for prompt, _ in rows.values()], [texts for _, texts in rows.values()])


def _rows(preferences: Preferences) -> list[dict[str, Any]]:
    """Prompt and responses alone: scores of old and new rows are of different kinds."""
    return [
        dict(zip(("prompt", "chosen", "rejected"), values, strict=True))
        for batch in preferences.batches("prompt", "chosen", "rejected")
        for values in zip(*(batch[name] for name in ("prompt", "chosen", "rejected")), strict=True)
    ]


def _implicit(work: Work) -> ImplicitReward:
    reference: Mapping[str, Any] | Path | str = work.inputs.get("reference", work.settings.get("reference", ""))
    return ImplicitReward(
        policy_of(work.inputs["policy"]).name,
        reference=policy_of(cast(Path | str, reference)).name,
        precision=work.settings["precision"],
        tokens_per_batch=work.settings["tokens_per_batch"],
    )
