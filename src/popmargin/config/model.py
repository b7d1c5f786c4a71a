"""Settings of the models: what is trained, and its reference."""

from typing import Literal

from popmargin.bounds import Count, PartialShare, Positive, Size
from popmargin.config.checked import section


@section("model")
class ModelConfig:
    """The start model, which is also the reference unless another is named.

    Attributes:
        path: a folder, a hub id, or an embedded model: `demo`, SmolLM2-135M-Instruct, or `demo-digits` and
            `demo-emoji`, U-Nets that draw coloured digits and emoji; a LoRA adapter is merged into its base first (see
            `start_adapter`).
        precision: `fp32`, or `bf16`: bf16 matmuls; trained weights stay in fp32, frozen ones are kept in bf16.
        lora_rank: rank of a LoRA adapter on all linear layers; 0 trains all weights.
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
    precision: Literal["fp32", "bf16"] = "fp32"
    lora_rank: Count = 0
    lora_alpha: Positive | None = None
    lora_dropout: PartialShare = 0.0
    lora_last_layers: Size | None = None
    quantization: Literal["none", "nf4"] = "none"
    start_adapter: Literal["merge", "stack"] = "merge"
    dropout: bool = False
    save_dtype: Literal["start", "fp32", "bf16"] = "start"


@section("reference")
class ReferenceConfig:
    """The reference model.

    Attributes:
        model: null uses the start model.
        cache: folder of cached reference log-probs; null uses the user's cache folder.
        tokens_per_batch: maximum tokens per forward pass when filling the cache.
    """

    model: str | None = None
    cache: str | None = None
    tokens_per_batch: Size = 4096
