"""Settings of the models: what is trained, and its reference."""

from dataclasses import replace
from typing import Literal

from popmargin.bounds import Count, PartialShare, Positive, Size
from popmargin.config.checked import section
from popmargin.errors import ConfigError

Trained = Literal["full", "lora", "last_n", "head"]


@section("model")
class ModelConfig:
    """The start model, which is also the reference unless another is named.

    Attributes:
        path: a folder, a hub id, or an embedded model: `demo`, SmolLM2-135M-Instruct, or `demo-digits` and
            `demo-emoji`, U-Nets that draw coloured digits and emoji; a LoRA adapter is merged into its base first (see
            `start_adapter`).
        train: what is trained: all weights (`full`), a LoRA adapter (`lora`, with `lora_rank`), and of a reward model
            also the last layers with the head (`last_n`, with `last_layers`) or the head alone (`head`), on hidden
            states that are computed once. null means `lora` if `lora_rank` is above 0, else `full`.
        last_layers: with `train: last_n`, how many layers are trained.
        head_hidden: with `train: head`, width of a hidden layer in the head; 0 for a linear head.
        precision: `fp32`, or `bf16`: bf16 matmuls; trained weights stay in fp32, frozen ones are kept in bf16.
        lora_rank: rank of a LoRA adapter on all linear layers; 0 for none.
        lora_alpha: LoRA scaling; null means twice the rank.
        lora_dropout: dropout inside the adapter.
        lora_last_layers: adapt only the last layers, this many; null adapts all.
        quantization: `nf4` keeps the frozen weights of linear layers in 4 bits (QLoRA), doubly quantized, with
            bitsandbytes; needs `lora_rank`. The saved adapter is an ordinary one.
        start_adapter: a start model that is a LoRA adapter is merged into its base's weights (`merge`), or kept frozen
            under the trained adapter (`stack`, with `lora_rank`); both are then saved as one adapter on the same base.
        dropout: keep the start model's own dropout on, in the policy only; without it the policy's log-ratios are 0 at
            the first step. `lora_dropout` is separate.
        save_dtype: dtype of the saved weights: `fp32`, `bf16`, or `start`: the start model's, or fp32 if rounding
            would undo more than a tenth of the training. Adapters are saved in fp32.
    """

    path: str = "demo"
    train: Trained | None = None
    last_layers: Size | None = None
    head_hidden: Count = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    lora_rank: Count = 0
    lora_alpha: Positive | None = None
    lora_dropout: PartialShare = 0.0
    lora_last_layers: Size | None = None
    quantization: Literal["none", "nf4"] = "none"
    start_adapter: Literal["merge", "stack"] = "merge"
    dropout: bool = False
    save_dtype: Literal["start", "fp32", "bf16"] = "start"

    def __post_init__(self) -> None:
        _check_trained(self)

    @property
    def trained(self) -> Trained:
        """What is trained, whether `train` says so or `lora_rank`."""
        return self.train or ("lora" if self.lora_rank else "full")

    @property
    def start(self) -> "ModelConfig":
        """The same start model, whatever is trained of it: runs with equal ones share it."""
        return replace(self, train=None, last_layers=None, head_hidden=0, lora_rank=0, lora_alpha=None,
                       lora_dropout=0.0, lora_last_layers=None)  # fmt: skip


def _check_trained(model: ModelConfig) -> None:
    """Check what is trained.

    Raises:
        ConfigError: settings that contradict each other, or that have no effect.
    """
    trained = model.trained
    if trained == "lora" and not model.lora_rank:
        raise ConfigError("model.train: lora needs the rank of the adapter. Set model.lora_rank, for instance to 16.")
    if trained != "lora" and model.lora_rank:
        raise ConfigError(
            f"model.train: {trained} trains no adapter, but model.lora_rank is {model.lora_rank}. Set model.train to "
            "lora, or model.lora_rank to 0."
        )
    if (trained == "last_n") != (model.last_layers is not None):
        raise ConfigError(
            "model.train: last_n needs how many layers are trained. Set model.last_layers."
            if trained == "last_n"
            else f"model.last_layers is {model.last_layers}, but model.train is {trained}. Set model.train to last_n, "
            "or remove model.last_layers."
        )
    if model.head_hidden and trained != "head":
        raise ConfigError(
            f"model.head_hidden is {model.head_hidden}, but model.train is {trained}. Set model.train to head, or "
            "remove model.head_hidden."
        )
    if model.dropout and trained == "head":
        raise ConfigError(
            "model.dropout has no effect with model.train: head, whose hidden states are computed once, without "
            "dropout. Remove one of them."
        )


@section("reference")
class ReferenceConfig:
    """The reference model.

    Attributes:
        model: null uses the start model.
        cache: folder of cached reference log-probs, and of hidden states under a trained head; null uses the user's
            cache folder.
        tokens_per_batch: maximum tokens per forward pass when filling the cache.
    """

    model: str | None = None
    cache: str | None = None
    tokens_per_batch: Size = 4096
