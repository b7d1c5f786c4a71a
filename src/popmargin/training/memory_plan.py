"""How much memory a training needs, estimated before it starts, without loading weights.

Bytes of each process, with P parameters of which S are trained (n processes; all in fp32 unless said otherwise):

| part | bytes | source |
|---|---|---|
| weights | 4 a parameter; frozen ones in bf16 2, in nf4 0.516 | `base_dtype`; nf4: Dettmers et al. 2023, §3 |
| reference | those of its model where it is forwarded in training, else 0; under an adapter 0 | `engine.decoupled` |
| gradients | 4 S, and tied embeddings' twice; with DDP 4 S more, for its buckets | torch.nn.parallel |
| optimizer | AdamW 8 S, 8-bit AdamW 2 S | Loshchilov & Hutter 2019; Dettmers et al. 2022 |
| target, averages | 4 S for each average of the weights | `engine.target.EMATarget` |
| activations | what autograd keeps of the largest forward pass | counted, `engine.saved_activations` |
| head | hidden states, and one chunk of logits | `engine.head` |

Sharded training divides all but activations by n, and holds one layer whole; ZeRO-2 divides gradients and optimizer.
Each stage of ZeRO holds another copy of the trained weights beside the optimizer. Before the backward pass there are
activations and no gradients, after it gradients and no activations: the peak has the larger of both, or, where a step
has several forward passes, both.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from popmargin.config import ModelConfig, TrainConfig
from popmargin.engine.head import chunk_elements
from popmargin.engine.saved_activations import Activations
from popmargin.engine.sequences import split_to_budget
from popmargin.models.policies import device
from popmargin.training.arguments import micro_batch_size

NF4_BYTES = 4.127 / 8
"""Of a weight in nf4: 4 bits, and 0.127 of the doubly quantized scales (Dettmers et al. 2023, §3)."""
_OPTIMIZER_BYTES = {
    "adamw": 8, "adamw_bnb_8bit": 2, "adamw_8bit": 2, "paged_adamw_8bit": 2, "lion": 4, "lion_8bit": 1, "sgd": 0,
    "adafactor": 0, "rmsprop": 4, "adagrad": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Shapes:
    """A model to train, by its shapes.

    Attributes:
        parameters: how many.
        trained: how many of them are trained.
        weight_bytes: of all in memory.
        layer_bytes: of the largest layer, in fp32.
        tied_bytes: of trained embeddings that are also the head: their second gradient is added to the first.
        vocabulary, hidden: sizes of the head; 0 without one.
        activations: what its layers keep for the backward pass; None where that is not known.
        unknown: why not.
    """

    parameters: int
    trained: int
    weight_bytes: int
    layer_bytes: int = 0
    tied_bytes: int = 0
    vocabulary: int = 0
    hidden: int = 0
    activations: Activations | None = None
    unknown: str = ""


@dataclass(frozen=True)
class RowSizes:
    """What the rows of a run demand.

    Attributes:
        rows: of an epoch.
        costs: tokens of each in a forward pass (R,), prompts counted once; None where rows have no tokens.
        completions: tokens of all completions, whose reference log-probs are cached.
        responses: how many.
    """

    rows: int
    costs: np.ndarray | None = None
    completions: int = 0
    responses: int = 0


@dataclass(frozen=True)
class Setting:
    """How a run trains, as far as memory is concerned.

    Attributes:
        model: of the trained model.
        train: of the optimisation.
        processes: how many.
        sharded: whether they divide the weights among them (FSDP, DeepSpeed's ZeRO-3).
        zero: the stage of DeepSpeed's ZeRO; 0 without.
        averages: running averages of the weights: an averaged target, `train.average`, the best weights of
            `train.stop_on`.
        live_reference: whether the reference is forwarded in training.
        cached: whether its log-probs are cached on disk.
    """

    model: ModelConfig
    train: TrainConfig
    processes: int = 1
    sharded: bool = False
    zero: int = 0
    averages: int = 0
    live_reference: bool = False
    cached: bool = False


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by part, in each process.

    Attributes:
        parts: name -> bytes, and how they come about.
        passes: the most forward passes of a step.
        pass_tokens: tokens of the largest of them; 0 where rows have none.
        apart: bytes of the head that are gone before a layer is computed again, and so are never beside it.
    """

    parts: Mapping[str, tuple[int, str]]
    passes: int
    pass_tokens: int
    apart: int = 0

    @property
    def peak(self) -> int:
        """The largest sum at any time."""
        bytes_of = {name: size for name, (size, _) in self.parts.items()}
        forward = bytes_of.pop("activations", 0) + bytes_of.pop("head", 0) - self.apart
        gradients = bytes_of.pop("gradients", 0)
        return sum(bytes_of.values()) + (forward + gradients if self.passes > 1 else max(forward, gradients))


def plan(shapes: Shapes, sizes: RowSizes, setting: Setting) -> MemoryPlan:
    """The memory of a training, by part; the formulas are those of this module.

    Example:
        >>> shapes = Shapes(parameters=1000, trained=1000, weight_bytes=4000)
        >>> setting = Setting(ModelConfig(), TrainConfig(), averages=1)
        >>> found = plan(shapes, RowSizes(rows=32), setting)
        >>> {name: size for name, (size, _) in found.parts.items()}
        {'weights': 4000, 'reference': 0, 'gradients': 4000, 'optimizer': 8000, 'target': 4000}
        >>> found.peak
        20000
    """
    passes, tokens = forward_passes(sizes, setting)
    several = setting.processes
    divided = several if setting.sharded else 1
    of_gradients = several if setting.sharded or setting.zero >= 2 else 1
    of_optimizer = several if setting.sharded or setting.zero else 1
    layer = shapes.layer_bytes if setting.sharded else 0
    optim, a_trained = _optimizer(setting.train)
    live = shapes.weight_bytes if setting.live_reference and not setting.model.lora_rank else 0
    buckets = several > 1 and of_gradients == 1
    a_trained += 4 if setting.zero else 0
    each = 4 * shapes.trained
    parts: dict[str, tuple[int, str]] = {
        "weights": (shapes.weight_bytes // divided + layer, _of_weights(shapes, setting)),
        "reference": (live // divided, _of_reference(setting, sizes)),
        "gradients": (each // of_gradients * (2 if buckets else 1) + shapes.tied_bytes, _of_gradients(shapes, buckets)),
        "optimizer": (a_trained * shapes.trained // of_optimizer, _of_optimizer(optim, a_trained, setting)),
        "target": (setting.averages * each // divided, _of_averages(setting.averages)),
    }  # fmt: skip
    if shapes.activations is not None and tokens:
        checkpointing = setting.train.gradient_checkpointing
        kept = shapes.activations.at(tokens, checkpointing=checkpointing)
        how = "gradient checkpointing" if checkpointing else "without gradient checkpointing"
        parts["activations"] = (kept, f"{tokens:,} tokens in the largest forward pass, {how}")
    if shapes.hidden and tokens:
        chunk = min(tokens, max(chunk_elements(device()) // max(shapes.vocabulary, 1), 1)) * shapes.vocabulary
        parts["head"] = (4 * (2 * tokens * shapes.hidden + chunk), "hidden states, and a chunk of logits")
    apart = 0
    if shapes.activations is not None and setting.train.gradient_checkpointing:
        apart = min(shapes.activations.layer.at(tokens), parts.get("head", (0, ""))[0])
    return MemoryPlan(parts, passes, tokens, apart)


def forward_passes(sizes: RowSizes, setting: Setting) -> tuple[int, int]:
    """The most forward passes of a step in a process, and the tokens of the largest."""
    micro = micro_batch_size(setting.train, setting.processes)
    accumulated = max(setting.train.batch_size // (micro * setting.processes), 1)
    if sizes.costs is None or not len(sizes.costs):
        return accumulated, 0
    costs = np.random.default_rng(0).permutation(sizes.costs)
    batches = [costs[start : start + micro] for start in range(0, len(costs), micro)]
    budget = setting.train.tokens_per_batch
    if budget is None:
        return accumulated, int(max(batch.sum() for batch in batches))
    parts = [[int(batch[part].sum()) for part in split_to_budget(batch.tolist(), budget)] for batch in batches]
    return accumulated * max(map(len, parts)), max(map(max, parts))


def _optimizer(train: TrainConfig) -> tuple[str, int]:
    name = str(train.trainer_arguments.get("optim", "adamw")).lower()
    found = name if name in _OPTIMIZER_BYTES else name.partition("_")[0]
    return name, _OPTIMIZER_BYTES.get(found, _OPTIMIZER_BYTES["adamw"])


def _of_weights(shapes: Shapes, setting: Setting) -> str:
    share = f", 1/{setting.processes} of them and one layer whole" if setting.sharded else ""
    return f"{_count(shapes.parameters)} parameters, {shapes.weight_bytes / shapes.parameters:.3g} bytes each{share}"


def _of_optimizer(name: str, a_trained: int, setting: Setting) -> str:
    own = ", with DeepSpeed's own copy of the weights" if setting.zero else ""
    return f"{name}, {a_trained} bytes a trained parameter{own}"


def _of_averages(count: int) -> str:
    return {0: "none", 1: "one average of the trained weights"}.get(count, f"{count} averages of the trained weights")


def _of_gradients(shapes: Shapes, buckets: bool) -> str:
    exchanged = ", twice: DDP exchanges them in buckets" if buckets else ""
    tied = "; once more for the embeddings, which are also the head" if shapes.tied_bytes else ""
    return f"of {_count(shapes.trained)} trained parameters{exchanged}{tied}"


def _of_reference(setting: Setting, sizes: RowSizes) -> str:
    if setting.live_reference:
        return "the policy's own weights, without the adapter" if setting.model.lora_rank else "forwarded in training"
    if not setting.cached:
        return "none"
    disk = 4 * sizes.completions + 24 * sizes.responses
    return f"scored before training; {told_bytes(disk)} of log-probs on disk" if disk else "scored before training"


def _count(parameters: int) -> str:
    for size, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= size:
            return f"{parameters / size:.3g}{name}"
    return str(parameters)


def told_bytes(number: float) -> str:
    """A number of bytes for people."""
    for size, name in ((1e9, "GB"), (1e6, "MB")):
        if number >= size:
            return f"{number / size:,.1f} {name}"
    return f"{number / 1e3:,.1f} kB"
