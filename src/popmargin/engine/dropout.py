"""Switching off randomness in a model's forward pass: dropout, layer dropping, router noise.

Preference objectives compare a policy with its reference on the same responses. With dropout in the policy alone, their
log-ratio is not 0 before the first step, and every later loss is noisy.
"""

import contextlib
from collections.abc import Generator, Iterator
from types import MethodType
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]
from transformers import PreTrainedConfig

OWN = "popmargin_own_dropout"
"""The model attribute that keeps the original configuration values, to be saved with it again."""


def draws(name: str) -> bool:
    """Whether a setting of this name controls randomness in training.

    Example:
        >>> [draws(name) for name in ("resid_pdrop", "layerdrop", "hidden_size")]
        [True, True, False]
    """
    return "drop" in name


def switch_off_dropout(model: Any) -> None:
    """Set every dropout of a model to 0, in place: modules, numbers that its code passes on, and its configuration.

    A module with router noise stays in evaluation mode instead, with its number: PhiMoE's router goes by it in
    evaluation too, to tell which experts to leave out.

    Some models read their configuration in the forward pass (GPT-J, Falcon, Persimmon), so it is changed too; the
    original values are kept for `own_dropout`.
    """
    placed = dict(_configurations(model.config))
    setattr(model, OWN, {place: _drawn(config) for place, config in placed.items()})
    parts: list[Any] = [*placed.values()]
    for module in model.modules():
        parts += [module, *(part for part in vars(module).values() if isinstance(part, PreTrainedConfig))]
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        if any("jitter" in name for name in vars(module)):
            module.train = MethodType(_stays_in_evaluation, module)
            module.eval()
    for part in parts:
        _write(part, dict.fromkeys(_drawn(part), 0))


def _stays_in_evaluation(module: nn.Module, mode: bool = True) -> nn.Module:
    """Replaces a module's `train`."""
    return nn.Module.train(module, False)


@contextlib.contextmanager
def own_dropout(model: Any) -> Generator[None]:
    """With the dropout that the start model's configuration names, so that a saved one is the start model's."""
    own: dict[str, dict[str, float]] = getattr(model, OWN, {})
    configs = dict(_configurations(model.config))
    for place, values in own.items():
        _write(configs[place], values)
    try:
        yield
    finally:
        for place, values in own.items():
            _write(configs[place], dict.fromkeys(values, 0))


def _drawn(part: Any) -> dict[str, float]:
    """The numbers of a module or configuration for which `draws` is true."""
    found: dict[str, Any] = {name: value for name, value in vars(part).items() if draws(name)}
    return {n: v for n, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _write(part: Any, values: dict[str, float]) -> None:
    for name, value in values.items():
        setattr(part, name, type(getattr(part, name))(value))


def _configurations(config: PreTrainedConfig, place: str = "") -> Iterator[tuple[str, PreTrainedConfig]]:
    """A configuration and those inside it (such as the text part of a larger model), by their path."""
    yield place, config
    for name, inner in vars(config).items():
        if isinstance(inner, PreTrainedConfig):
            yield from _configurations(inner, f"{place}.{name}")
