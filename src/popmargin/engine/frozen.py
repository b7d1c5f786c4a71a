"""Outputs of layers below the first trained one never change: computed once, for every epoch, objective and seed.

With an adapter on the last layers only (`model.lora_last_layers`), most of a forward pass is the same in all steps of
all runs of a study. `FrozenOutputs` caches it on the model's device, keyed by the tokens of each response.

Axis suffixes: T tokens of a packed row, L tokens of one response, H hidden size.
"""

import contextlib
import hashlib
import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from popmargin.engine.logps import ForwardPlan, better_plan, model_inputs
from popmargin.engine.sequences import Sequences
from popmargin.engine.trial import evaluating, unwrapped, without_adapter

_LOG = logging.getLogger(__name__)


class FrozenOutputs:
    """Outputs of a start model's lower layers for the responses seen, shared by all policies made from it.

    Args:
        gigabytes: maximum memory; once it is full, the layers run again for every response not in it.
    """

    def __init__(self, gigabytes: float) -> None:
        self._room = int(gigabytes * 2**30)
        self._outputs: dict[tuple[int, bytes], Tensor] = {}
        self._full = False

    def __len__(self) -> int:
        return len(self._outputs)

    def share(self, policy: Any, plan: ForwardPlan) -> ForwardPlan:
        """A plan that makes a policy's forward passes use these outputs and add to them.

        Args:
            policy: an adapter on a copy of the start model, not wrapped for distributed training.
            plan: its own.

        Returns:
            The plan; its own if this is not possible, with the reason in the log.
        """
        depth = _frozen_depth(policy)
        if plan.layout != "packed" or not depth:
            reason = (
                "the first layer or something outside the layers is trained" if not depth else "rows cannot be packed"
            )
            _LOG.warning("train.frozen_cache_gb has no effect with %s: %s", type(policy).__name__, reason)
            return plan
        faster = replace(plan, lower=FrozenLayers(self, depth))
        return better_plan(policy, plan, faster, "cached outputs of frozen layers")

    def of(
        self, depth: int, responses: Sequence[np.ndarray], compute: Callable[[list[np.ndarray]], Sequence[Tensor]]
    ) -> list[Float[Tensor, "L H"]]:
        """Outputs of the lower layers, cached or computed.

        Args:
            depth: how many layers.
            responses: token ids of each, prompts included.
            compute: computes outputs of some responses; called once for all that are missing.
        """
        keys = [(depth, hashlib.blake2b(response.tobytes(), digest_size=16).digest()) for response in responses]
        found = {key: self._outputs[key] for key in keys if key in self._outputs}
        missing = {key: response for key, response in zip(keys, responses, strict=True) if key not in found}
        if missing:
            for key, output in zip(missing, compute(list(missing.values())), strict=True):
                found[key] = output
                self._keep(key, output)
        return [found[key] for key in keys]

    def _keep(self, key: tuple[int, bytes], output: Tensor) -> None:
        size = output.numel() * output.element_size()
        if size <= self._room:
            self._room -= size
            self._outputs[key] = output.clone()
        elif not self._full:
            self._full = True
            _LOG.warning(
                "train.frozen_cache_gb is full after %d responses: raise it, or the frozen layers run in every step "
                "for the rest.",
                len(self),
            )


@dataclass(frozen=True)
class FrozenLayers:
    """The lower `depth` layers of a policy, whose outputs are shared."""

    outputs: FrozenOutputs
    depth: int

    @contextlib.contextmanager
    def skipped(self, model: nn.Module, sequences: Sequences) -> Generator[None]:
        """Let the forward pass of a packed row start at the first layer above.

        Args:
            model: the policy, wrapped for distributed training or not.
            sequences: what it is called with.
        """
        model = unwrapped(model)
        layers = decoder_layers(model)
        hidden = self._hidden(model, layers, sequences)[None]

        def known(*_: Any, **__: Any) -> Tensor:
            return hidden

        lower = [*[_unchanged] * (self.depth - 1), known]
        with _forwards(layers[: self.depth], lower):
            yield

    @torch.no_grad()
    def _hidden(self, model: nn.Module, layers: list[nn.Module], sequences: Sequences) -> Float[Tensor, "T H"]:
        ids_T = sequences["input_ids"][0]
        groups = _responses(ids_T.cpu().numpy(), sequences["segments"])
        responses = [response for _, group in groups for response in group]
        outputs = iter(self.outputs.of(self.depth, responses, lambda some: self._run(model, layers, some)))
        pieces: list[Tensor] = []
        for prefix, group in groups:
            own = [next(outputs) for _ in group]
            pieces += [own[0][:prefix], *(output[prefix:] for output in own)]
        return torch.cat(pieces)

    def _run(self, model: nn.Module, layers: list[nn.Module], responses: list[np.ndarray]) -> Sequence[Tensor]:
        """The layers' outputs for some responses, side by side in one row."""
        device = next(model.parameters()).device
        lengths = [len(response) for response in responses]
        row: Sequences = {
            "input_ids": torch.from_numpy(np.concatenate(responses))[None].to(device),
            "position_ids": torch.cat([torch.arange(length) for length in lengths])[None].to(device),
            "segments": tuple((length,) for length in lengths),
        }
        outputs: list[Tensor] = []

        def end(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
            outputs.append(hidden)
            return hidden

        base: Any = without_adapter(model)
        above = [end, *[_unchanged] * (len(layers) - self.depth - 1)]
        with evaluating(model), _forwards(layers[self.depth :], above):
            base.base_model(**model_inputs(row))
        return outputs[0][0].split(lengths)


def _unchanged(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden


def _responses(ids_T: np.ndarray, segments: tuple[tuple[int, ...], ...]) -> list[tuple[int, list[np.ndarray]]]:
    """For every group in a packed row: the length of its prefix, and its distinct responses from their first token."""
    groups: list[tuple[int, list[np.ndarray]]] = []
    start = 0
    for prefix, *tails in segments:
        ends = np.cumsum([start + prefix, *tails])
        shared = ids_T[start : start + prefix]
        group = [np.concatenate([shared, ids_T[begin:end]]) for begin, end in pairwise(ends)]
        groups.append((prefix, group or [shared]))
        start = int(ends[-1])
    return groups


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The decoder's layers in order; empty if they cannot be found."""
    base = without_adapter(model)
    if base is None:
        return []
    count = getattr(base.config.get_text_config(), "num_hidden_layers", None)
    lists = [child for child in base.base_model.children() if isinstance(child, nn.ModuleList)]
    return next((list(found) for found in lists if len(found) == count), [])


def _frozen_depth(model: nn.Module) -> int:
    """How many layers are below everything that is trained."""
    layers = decoder_layers(model)
    inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
    if any(p.requires_grad and id(p) not in inside for p in model.parameters()):
        return 0
    trained = (place for place, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters()))
    return next(trained, 0)


@contextlib.contextmanager
def _forwards(modules: Sequence[nn.Module], functions: Sequence[Callable[..., Any]]) -> Generator[None]:
    """Temporarily replace the forward functions of some modules."""
    for module, function in zip(modules, functions, strict=True):
        module.forward = function
    try:
        yield
    finally:
        for module in modules:
            del module.forward  # restores the class's own
