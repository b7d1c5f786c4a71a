"""A labeller from its specification."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from popmargin.data.questions import Kind
from popmargin.errors import ConfigError, did_you_mean
from popmargin.generate.spending import Budget
from popmargin.judges.backends import ServerBackend
from popmargin.judges.client import ChatClient
from popmargin.judges.comparing import Judge
from popmargin.judges.labeller import Labeller
from popmargin.label.labellers.numeric import Files, RatingLabeller, RewardLabeller
from popmargin.rewards.load import with_model
from popmargin.rewards.naming import Named, read_name

_OURS = ("read", "purse", "budget", "scope")
"""Arguments that are no options."""


def load_labeller(
    spec: str,
    *,
    strengths: Mapping[str, float] | None = None,
    prompts: Mapping[Kind, str | Path] | None = None,
    orders: str = "both",
    name: str | None = None,
    images: Files | None = None,
    budget: Budget | None = None,
    scope: str = "",
    **options: Any,
) -> Labeller:
    """A labeller from its specification.

    Specifications (see `popmargin.rewards.naming`, which also names rewards):
        "judge:MODEL@URL": a judge behind an OpenAI-compatible server (options of `ServerBackend` and `ChatClient`);
            "judge:URL" if the option `model` names the model;
        "model:PATH": a reward model (options of `ModelReward`), or a language model as the judge (of `LocalBackend`);
        "module:function", "file.py:function": a reward in Python;
        "implicit:RUN": a policy's log-ratio to its reference (options of `ImplicitReward`);
        "ratings": the ratings of the data, as `strengths`.

    Args:
        spec: the specification.
        strengths: strength by id of the preference, for "ratings".
        prompts, orders: of a judge, see `Judge`.
        name: as an annotator; None takes it from the specification.
        images: gives the files of images by their names, if the responses are images; then only rewards of images
            (`load_image_reward`) and ratings label.
        budget: of judges on a server, which pays their calls.
        scope: what is labelled; with the labeller's name, whose payments in earlier runs count.
        options: of the kind of labeller.

    Raises:
        ConfigError: the specification is not understood, the name is empty, or an option is unknown for it; only a
            judge takes prompts and orders.
        DataError: no preference has ratings.

    Example:
        >>> load_labeller("ratings", strengths={"p0": 1.5}).name
        'ratings'
    """
    if name is not None and not name.strip():
        raise ConfigError(f"The name for judge {spec!r} is empty. Give one, or omit it to use the judge's own.")
    named = read_name(spec)
    if (
        images is not None
        or named.use == "reward"
        or named.kind in ("code", "implicit", "ratings")
        or (named.use is None and _rates(named))
    ):
        if prompts or orders != "both":
            raise ConfigError(
                f"Judge {spec!r} compares numbers, so it has no prompt and no orders. Remove these options."
            )
        if named.kind == "ratings":
            _refuse(spec, options, ())
            return RatingLabeller(strengths or {}, name or "ratings")
        return RewardLabeller(spec.removeprefix("reward:") if named.use else spec, name, images=images, **options)
    if named.kind == "model":
        from popmargin.judges.local_backend import LocalBackend  # loads torch

        _refuse(spec, options, (LocalBackend,))
        return Judge(LocalBackend(named.place, **options), prompts=prompts, orders=orders, name=name)
    options = with_model(named, options)
    model = options.pop("model")
    _refuse(spec, options, (ServerBackend, ChatClient))
    paying: dict[str, Any] = {"budget": budget, "scope": f"{scope} {name or f'judge:{model}'}"}
    return Judge(ServerBackend(model, named.place, **paying, **options), prompts=prompts, orders=orders, name=name)


def _rates(named: Named) -> bool:
    """Whether it is a model that rates single responses, rather than one that compares."""
    if named.kind != "model":
        return False
    from popmargin.models.kind import is_classifier  # loads torch

    return is_classifier(named.place)


def _refuse(spec: str, options: Mapping[str, Any], takes: tuple[Callable[..., Any], ...]) -> None:
    parameters = [p for kind in takes for p in inspect.signature(kind).parameters.values()]
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _OURS]
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known) if known else "It has no options."
            raise ConfigError(f"Judge {spec!r} has no option '{option}'. {hint}")
