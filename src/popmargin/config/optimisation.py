"""Settings of the optimisation."""

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field

from popmargin.bounds import Count, NotNegative, PartialShare, Positive, Size
from popmargin.config.checked import section


@section("train")
class TrainConfig:
    """The optimisation. The defaults are the recipe of the DPO-PoP authors' code.

    Attributes:
        epochs: passes over the rows (preferences, or PoP edges).
        max_steps: optimizer steps; overrides `epochs` when set.
        learning_rate: peak learning rate; with LoRA, 10 to 100 times larger values are usual.
        batch_size: rows per optimizer step, over all processes.
        micro_batch_size: rows per forward pass and process; null uses the whole batch.
        tokens_per_batch: maximum tokens per forward pass, prompts counted once; rows are packed into as few passes as
            possible. The rows of an optimizer step stay the same; lower values need less memory. null for no limit.
        warmup_ratio: share of steps with a rising learning rate.
        scheduler: name of a transformers scheduler.
        weight_decay: weight decay of AdamW.
        betas: β₁ and β₂ of AdamW.
        max_grad_norm: gradients of a larger norm are scaled down to it; 0 for no clipping.
        average: decay of a running average of the trained weights, updated after every optimizer step; it is evaluated
            and saved in place of the last weights. null for none.
        stop_on: a metric of the held-out preferences, larger is better, that is measured after every epoch, such as
            recall@5 with `task: items`; training stops when it gets no better, and the weights where it was best are
            saved. What chooses the weights must not be what judges them: give validation rows as `data.test`, and test
            elsewhere. null trains to the end.
        patience: with `stop_on`, stop after so many epochs without a better value.
        edge_batching: `random` edges in a batch, or `clustered`: edges that share preferences, so fewer preferences
            are scored twice per epoch.
        gradient_checkpointing: recompute activations in the backward pass.
        frozen_cache_gb: memory (on the training device) to cache the outputs of the layers below an adapter
            (`model.lora_last_layers`), so that they are computed once for all epochs, and in a study for all arms and
            seeds; 0 for none. It pays off from the second epoch or arm on; the first is a little slower.
        compile: compile norms and feed-forward blocks: faster steps after up to a minute of compiling (on the CPU it
            needs a C++ compiler).
        logging_steps: optimizer steps between metric lines.
        token_statistics: also log the policy's entropy and top-1 agreement on completion tokens.
        save_steps: optimizer steps between checkpoints; 0 for none by steps.
        save_minutes: minutes between checkpoints, which are also made at the end of epochs of a minute or more; 0 for
            none. With `save_steps` 0, they are deleted once the run has finished.
        save_total_limit: checkpoints kept.
        report_to: trackers in addition to the JSONL metrics, e.g. [tensorboard].
        trainer_arguments: more arguments for transformers.TrainingArguments (fsdp, deepspeed …), passed through.
    """

    epochs: Positive = 1.0
    max_steps: Size | None = None
    learning_rate: NotNegative = 1e-6
    batch_size: Size = 32
    micro_batch_size: Size | None = None
    tokens_per_batch: Size | None = None
    warmup_ratio: PartialShare = 0.03
    scheduler: str = "cosine"
    weight_decay: NotNegative = 0.05
    betas: Annotated[list[PartialShare], Field(min_length=2, max_length=2)] = field(default_factory=lambda: [0.9, 0.95])
    max_grad_norm: NotNegative = 1.0
    average: PartialShare | None = None
    stop_on: str | None = None
    patience: Size = 10
    edge_batching: Literal["random", "clustered"] = "random"
    gradient_checkpointing: bool = False
    frozen_cache_gb: NotNegative = 0.0
    compile: bool = False
    logging_steps: Size = 1
    token_statistics: bool = False
    save_steps: Count = 0
    save_minutes: NotNegative = 30.0
    save_total_limit: Size = 2
    report_to: list[str] = field(default_factory=list[str])
    trainer_arguments: dict[str, Any] = field(default_factory=dict[str, Any])
