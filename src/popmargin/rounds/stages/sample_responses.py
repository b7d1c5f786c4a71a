"""Sampling responses from the policy of a round."""

from collections.abc import Mapping
from os.path import relpath
from pathlib import Path
from typing import Any

from popmargin.config import RunConfig
from popmargin.data.read_prompts import load_prompts
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError
from popmargin.evaluation.generative import distinct_counts
from popmargin.evaluation.grown import grown
from popmargin.generate.from_policy import policy_responses
from popmargin.generate.sample import Sampling
from popmargin.rounds.plan import Output, Plan, Stage, Work
from popmargin.rounds.stages.trained_models import policy_of
from popmargin.statistics.intervals import Clusters


def add_samples(
    plan: Plan,
    name: str,
    config: RunConfig,
    *,
    policy: Output | Path | str,
    prompts: Output | Path,
    sampling: Mapping[str, Any],
    number: int,
    seed: int,
    first: Output | None = None,
) -> Stage:
    """Append the sampling; its output `responses` is a table of responses with their token ids.

    Args:
        plan: of the recipe.
        name: of the stage.
        config: shared settings: precision, batch size and longest prompt.
        policy: samples: the folder of a model, or its name.
        prompts: any data with prompts; each distinct prompt is sampled for.
        sampling: samples, temperature, top_p, top_k, max_new_tokens.
        number: of the round.
        seed: of the sampling.
        first: the responses of the first round, with whose lengths these are compared; None is that round itself.

    Raises:
        ConfigError: no room is left for a prompt.
    """
    if sampling["max_new_tokens"] >= config.data.max_length:
        raise ConfigError(
            f"recipe.max_new_tokens {sampling['max_new_tokens']} leaves no room for a prompt: prompt and response "
            f"together have at most base.data.max_length {config.data.max_length} tokens. Lower it, or raise that."
        )
    settings = {
        "sampling": dict(sampling)
        | {"seed": seed, "batch_size": config.evaluation.generation_batch_size, "precision": config.model.precision},
        "max_prompt_tokens": config.data.max_length - sampling["max_new_tokens"],
        "round": number,
    }
    inputs: dict[str, Output | Path] = {"prompts": prompts}
    if isinstance(policy, str):
        settings["policy"] = policy
    else:
        inputs["policy"] = policy
    how = {} if first is None else {"first": relpath(first.path, name)}  # it decides nothing that is sampled
    outputs = {"responses": "responses.parquet"}
    return plan.add(name, sample_stage, inputs=inputs, settings=settings, outputs=outputs, how=how)


def sample_stage(work: Work) -> dict[str, Any]:
    """Sample, or go on where it was stopped."""
    settings = work.settings
    part = work.folder / "responses.part"
    prompts = load_prompts(work.inputs["prompts"])
    account = work.tell(prompts.step())
    produced = policy_responses(
        prompts,
        policy_of(work.inputs.get("policy", settings.get("policy", ""))),
        Sampling(**settings["sampling"]),
        source="policy",
        round=settings["round"],
        max_prompt_tokens=settings["max_prompt_tokens"],
        part=part,
        progress=True,
    )
    produced.responses.save(work.outputs["responses"])
    part.unlink(missing_ok=True)
    for line in produced.lines():
        work.say(f"  {line}")
    said = None
    if "first" in work.how:
        said = grown(produced.responses, Responses.load(work.folder / work.how["first"]), "the first round")
    if said is not None:
        work.say(f"  warning: {said}")
    cost = {"sampled tokens": sum(produced.responses.field("tokens"))}
    warned = {} if said is None else {"warnings": [said]}
    return about_responses(produced.responses) | warned | {"cost": cost, "account": account}


def about_responses(responses: Responses) -> dict[str, Any]:
    """Numbers that show whether sampling has narrowed: lengths, cut responses, distinct n-grams."""
    texts = [str(text) for text in responses.texts]
    tokens, finished = responses.field("tokens"), responses.field("finished")
    return {
        "prompts": len(responses),
        "responses": len(texts),
        "tokens": sum(tokens) / max(1, len(tokens)),
        "unfinished": sum(not ended for ended in finished),
        "distinct_1": _distinct(texts, 1),
        "distinct_2": _distinct(texts, 2),
    }


def _distinct(texts: list[str], n: int) -> float | None:
    different, total, _, _ = distinct_counts(texts, Clusters([0] * len(texts)), n)
    return different / total if total else None
