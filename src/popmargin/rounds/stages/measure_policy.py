"""Measuring a policy of a round on held-out preferences and prompts, against the start model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from popmargin.config import RunConfig, from_dict, merge, to_dict
from popmargin.data.load import load_preferences
from popmargin.evaluation.generating import generate_and_score
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.run import evaluate_policy
from popmargin.rewards.configured import check_rewards, configured_rewards
from popmargin.rounds.plan import Output, Plan, Stage, Work
from popmargin.rounds.stages.paid_labels import measuring_cost
from popmargin.rounds.stages.trained_models import load_trained
from popmargin.training.build import Run
from popmargin.training.workspace import Workspace


def add_measure(
    plan: Plan, name: str, config: RunConfig, *, policy: Output | Path | None, inputs: Mapping[str, Output | Path]
) -> Stage:
    """Append the measuring of a policy; None measures the start model, as the reference of all others.

    Args:
        plan: of the recipe.
        name: of the stage.
        config: shared settings; `model.path` is the start model, `evaluation` says what is measured.
        policy: folder of its model.
        inputs: `data.test`, `model.path` where that is a folder, and `reference`: what measuring the start model gave.

    Raises:
        ConfigError, RunError: `evaluation.reward` names nothing usable.
    """
    check_rewards(config.evaluation, images=False)
    values = to_dict(config)
    settings = {key: values[key] for key in ("seed", "model", "evaluation")} | {"data": _reading(values["data"])}
    for key in inputs:
        section, _, field = key.partition(".")
        settings.get(section, {}).pop(field, None)
    generates = config.evaluation.reward is not None
    given = dict(inputs) | ({} if policy is None else {"policy": policy})
    outputs = {"metrics": "evaluation/metrics.json", "margins": "evaluation/margins.parquet"}
    outputs = {} if policy is None else outputs
    outputs |= {"generations": "evaluation/generations.parquet"} if generates else {}
    return plan.add(name, measure_stage if policy is not None else measure_start, inputs=given, settings=settings,
                    outputs=outputs)  # fmt: skip


def _reading(data: dict[str, Any]) -> dict[str, Any]:
    """What decides how preferences are tokenized; how they were split does not matter any more."""
    return {key: data[key] for key in ("max_length", "truncation", "prompt", "reasoning")}


def _opened(work: Work) -> tuple[Run, Workspace]:
    """The run that a policy is measured as, and the held-out preferences with the start model."""
    test = str(work.inputs["data.test"])
    placed: dict[str, Any] = {"data": {"train": test, "test": test}, "objective": {"name": "dpo"}}
    if "model.path" in work.inputs:
        placed["model"] = {"path": str(work.inputs["model.path"])}
    config = from_dict(RunConfig, merge(merge(work.settings, placed), {"output": str(work.folder)}))
    run = Run.read(config)
    return run, run.workspace(test=load_preferences(test))


def measure_start(work: Work) -> dict[str, Any]:
    """Generations of the start model, with their rewards."""
    run, workspace = _opened(work)
    rewards = configured_rewards(run.config.evaluation, images="images" in workspace.task.provides)
    if rewards is None:
        return {}
    settings = run.config.evaluation
    generations = generate_and_score(None, settings, workspace, rewards, prompts=settings.prompts, progress=True)
    generations.save(work.outputs["generations"])
    return {"cost": measuring_cost(rewards, len(generations.responses.texts))}


def measure_stage(work: Work) -> dict[str, Any]:
    """Margins of held-out preferences in log-ratios to the start model, and generations with their rewards."""
    run, workspace = _opened(work)
    policy = load_trained(work.inputs["policy"])
    rewards = configured_rewards(run.config.evaluation, images="images" in workspace.task.provides)
    reference = Generations.load(work.inputs["reference"]) if "reference" in work.inputs else None
    metrics = evaluate_policy(policy, run, workspace, rewards=rewards, reference=reference, progress=True)
    rated = 0 if reference is None else len(reference.responses.texts)  # the policy gives as many
    return {
        "intervals": metrics["intervals"],
        "account": metrics["account"],
        "cost": measuring_cost(rewards, rated),
    }
