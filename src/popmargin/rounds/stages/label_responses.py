"""Labelling responses: by the policy's own implicit reward, by a reward or judge, or at random."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.account import Step
from popmargin.config import RunConfig
from popmargin.data.conversation import prompt_key
from popmargin.data.responses import Responses
from popmargin.rewards.base import Reward
from popmargin.rewards.implicit import NO_REFERENCE, ImplicitReward
from popmargin.rewards.load import load_reward
from popmargin.rewards.rate_responses import rate_responses
from popmargin.rounds.label_agreement import agreement
from popmargin.rounds.plan import Output, Plan, Stage, Work
from popmargin.rounds.stages.paid_labels import IMPLICIT, OF_LABELLING, RANDOM, announced, label_options, refuse_too_few
from popmargin.rounds.stages.trained_models import policy_of

LABEL, TRUSTED = "label", "trusted"
"""Scores of labelled responses: the one that pairs are made by, and the reward of the evaluation, for comparison."""


def add_labels(
    plan: Plan,
    name: str,
    config: RunConfig,
    *,
    responses: Output,
    by: str,
    policy: Output | Path | str,
    reference: Output | Path | str | None,
    per_token: bool = False,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Stage:
    """Append the labelling; its output `responses` has the score `label`, and `trusted` where a reward is configured.

    Args:
        plan: of the recipe.
        name: of the stage.
        config: shared settings; `evaluation.reward` is what labels are compared with.
        responses: to label.
        by: `implicit`, `random`, or a reward as `evaluation.reward` names it.
        policy: of the implicit reward.
        reference: of the implicit reward; None for log-probs without one.
        per_token: divide the implicit reward by the tokens of the response.
        options: of the reward or judge; see `paid_labels.py` for those that are of labelling alone.
        seed: of random labels.

    Raises:
        ConfigError, RunError: the labels or the reward of the evaluation name nothing usable.
    """
    decides, how = label_options(by, options or {})
    settings: dict[str, Any] = {
        "by": by,
        "trusted": {"reward": config.evaluation.reward, "options": config.evaluation.reward_options},
    }
    inputs: dict[str, Output | Path] = {"responses": responses}
    if by == IMPLICIT:
        settings |= {
            "per_token": per_token,
            "precision": config.model.precision,
            "tokens_per_batch": config.evaluation.tokens_per_batch,
        }
        for key, model in (("policy", policy), ("reference", NO_REFERENCE if reference is None else reference)):
            if isinstance(model, str):
                settings[key] = model
            else:
                inputs[key] = model
    elif by == RANDOM:
        settings["seed"] = seed
    settings |= {"options": decides} if decides else {}
    outputs = {"responses": "responses.parquet"}
    return plan.add(name, label_stage, inputs=inputs, settings=settings, outputs=outputs, how=how)


def label_stage(work: Work) -> dict[str, Any]:
    """Score all responses, and compare the labels with the reward of the evaluation."""
    responses, settings = Responses.load(work.inputs["responses"]), work.settings
    facts: dict[str, Any] = {}
    if settings["by"] == RANDOM:
        labelled = responses.with_scores({LABEL: random_labels(responses, settings["seed"])})
    else:
        labeller, limit = _labeller(work), settings.get("options", {}).get("limit")
        responses, paid = announced(labeller, responses, work.say, limit=limit, price=work.how.get("price"))
        rated = rate_responses(responses, labeller, name=LABEL)
        labelled = rated.responses
        refuse_too_few(labeller, rated.missing, len(labelled.texts))
        scored = {"scored": len(labelled.texts) - rated.missing}
        left_out = {"without a score": rated.missing}
        step = Step(name="responses", rows_in=len(labelled.texts), kept=scored, left_out=left_out, unit="responses")
        facts |= {
            "account": work.tell(step),
            "missing": rated.missing,
            "notes": list(rated.notes),
            "cost": {"scored responses": len(labelled.texts)} | paid.cost,
        } | ({"left_out": paid.left_out} if paid.left_out else {})
    trusted = settings["trusted"]
    if trusted["reward"] is not None:
        reward = load_reward(trusted["reward"], **trusted["options"])
        _, paid = announced(reward, labelled, work.say)
        facts["cost"] = facts.get("cost", {}) | {
            f"{what} of the evaluation's judge": n for what, n in paid.cost.items()
        }
        labelled = rate_responses(labelled, reward, name=TRUSTED).responses
        found = agreement(labelled, LABEL, TRUSTED)
        facts["agreement"] = found.to_dict()
        if found.pairs:
            work.say(f"  labels agree with the reward on {found.overall.estimate:.1%} of {found.pairs} pairs")
    labelled.save(work.outputs["responses"])
    return facts


def _labeller(work: Work) -> Reward:
    settings = work.settings
    if settings["by"] != IMPLICIT:
        given = settings.get("options", {}) | work.how
        return load_reward(settings["by"], **{name: given[name] for name in given if name not in OF_LABELLING})
    policy, reference = (str(work.inputs.get(key, settings.get(key))) for key in ("policy", "reference"))
    policy = policy_of(policy).name
    reference = NO_REFERENCE if reference == NO_REFERENCE else policy_of(reference).name
    return ImplicitReward(
        policy,
        reference=reference,
        per_token=settings["per_token"],
        precision=settings["precision"],
        tokens_per_batch=settings["tokens_per_batch"],
    )


def random_labels(responses: Responses, seed: int) -> list[list[float]]:
    """Labels that know nothing, uniform over [0, 1): they depend on seed and prompt, not on the order of the rows."""
    labels: list[list[float]] = []
    for prompt, count in zip(responses.prompts, responses.counts.tolist(), strict=True):
        digest = hashlib.sha256(f"{seed}\x1f{prompt_key(prompt)}".encode("utf-8", "surrogatepass")).digest()
        labels.append(np.random.default_rng(int.from_bytes(digest[:16], "big")).random(count).tolist())
    return labels
