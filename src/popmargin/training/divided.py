"""What a trainer must know where several processes divide the weights of its model among them."""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from accelerate.utils import DistributedType

from popmargin.engine.processes import give_up_gathered, is_divided
from popmargin.errors import RunError
from popmargin.training.zero_checkpoint import parts_of, refuse_unconvertible


def divides_weights(trainer: Any) -> bool:
    """Whether each process holds a part of each weight (FSDP, ZeRO-3), so that all make each forward pass together.

    Args:
        trainer: transformers' trainer, with its accelerator.
    """
    zero = trainer.is_deepspeed_enabled and trainer.accelerator.state.deepspeed_plugin.zero_stage == 3
    return bool(trainer.is_fsdp_enabled or zero)


def refuse_undividable(trainer: Any, *, stops: bool, by_tokens: bool) -> None:
    """Check that what a run asks for goes with dividing its weights.

    Args:
        trainer: transformers' trainer, with its accelerator.
        stops: whether the best weights are kept.
        by_tokens: whether rows are split into forward passes by their tokens.

    Raises:
        RunError: it does not; with the remedy.
    """
    zero, fsdp = trainer.is_deepspeed_enabled, trainer.is_fsdp_enabled
    if stops and (zero or fsdp):
        raise RunError("Sharded training cannot keep the best weights: remove train.stop_on.")
    if zero and trainer.accelerator.distributed_type != DistributedType.DEEPSPEED:
        raise RunError(
            "deepspeed is requested, and accelerate does not use it here, as with ACCELERATE_USE_CPU: unset that, or "
            "remove deepspeed from train.trainer_arguments."
        )
    launched = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if (trainer.args.fsdp or launched) and not fsdp:
        who = "train.trainer_arguments requests" if trainer.args.fsdp else "The configuration of accelerate requests"
        raise RunError(
            f"{who} fsdp, which accelerate does not support here: it needs several processes with one accelerator "
            "each. Remove it, or use `accelerate launch` on such a machine."
        )
    if (fsdp or zero) and by_tokens:
        raise RunError(
            "Sharded training needs the same number of forward passes in every process, which "
            "train.tokens_per_batch does not guarantee: set train.micro_batch_size instead."
        )


def refuse_other_division(trainer: Any, checkpoint: Path) -> None:
    """Check that a checkpoint was written with the kind of sharding that is to go on with it.

    Raises:
        RunError: it was not, and optimizer states cannot move; with the remedy.
    """
    written = "DeepSpeed" if parts_of(checkpoint) else "FSDP" if any(checkpoint.glob("*_fsdp*")) else "whole weights"
    now = "DeepSpeed" if trainer.is_deepspeed_enabled else "FSDP" if trainer.is_fsdp_enabled else "whole weights"
    if written != now:
        raise RunError(
            f"{checkpoint} was written by a training with {written}, and this one is with {now}, which reads other "
            "optimizer states. Go on as it began, or train from the start."
        )
    refuse_unconvertible(trainer, checkpoint)


@contextlib.contextmanager
def prepared_once(trainer: Any) -> Generator[None]:
    """While a trainer is prepared: a model that is divided already stays as it is, and so does its optimizer.

    accelerate finds the weights of an optimizer again by their storage, which empty parts of weights do not have.
    """
    if not (trainer.is_fsdp_enabled and is_divided(trainer.model)):
        yield
        return
    give_up_gathered(trainer.model)
    accelerator = trainer.accelerator
    plugin = accelerator.state.fsdp_plugin
    plugin.auto_wrap_policy, plugin.activation_checkpointing = None, False  # the layers are wrapped already
    prepare = accelerator.prepare

    def prepare_divided(*objects: Any) -> Any:
        if len(objects) != 2:  # only model and optimizer come together
            return prepare(*objects)
        kept = [list(group["params"]) for group in objects[1].param_groups]
        model, optimizer = prepare(*objects)
        for group, weights in zip(optimizer.param_groups, kept, strict=True):
            group["params"] = weights
        return model, optimizer

    accelerator.prepare = prepare_divided
    try:
        yield
    finally:
        accelerator.prepare = prepare
