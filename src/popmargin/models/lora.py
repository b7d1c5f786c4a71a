"""Putting a LoRA adapter on a model, and reporting what cannot be adapted."""

import logging
from typing import Any

from torch import nn

from popmargin.errors import ConfigError

_LOG = logging.getLogger(__name__)


def add_adapter(model: Any, lora: Any) -> Any:
    """The model with an adapter around it; the log lists weights that no adapter reaches.

    Args:
        model: a transformers model.
        lora: peft's configuration.

    Raises:
        ConfigError: peft has no adapter for a layer of this model.
    """
    from peft import get_peft_model

    others, total = _other_matrices(model), sum(parameter.numel() for parameter in model.parameters())
    name = type(model).__name__
    try:
        adapted = get_peft_model(model, lora)
    except (ValueError, TypeError, NotImplementedError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0].rpartition("] ")[2].rstrip(". (")
        raise ConfigError(
            f"peft has no LoRA adapter for {name} ({reason}). Set model.lora_rank to 0 to train all weights."
        ) from error
    reached = {id(parameter) for module in _adapted(adapted) for parameter in module.parameters()}
    missed = {path: parameter for path, parameter in others.items() if id(parameter) not in reached}
    if missed:
        share = sum(parameter.numel() for parameter in missed.values()) / total
        _LOG.warning(
            "LoRA adapts only linear layers: other matrices of %s, such as packed experts (%s and %d more, %.0f%% of "
            "the model), are not trained. Set model.lora_rank to 0 to train them.",
            name,
            min(missed),
            len(missed) - 1,
            100 * share,
        )
    return adapted


def _other_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights that hold several matrices, such as those of all experts, by path; excludes convolutions."""
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return {
        f"{path}.{name}": parameter
        for path, module in model.named_modules()
        if not isinstance(module, convolutions)
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 3 and min(parameter.shape) > 1
    }


def _adapted(model: nn.Module) -> list[nn.Module]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def keeps_base(adapter: Any) -> bool:
    """Whether an adapter leaves the weights that it is put on as they are; only then can they be the reference's."""
    if adapter is None or str(adapter.peft_type).rpartition(".")[2] != "LORA":
        return False
    settings = {"bias": ("none",), "init_lora_weights": (True, False, "gaussian"), "trainable_token_indices": (None,)}
    return all(getattr(adapter, name, known[0]) in known for name, known in settings.items())
