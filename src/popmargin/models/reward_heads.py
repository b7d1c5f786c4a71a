"""Heads of reward models: a linear one, as transformers' classifiers have, or one with a hidden layer."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import gelu

from popmargin.config import ModelConfig
from popmargin.engine.rewards import HEAD
from popmargin.errors import ConfigError, RunError
from popmargin.models.shared_weights import shared_copy


class HiddenHead(nn.Linear):
    """A head with one hidden layer, r = vᵀ·GELU(W·h + b); W and b have the names of a linear head's.

    A program that does not know it finds m outputs where it expects one, and refuses the weights.

    Args:
        size: of the hidden states h.
        width: of the hidden layer, m.

    Example:
        >>> HiddenHead(8, 4)(torch.zeros(3, 8)).shape
        torch.Size([3, 1])
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__(size, width)
        self.out = nn.Linear(width, 1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        return self.out(gelu(super().forward(input)))


class TrainedHead(nn.Module):
    """The head of a reward model without its trunk, whose hidden states are known: all that `train: head` trains.

    Args:
        head: gives a reward from a hidden state.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.score = head  # the name that it has in the whole model

    def forward(self, features_SD: Float[Tensor, "S D"]) -> Float[Tensor, "S"]:
        """Rewards (S,), reward units, in the head's own dtype, even under autocast."""
        with torch.autocast(features_SD.device.type, enabled=False):
            return self.score(features_SD.to(next(self.score.parameters()).dtype)).squeeze(-1)


def head_width(model: Any) -> int:
    """Width of the hidden layer of a reward model's head; 0 for a linear one."""
    head = model.get_submodule(HEAD)
    return int(head.out_features) if isinstance(head, HiddenHead) else 0


def initialise_head(model: Any) -> None:
    """Draw the weights of a head that is all zeros from torch's random numbers, as the model's own linear layers."""
    head = model.get_submodule(HEAD)
    if any(bool(value.any()) for value in head.parameters()):
        return
    # OPT and others have another name for the deviation; most use 0.02.
    deviation = getattr(model.config.get_text_config(), "initializer_range", 0.02)
    for value in head.parameters():
        if value.ndim > 1:
            nn.init.normal_(value, std=deviation)


def make_trained_head(start: Any, config: ModelConfig) -> TrainedHead:
    """The head to train on a start model's frozen trunk: a copy of its own, or a new one.

    Raises:
        ConfigError: a trained head would be replaced by one with another hidden layer.
    """
    own = start.get_submodule(HEAD)
    model = shared_copy(start, apart=own)
    if config.head_hidden and head_width(start) != config.head_hidden:
        if any(bool(value.any()) for value in own.parameters()):
            found = head_width(start)
            what = f"a trained head with a hidden layer of {found}" if found else "a trained linear head"
            raise ConfigError(
                f"model.head_hidden is {config.head_hidden}, but '{config.path}' has {what}, which would be lost. "
                "Remove model.head_hidden to go on training it."
            )
        set_head(model, empty_head(own, config.head_hidden))
    initialise_head(model)
    return TrainedHead(model.get_submodule(HEAD).requires_grad_(True))


def with_head(start: Any, head: nn.Module) -> Any:
    """A whole reward model: a trained head on a start model's trunk, whose weights are not copied."""
    model = shared_copy(start, apart=start.get_submodule(HEAD))
    set_head(model, head)
    return model.eval()


def is_on_trunk(model: Any, start: nn.Module) -> bool:
    """Whether a reward model has the start model's own trunk, in the same memory."""
    own = dict(start.named_parameters())
    trunk = [(name, value) for name, value in model.named_parameters() if not name.startswith(f"{HEAD}.")]
    return bool(trunk) and all(own.get(name) is value for name, value in trunk)


def has_trunk_of(model: Any, start: nn.Module) -> bool:
    """Whether a reward model's trunk has the same weights as the start model's, in the same dtype."""
    own = start.state_dict()
    trunk = {name: value for name, value in model.state_dict().items() if not name.startswith(f"{HEAD}.")}
    return all(
        name in own and own[name].dtype == value.dtype and torch.equal(own[name], value.to(own[name].device))
        for name, value in trunk.items()
    )


def empty_head(own: Any, width: int) -> HiddenHead:
    """A head of zeros with a hidden layer, for the place of a linear one."""
    head = HiddenHead(int(own.in_features), width)
    for value in head.parameters():
        nn.init.zeros_(value)
    return head.to(own.weight.device)


def set_head(model: Any, head: nn.Module) -> None:
    """Put a head on a reward model."""
    setattr(model, HEAD, head)


def read_head(model: Any, folder: Path, width: int) -> None:
    """Read a head with a hidden layer from the weights in a folder, and put it on a model.

    Raises:
        RunError: the folder has no such head.
    """
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                if name.startswith(f"{HEAD}."):
                    found[name.removeprefix(f"{HEAD}.")] = tensors.get_tensor(name).float()
    head = empty_head(model.get_submodule(HEAD), width)
    try:
        head.load_state_dict(found)
    except RuntimeError as error:
        raise RunError(
            f"{folder} should have a head with a hidden layer of {width}, but its weights are others. Copy the model "
            "folder again."
        ) from error
    set_head(model, head)
