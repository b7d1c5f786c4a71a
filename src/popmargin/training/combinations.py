"""Which objectives, margins, token selectors and batches have a meaning together."""

from typing import Any

from popmargin.config import RunConfig
from popmargin.errors import ConfigError
from popmargin.margin_sources import MarginSource
from popmargin.objectives.base import OBJECTIVES, Objective
from popmargin.training.loss import Loss


def refuse_meaningless(loss: Loss, config: RunConfig) -> None:
    """Look at what the parts declare, not at their names, so that a user's own are held to the same.

    Raises:
        ConfigError: a combination without meaning; the message says why, and what to do.
    """
    name = loss.objective.name
    if "reward" in loss.provides:
        _refuse_log_probs(loss)
    if loss.margin is not None:
        _refuse_margin(loss.objective, loss.margin[0])
    for _, regularizer, _ in loss.regularizers:
        if regularizer.of == "reward" and "reward" not in loss.provides:
            raise ConfigError(
                f"The regularizer '{regularizer.name}' is a term of rewards, and a policy's log-probs are none: leave "
                "it out, or train a reward model (task: reward)."
            )
    if loss.tokens is not None and loss.objective.needs.whole_responses:
        raise ConfigError(
            f"The objective '{name}' compares probabilities of whole responses, which the token selector "
            f"'{loss.tokens[0].name}' would cut: leave out `tokens`, or choose an objective of token sums, e.g. dpo."
        )
    doubled = [regularizer.name for _, regularizer, _ in loss.regularizers if regularizer.supervised]
    if doubled and loss.objective.is_supervised(loss.options):
        raise ConfigError(
            f"The objective '{name}' already holds the negative log-likelihood of the chosen response, which the "
            f"regularizer '{doubled[0]}' would count a second time: leave one of them out, or change its weight in the "
            "objective."
        )
    adapter_above = bool(config.model.lora_rank) and config.model.lora_last_layers is not None
    if config.train.frozen_cache_gb and ("reward" in loss.provides or not adapter_above):
        raise ConfigError(
            "train.frozen_cache_gb keeps what the layers below a policy's adapter give, and here no layer lies below "
            "one: set model.lora_rank and model.lora_last_layers (task: policy), or leave it out."
        )
    if loss.objective.uses_batch_statistics(loss.options) and config.train.tokens_per_batch is not None:
        raise ConfigError(
            f"The objective '{name}' takes statistics of the rows that are forwarded together, and "
            "train.tokens_per_batch forwards now many, now few, differently in every process: set "
            "train.micro_batch_size instead, or let the objective use running statistics (amapo: objective.running)."
        )


def without_effect(loss: Loss, config: RunConfig) -> list[str]:
    """Settings that this run does not look at, with the reason; no error, since a file may serve several objectives.

    Args:
        loss: the parts of the run.
        config: the run.

    Returns:
        A sentence for every section that has one.
    """
    needs, name = loss.needs, loss.objective.name
    pop, why = _changed(config.pop), "uses no PoP edges; one that does is pop"
    if needs.scale:
        pop = []
    elif needs.edges:
        pop, why = [field for field in pop if field in ("scale", "ridge")], "does not use the strength scale"
    idle = {
        "pop": (pop, why),
        "target": ([] if needs.weaker == "target" else _changed(config.target), "has no target to score"),
        "data": (
            [] if needs.soft_label or config.data.soft_label_temperature is None else ["soft_label_temperature"],
            "uses no soft labels; one that does is geometric_dpo",
        ),
    }
    return [
        f"Without effect: {', '.join(f'{section}.{field}' for field in fields)}. The objective '{name}' {reason}."
        for section, (fields, reason) in idle.items()
        if fields
    ]


def _changed(section: Any) -> list[str]:
    """Names of the fields that differ from their defaults."""
    default = type(section)()
    return [field for field, value in vars(section).items() if value != getattr(default, field)]


def _refuse_margin(objective: Objective, source: MarginSource) -> None:
    wants = objective.needs.weaker
    if objective.takes_margin == "own":
        reason = "has a margin or a target of its own, on which a second one would be put"
    elif objective.needs.soft_label:
        reason = "has soft labels, which say already how strong a preference is"
    elif objective.takes_margin == "no":
        reason = "is not declared to depend on chosen − rejected alone (single scores may count in it)"
    elif "none" not in (wants, source.needs.weaker) and wants != source.needs.weaker:
        reason = "takes the weaker sides of edges itself, with gradient"
    else:
        return
    takers = [name for name in OBJECTIVES.names() if OBJECTIVES.get(name).takes_margin == "yes"]
    raise ConfigError(
        f"The margin '{source.name}' cannot be subtracted before the objective '{objective.name}', which {reason}: "
        f"leave out `margin`, or choose one of {', '.join(takers)}, or an objective of your own that declares "
        'takes_margin="yes".'
    )


def refuse_lone_rows(loss: Loss, rows: int) -> None:
    """Look at how many rows are forwarded together, over all processes; only training knows.

    Raises:
        ConfigError: the objective takes statistics of them, and there is but one.
    """
    if rows < 2 and loss.objective.uses_batch_statistics(loss.options):
        raise ConfigError(
            f"The objective '{loss.objective.name}' takes statistics of the rows that are forwarded together, and "
            "train.micro_batch_size x processes is 1: a row alone is its own mean. Set train.micro_batch_size to 2 or "
            "more, or let the objective use running statistics (amapo: objective.running)."
        )


def wants_log_probs(objective: Objective, options: Any) -> str | None:
    """Why a reward model cannot be trained with an objective: it has rewards and no log-probs; None where it can."""
    reasons = {
        "mean_log_ratio": "takes means over tokens",
        "logp": "takes log-probs of responses",
        "mean_logp": "takes mean log-probs of responses",
    }
    reason = reasons.get(objective.score_kind(options))
    if reason is None and objective.needs.reference:
        reason = "needs reference log-probs"  # beside its scores
    if reason is None and objective.needs.absolute:
        reason = "compares single scores with the zero of a reference"
    return reason


def _refuse_log_probs(loss: Loss) -> None:
    objective = loss.objective
    reason = wants_log_probs(objective, loss.options)
    if reason is not None:
        raise ConfigError(
            f"The objective '{objective.name}' {reason}, which a reward model does not have (task: reward): choose an "
            "objective of score gaps, e.g. dpo, dpo_rating_margin, pop or aps."
        )
    for _, regularizer, _ in loss.regularizers:
        if regularizer.of == "policy":
            raise ConfigError(
                f"The regularizer '{regularizer.name}' is a term of log-probs, and a reward model has none "
                "(task: reward): leave it out, or use center."
            )
