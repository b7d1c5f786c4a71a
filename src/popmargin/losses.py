"""Every registered objective as a function on plain tensors: `popmargin.losses.dpo(chosen, rejected, beta=0.1)`.

The names are those of the registry, including user objectives; `help(popmargin.losses.pop)` describes a loss's
arguments. These are the losses that `popmargin train` minimises, one number per row, differentiable in every score.

Axis suffix B: rows.

Example:
    >>> import torch
    >>> from popmargin import losses
    >>> chosen, rejected = torch.tensor([3.0]), torch.tensor([-7.0])  # log-ratios, nats
    >>> round(losses.dpo(chosen, rejected, beta=0.1).item(), 4)
    0.3133
    >>> round(losses.pop(chosen, rejected, target=torch.tensor([10.0]), beta=0.1).item(), 4)
    0.6931
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from popmargin.engine.scores import scores_of
from popmargin.errors import ConfigError, DataError, a_kind, did_you_mean
from popmargin.margin import Margin
from popmargin.objectives.base import OBJECTIVES, Logps, Objective, Rows, ScoreKind

_SCORES = {
    "log_ratio": "log-ratios, Σ log π/π_ref (B,), nats; or summed log-probs, with those of the reference",
    "mean_log_ratio": "mean log-ratios (B,), nats per token; or summed log-probs (nats), with those of the reference "
    "and token counts",
    "logp": "summed log-probs (B,), nats",
    "mean_logp": "mean log-probs (B,), nats per token; or summed log-probs (nats), with token counts",
}
_TENSORS = {
    "reference_chosen": "the reference's summed log-probs of the chosen responses (B,), nats",
    "reference_rejected": "the same of the rejected responses (B,)",
    "target": "the weaker sides' gaps chosen − rejected (B,), {unit}, without gradient",
    "weaker_chosen": "scores of the weaker sides' chosen responses (B,), {unit}, with gradient",
    "weaker_rejected": "the same of their rejected responses (B,)",
    "has_weaker": "whether the row has a weaker side (B,), bool; None for all",
    "stronger_share": "weight of the stronger side (B,); None for 1",
    "weaker_share": "weight of the weaker side (B,); None for 1 if there is one",
    "state": "the objective's own state, as `Objective.init_state` makes it; None for its beginning",
    "chosen_tokens": "token counts of the chosen responses (B,)",
    "rejected_tokens": "the same of the rejected responses (B,)",
    "decoupled": "gaps chosen − rejected with de-coupled log-probs (B,), nats, without gradient",
    "weight": "weight of each row in the mean (B,)",
}
_COLUMNS = {
    "margin": "by how much chosen is to lead (B,), reward units",
    "soft_label": "probability that chosen is the better one (B,)",
    "scale": "place of each preference on a strength scale (B,), reward units",
}


class LossFunction(Protocol):
    """An objective on plain tensors; its `help` names what it needs besides the scores, and its options."""

    __name__: str

    def __call__(
        self,
        chosen: Float[Tensor, "B"],
        rejected: Float[Tensor, "B"],
        *,
        reference_chosen: Float[Tensor, "B"] | None = None,
        reference_rejected: Float[Tensor, "B"] | None = None,
        target: Float[Tensor, "B"] | None = None,
        weaker_chosen: Float[Tensor, "B"] | None = None,
        weaker_rejected: Float[Tensor, "B"] | None = None,
        has_weaker: Bool[Tensor, "B"] | None = None,
        chosen_tokens: Tensor | None = None,
        rejected_tokens: Tensor | None = None,
        weight: Float[Tensor, "B"] | None = None,
        reduction: Literal["none", "mean"] = "none",
        **columns_and_options: Any,
    ) -> Tensor:
        """The loss of every row (B,), or their mean."""
        ...


def __getattr__(name: str) -> LossFunction:
    if name.startswith("_") or name not in OBJECTIVES.names():
        raise AttributeError(f"popmargin.losses has no loss '{name}'. {did_you_mean(name, OBJECTIVES.names())}")
    return _loss_function(OBJECTIVES.get(name))


def __dir__() -> list[str]:
    return [name for name in OBJECTIVES.names() if name.isidentifier()]


def _loss_function(objective: Objective) -> LossFunction:
    """The function of an objective, with its own signature and docstring."""
    defaults = objective.options()
    options = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(objective.options)}
    tensors = _tensors(objective, defaults)
    known = [*tensors, *options, "reduction"]

    def loss(chosen: Tensor, rejected: Tensor, *, reduction: str = "none", **given: Any) -> Tensor:
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ConfigError(f"losses.{objective.name} takes no '{unknown[0]}'. {did_you_mean(unknown[0], known)}")
        if reduction not in ("none", "mean"):
            raise ConfigError(f"reduction is 'none' or 'mean', not {reduction!r}.")
        own = objective.make_options({name: value for name, value in given.items() if name in options})
        inputs = {name: value for name, value in given.items() if name in tensors and value is not None}
        return _value(objective, own, chosen, rejected, inputs, reduction)

    keyword = inspect.Parameter.KEYWORD_ONLY
    loss.__name__ = loss.__qualname__ = objective.name
    loss.__module__ = __name__
    loss.__doc__ = _docstring(objective, objective.score_kind(defaults), tensors)
    loss.__signature__ = inspect.Signature(  # pyright: ignore[reportFunctionMemberAccess]
        [
            *(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("chosen", "rejected")),
            *(
                inspect.Parameter(name, keyword, default=inspect.Parameter.empty if needed else None)
                for name, (needed, _) in sorted(tensors.items(), key=lambda item: not item[1][0])
            ),
            *(inspect.Parameter(name, keyword, default=value) for name, value in options.items()),
            inspect.Parameter("reduction", keyword, default="none"),
        ]
    )
    return loss


def _tensors(objective: Objective, options: Any) -> dict[str, tuple[bool, str]]:
    """The tensors that a loss takes besides its scores: whether they are required, and what they are."""
    needs, kind = objective.needs, objective.score_kind(options)
    names = dict.fromkeys(needs.columns, True)
    names |= {"target": True} if needs.weaker == "target" else {}
    if needs.weaker == "gradient":
        names |= {"weaker_chosen": True, "weaker_rejected": True, "stronger_share": False, "weaker_share": False}
    names |= {"has_weaker": False} if needs.weaker != "none" else {}
    names |= {"decoupled": bool(objective.decoupling_of(options))} if objective.decoupling else {}
    names |= {"state": False} if objective.init_state else {}
    if kind in ("log_ratio", "mean_log_ratio") or needs.reference:
        names |= dict.fromkeys(("reference_chosen", "reference_rejected"), needs.reference)
    names |= dict.fromkeys(("chosen_tokens", "rejected_tokens"), objective.uses_token_counts(options))
    names |= {"weight": False}
    unit = "nats per token, even where the scores are sums with token counts" if kind.startswith("mean_") else "nats"
    said = _TENSORS | {name: _COLUMNS.get(name, "a number of each preference (B,)") for name in needs.columns}
    return {name: (needed, said[name].replace("{unit}", unit)) for name, needed in names.items()}


def _docstring(objective: Objective, kind: ScoreKind, tensors: Mapping[str, tuple[bool, str]]) -> str:
    text = inspect.getdoc(objective.function) or objective.name
    said = "".join(f"    {name}: {what}.\n" for name, (_, what) in tensors.items())
    owners = [owner for owner in objective.options.__mro__ if owner is not object]
    fields = "\n".join(
        (inspect.cleandoc(owner.__doc__ or "")).partition("Attributes:\n")[2].rstrip() for owner in owners
    )
    return (
        f"{text.partition(chr(10) + 'Args:')[0].rstrip()}\n\nArgs:\n"
        f"    chosen: {_SCORES[kind]}.\n    rejected: the same of the rejected responses.\n{said}"
        + (f"{fields.strip(chr(10))}\n" if fields.strip() else "")
        + "    reduction: `none` for every row's loss (B,), `mean` for their (weighted) mean.\n"
    )


def _check(
    objective: Objective, options: Any, chosen: Tensor, rejected: Tensor, inputs: Mapping[str, Any], where: str
) -> None:
    """Check a user's arguments.

    Raises:
        DataError: something is missing, not a tensor, or of the wrong shape, type or range.
    """
    tensors = _tensors(objective, options)
    for name, value in {"chosen": chosen, "rejected": rejected, **inputs}.items():
        if name != "state" and not isinstance(value, Tensor):
            raise DataError(f"{where}: {name} is {a_kind(value)}; it must be a tensor (B,).")
    wrong = {name: tuple(value.shape) for name, value in {"rejected": rejected, **inputs}.items()
             if name != "state" and value.shape != chosen.shape}  # fmt: skip
    if chosen.ndim != 1 or wrong:
        shapes = ", ".join(f"{name} {shape}" for name, shape in {"chosen": tuple(chosen.shape), **wrong}.items())
        raise DataError(f"{where}: tensors must be (B,), one number per row, all the same length; here {shapes}.")
    if "has_weaker" in inputs and inputs["has_weaker"].dtype != torch.bool:
        raise DataError(f"{where}: has_weaker is {inputs['has_weaker'].dtype}, and must be bool.")
    for name in ("chosen_tokens", "rejected_tokens"):
        if name in inputs and not bool((inputs[name] > 0).all()):
            raise DataError(f"{where}: {name} are token counts, each above 0.")
    missing = [f"{name}, {what}" for name, (needed, what) in tensors.items() if needed and name not in inputs]
    if missing:
        raise DataError(f"{where} needs {'; '.join(missing)}.")
    for one, other in (("reference_chosen", "reference_rejected"), ("chosen_tokens", "rejected_tokens")):
        if (one in inputs) != (other in inputs):
            raise DataError(f"{where}: {one} and {other} come together, or neither does.")


def _value(
    objective: Objective, options: Any, chosen: Tensor, rejected: Tensor, inputs: Mapping[str, Any], reduction: str
) -> Tensor:
    where = f"losses.{objective.name}"
    kind = objective.score_kind(options)
    _check(objective, options, chosen, rejected, inputs, where)
    scores, logps = _scores(kind, chosen, rejected, inputs, where)
    has_weaker = inputs.get("has_weaker")
    if has_weaker is None and objective.needs.edges:
        has_weaker = torch.ones_like(chosen, dtype=torch.bool)
    weaker = inputs.get("weaker_chosen")
    shares: dict[str, Any] = {}
    if weaker is not None and has_weaker is not None:
        shares["stronger_share"] = inputs.get("stronger_share", torch.ones_like(chosen))
        shares["weaker_share"] = inputs.get("weaker_share", has_weaker.to(chosen.dtype))
    target = inputs.get("target")
    columns = {name: inputs[name] for name in (*objective.needs.columns, "weight") if name in inputs}
    state = {**(objective.init_state(options) if objective.init_state else {}), **inputs.get("state", {})}
    rows = Rows(
        chosen=scores[0],
        rejected=scores[1],
        has_weaker=has_weaker,
        weaker_chosen=weaker,
        weaker_rejected=inputs.get("weaker_rejected"),
        target=None if target is None else Margin(values=target.detach(), unit="nats"),
        columns=columns,
        logps=logps,
        decoupled=inputs.get("decoupled"),
        state={name: torch.as_tensor(value, device=chosen.device) for name, value in state.items()},
        **shares,
    )
    try:
        loss_B = objective.function(rows, options)
    except DataError as error:
        if rows.logps is None and "have no logps" in str(error):
            raise DataError(f"{where} needs chosen_tokens and rejected_tokens, token counts (B,).") from error
        raise
    if reduction == "none":
        return loss_B
    weight_B = inputs.get("weight")
    if weight_B is None:
        return loss_B.mean()
    total = weight_B.sum()
    return (loss_B * weight_B).sum() / torch.where(total > 0, total, 1)  # all-zero weights give 0, as in training


def _scores(
    kind: ScoreKind, chosen: Tensor, rejected: Tensor, inputs: Mapping[str, Any], where: str
) -> tuple[tuple[Tensor, Tensor], Logps | None]:
    """The scores of the requested kind, and the sums they come from, if given."""
    ratio, mean = kind.endswith("log_ratio"), kind.startswith("mean_")
    reference, tokens = inputs.get("reference_chosen"), inputs.get("chosen_tokens")
    sums = kind == "logp" or (reference is not None if ratio else tokens is not None)
    if mean and ratio and (reference is None) != (tokens is None):
        raise DataError(f"{where} takes either mean log-ratios, or summed log-probs with both reference and tokens.")
    if not sums or (tokens is None and not ratio):
        return (chosen, rejected), None
    counts = [
        torch.ones_like(chosen) if count is None else count.to(chosen.dtype)
        for count in (tokens, inputs.get("rejected_tokens"))
    ]
    logps = Logps(
        chosen=chosen,
        rejected=rejected,
        chosen_reference=reference,
        rejected_reference=inputs.get("reference_rejected"),
        chosen_tokens=counts[0],
        rejected_tokens=counts[1],
    )
    return scores_of(kind, logps), None if tokens is None else logps
