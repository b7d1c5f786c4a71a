"""Which combinations of objectives, margins, token selectors and batches are meaningful."""

from collections.abc import Iterator, Sequence
from typing import Any

from popmargin.config import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    PopConfig,
    ReferenceConfig,
    TargetConfig,
    TrainConfig,
)
from popmargin.errors import ConfigError, did_you_mean
from popmargin.margin_sources.base import MARGIN_SOURCES, MarginSource
from popmargin.objectives.base import OBJECTIVES, Objective
from popmargin.registry import Registry
from popmargin.regularizers.base import REGULARIZERS
from popmargin.tasks.base import TASKS
from popmargin.tokens.base import TOKEN_SELECTORS
from popmargin.training.loss import Loss

_REASONS = {
    "log_ratio": "takes log-ratios",
    "mean_log_ratio": "takes means over tokens",
    "logp": "takes log-probs of responses",
    "mean_logp": "takes mean log-probs of responses",
    "reward": "is a term of rewards",
    "reference": "compares single scores with the zero of a reference",
    "tokens": "weighs log-probs of tokens",
    "decoupled": "contrasts the logits of policy and reference",
}
"""How a part uses something a task must provide; "which …" follows."""
_TERMS = {"logp": "is a term of log-probs", "reference": "compares log-probs with those of a reference"}
"""The same of regularizers."""
_OF_TEXTS = ("max_new_tokens", "temperature", "top_k", "top_p", "generation_config")
_OF_IMAGES = ("denoising_steps", "guidance_scale")
"""Settings of the sampling, by what is sampled."""
_OF_TOKENS = ("max_length", "truncation", "prompt", "reasoning")
"""Settings of the data for texts alone."""
_SAMPLING = ("sampling", "strength", "k", "seed", "flip", "temperature", "budget", "unmatched")
"""Settings of PoP edges that are sampled."""


def refuse_meaningless(
    loss: Loss,
    task: str,
    noun: str,
    *,
    data: DataConfig,
    model: ModelConfig,
    reference: ReferenceConfig,
    train: TrainConfig,
    evaluation: EvaluationConfig,
    stops_on: Sequence[str] = (),
    no_tokens: str = "",
) -> None:
    """Check what the parts declare, not their names, so that user components follow the same rules.

    Args:
        loss: the parts of the run.
        task: the name of its task.
        noun: what the task trains, in words ("a reward model").
        data, model, reference, train, evaluation: settings that not every loss and task can serve.
        stops_on, no_tokens: of the task, see `tasks.base.Task`.

    Raises:
        ConfigError: a meaningless combination; the message says why, and what to do.
    """
    name, provided = loss.objective.name, loss.provides
    of_some_tasks = {
        "evaluation.reward": ("generation", evaluation.reward, "it generates nothing to score"),
        "evaluation.goals": ("generation", evaluation.goals, "it generates nothing to ask for"),
        "reference.model": ("reference", reference.model, "its rewards need no reference"),
        "tokens": ("tokens", loss.tokens, "it scores whole responses, not tokens"),
        "train.token_statistics": ("tokens", train.token_statistics, "it does not predict tokens"),
    }
    for field, (required, value, reason) in of_some_tasks.items():
        if value and required not in provided:
            raise ConfigError(f"{field} has no meaning for {noun}: {reason}. Remove it, or set task: policy.")
    _refuse_other_sampling(evaluation, noun, images="images" in provided)
    if no_tokens:
        _refuse_token_limits(data, noun, no_tokens)
    _refuse_to_stop_on(train.stop_on, stops_on, noun)
    for registry, part, options in _parts(loss):
        missing = part.requires(options) - provided
        if missing:
            _refuse_missing(registry, part, missing, provided, f"{noun} does not have (task: {task})")
    if data.soft_label_temperature is not None and "soft_label" in loss.signals:
        raise ConfigError(
            "data.soft_label_temperature makes soft labels from ratings, and signals.soft_label from another column: "
            "set one of them."
        )
    if loss.margin is not None:
        _refuse_margin(loss.objective, loss.margin[0])
    if loss.tokens is not None and loss.objective.needs.whole_responses:
        raise ConfigError(
            f"The objective '{name}' compares probabilities of whole responses, but the token selector "
            f"'{loss.tokens[0].name}' drops tokens: remove `tokens`, or choose an objective on token sums, e.g. dpo."
        )
    doubled = [regularizer.name for _, regularizer, _ in loss.regularizers if regularizer.supervised]
    if doubled and loss.objective.is_supervised(loss.options):
        raise ConfigError(
            f"The objective '{name}' already includes the negative log-likelihood of the chosen response, which the "
            f"regularizer '{doubled[0]}' would count twice: remove one of them, or change its weight in the objective."
        )
    _refuse_frozen(model, train, noun, reward="reward" in provided)
    if model.quantization != "none":
        _refuse_four_bits(model, noun, policy="tokens" in provided)
    adapter_above = bool(model.lora_rank) and model.lora_last_layers is not None
    if train.frozen_cache_gb and ("tokens" not in provided or not adapter_above):
        raise ConfigError(
            "train.frozen_cache_gb caches the outputs of layers below a policy's adapter, but there are none: set "
            "model.lora_rank and model.lora_last_layers (task: policy), or remove it."
        )
    if loss.objective.uses_batch_statistics(loss.options) and train.tokens_per_batch is not None:
        raise ConfigError(
            f"The objective '{name}' uses statistics over the rows forwarded together, but with "
            f"train.tokens_per_batch their number varies between passes and processes: set train.micro_batch_size "
            f"instead, or let the objective use running statistics (amapo: objective.running)."
        )


def _refuse_other_sampling(evaluation: EvaluationConfig, noun: str, *, images: bool) -> None:
    """Refuse settings of how texts are sampled where images are, and the reverse."""
    default = EvaluationConfig()
    for name in _OF_TEXTS if images else _OF_IMAGES:
        if getattr(evaluation, name) != getattr(default, name):
            reason = "it samples images, which have no tokens" if images else "it samples no images"
            raise ConfigError(f"evaluation.{name} has no meaning for {noun}: {reason}. Remove it.")


def _refuse_frozen(model: ModelConfig, train: TrainConfig, noun: str, *, reward: bool) -> None:
    """Refuse to train a part that there is not, and settings of layers that training does not run."""
    if model.trained in ("head", "last_n") and not reward:
        raise ConfigError(
            f"model.train: {model.trained} is for reward models, and this is {noun}. Set task: reward, or model.train "
            "to full or lora (model.lora_last_layers adapts the last layers)."
        )
    idle = [name for name in ("gradient_checkpointing", "compile") if getattr(train, name)]
    if model.trained == "head" and idle:
        raise ConfigError(
            f"train.{idle[0]} has no effect with model.train: head, which runs no layers in training. Remove it."
        )


def _refuse_four_bits(model: ModelConfig, noun: str, *, policy: bool) -> None:
    if not policy:
        raise ConfigError(
            f"model.quantization: {model.quantization} keeps frozen weights in 4 bits, but {noun} is saved whole, with "
            "its adapter merged. Remove it, or set task: policy."
        )
    if not model.lora_rank:
        raise ConfigError(
            f"model.quantization: {model.quantization} keeps weights in 4 bits, which cannot be trained. Set "
            "model.lora_rank above 0 to train an adapter on them, or remove it."
        )


def _refuse_token_limits(data: DataConfig, noun: str, why: str) -> None:
    """Refuse settings of how texts become tokens where there are none."""
    for name in _changed(data):
        if name in _OF_TOKENS:
            raise ConfigError(f"data.{name} has no meaning for {noun}: {why}")


def _refuse_to_stop_on(metric: str | None, known: Sequence[str], noun: str) -> None:
    if metric is None or metric in known:
        return
    if not known:
        raise ConfigError(f"train.stop_on has no meaning for {noun}, which has no metrics to stop on. Remove it.")
    raise ConfigError(f"train.stop_on is '{metric}', which {noun} does not measure. {did_you_mean(metric, known)}")


def without_effect(loss: Loss, *, pop: PopConfig, target: TargetConfig, data: DataConfig) -> list[str]:
    """Settings without effect in this run, with the reason; not an error, since a file may serve several objectives.

    Args:
        loss: the parts of the run.
        pop, target, data: settings that not every loss reads.

    Returns:
        A sentence for every such section.
    """
    needs, name = loss.needs, loss.objective.name
    of_edges, why = _changed(pop), "does not use PoP edges; pop does, for example"
    if needs.scale:
        of_edges = []
    elif needs.edges:
        of_edges, why = (
            [field for field in of_edges if field in ("scale", "ridge", "zero")],
            "does not use the strength scale",
        )
    read = {"weight", *needs.columns, *(["order"] if loss.samples_edges(pop) else [])}
    idle = {
        "pop": (of_edges, why),
        "target": ([] if needs.weaker == "target" else _changed(target), "does not use a target"),
        "signals": ([use for use in loss.signals if use not in read], "does not use what they make"),
        "data": (
            [] if needs.soft_label or data.soft_label_temperature is None else ["soft_label_temperature"],
            "does not use soft labels; geometric_dpo does, for example",
        ),
    }
    said = [
        f"No effect: {', '.join(f'{section}.{field}' for field in fields)}. The objective '{name}' {reason}."
        for section, (fields, reason) in idle.items()
        if fields
    ]
    unread, why = tuple[str, ...](), ""
    if needs.scale and not needs.edges and pop.scale is not None:
        unread, why = (*_SAMPLING, "edges", "ridge"), "The strengths are read from pop.scale, not fitted to edges."
    elif (needs.edges or needs.scale) and pop.edges is not None:
        unread, why = _SAMPLING, "The edges are read from pop.edges, not sampled."
    idle_pop = [f"pop.{field}" for field in _changed(pop) if field in unread]
    return [*said, f"No effect: {', '.join(idle_pop)}. {why}"] if idle_pop else said


def _changed(section: Any) -> list[str]:
    """Names of the fields that differ from their defaults."""
    default = type(section)()
    return [field for field, value in vars(section).items() if value != getattr(default, field)]


def _refuse_margin(objective: Objective, source: MarginSource) -> None:
    wants = objective.needs.weaker
    if objective.takes_margin == "own":
        reason = "already has its own margin or target"
    elif objective.needs.soft_label:
        reason = "has soft labels, which already express how strong a preference is"
    elif objective.takes_margin == "no":
        reason = "is not declared to depend only on chosen − rejected (it may use single scores)"
    elif "none" not in (wants, source.needs.weaker) and wants != source.needs.weaker:
        reason = "already uses the weaker sides of edges, with gradient"
    else:
        return
    takers = [name for name in OBJECTIVES.names() if OBJECTIVES.get(name).takes_margin == "yes"]
    raise ConfigError(
        f"The margin '{source.name}' cannot be combined with the objective '{objective.name}', which {reason}: "
        f"remove `margin`, or choose one of {', '.join(takers)}, or your own objective that declares "
        'takes_margin="yes".'
    )


def refuse_lone_rows(loss: Loss, rows: int) -> None:
    """Check how many rows are forwarded together, over all processes; only training knows.

    Raises:
        ConfigError: the objective uses statistics over them, and there is only one.
    """
    if rows < 2 and loss.objective.uses_batch_statistics(loss.options):
        raise ConfigError(
            f"The objective '{loss.objective.name}' uses statistics over the rows forwarded together, but "
            f"train.micro_batch_size x processes is 1, and a single row is its own mean. Set train.micro_batch_size "
            f"to 2 or "
            "more, or let the objective use running statistics (amapo: objective.running)."
        )


def _parts(loss: Loss) -> Iterator[tuple[Registry[Any], Any, Any]]:
    """The registered parts with their registries and options."""
    yield OBJECTIVES, loss.objective, loss.options
    if loss.margin is not None:
        yield MARGIN_SOURCES, *loss.margin
    for _, regularizer, options in loss.regularizers:
        yield REGULARIZERS, regularizer, options
    if loss.tokens is not None:
        yield TOKEN_SELECTORS, *loss.tokens


def _own(registry: Registry[Any]) -> list[Any]:
    """The package's own entries, excluding user files."""
    entries = [registry.get(name) for name in registry.names()]
    return [entry for entry in entries if entry.function.__module__.startswith(f"{registry.package}.")]


def _refuse_missing(
    registry: Registry[Any], part: Any, missing: frozenset[str], provided: frozenset[str], lacking: str
) -> None:
    """The one rule: a part must not require anything that the task does not provide."""
    reasons = _REASONS | (_TERMS if registry is REGULARIZERS else {})
    first = next((known for known in reasons if known in missing), min(missing))
    reason = reasons.get(first, f"requires '{first}'")
    others = [kind.name for kind in _own(registry) if kind.requires(kind.options()) <= provided]
    remedies = [] if registry is OBJECTIVES else ["remove it"]
    remedies += [f"use {', '.join(others)}"] if others else []
    remedies += [f"set task: {task.name}" for task in _own(TASKS) if missing <= task.provides]
    remedy = f": {', or '.join(remedies)}" if remedies else ""
    raise ConfigError(f"The {registry.title} '{part.name}' {reason}, which {lacking}{remedy}.")
