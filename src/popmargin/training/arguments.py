"""transformers' arguments for a run, and its progress bar."""

import dataclasses
import importlib.util
import math
import os
from pathlib import Path
from typing import Any

import torch
from transformers import ProgressCallback, TrainingArguments

from popmargin.config import TrainConfig
from popmargin.errors import ConfigError
from popmargin.models.policies import device, process_count


def training_arguments(settings: TrainConfig, seed: int, folder: Path) -> TrainingArguments:
    """transformers' arguments for a run.

    Args:
        settings: of the optimisation.
        seed: of order and dropout.
        folder: of the checkpoints.

    Raises:
        ConfigError: a batch that cannot be divided, unknown trainer_arguments, or a precision of accelerate's own.
    """
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched != "no" and not {"bf16", "fp16"} & settings.trainer_arguments.keys():
        raise ConfigError(
            f"accelerate's mixed_precision is {launched}, which the trained model would follow but not its reference. "
            'Set it to "no" where accelerate is configured, and model.precision here.'
        )
    processes = process_count()
    micro = micro_batch_size(settings, processes)
    accumulation, rest = divmod(settings.batch_size, micro * processes)
    if rest or not accumulation:
        raise ConfigError(
            f"train.batch_size {settings.batch_size} is not a multiple of train.micro_batch_size {micro} x "
            f"{processes} process(es)."
        )
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    # Renamed in transformers 5.
    checkpointing = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    values: dict[str, Any] = {
        "output_dir": str(folder),
        "seed": seed,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "learning_rate": settings.learning_rate,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "warmup_steps": settings.warmup_ratio,  # below 1 it is a share of the steps
        "lr_scheduler_type": settings.scheduler,
        "weight_decay": settings.weight_decay,
        "adam_beta1": settings.betas[0],
        "adam_beta2": settings.betas[1],
        "max_grad_norm": settings.max_grad_norm,
        checkpointing: settings.gradient_checkpointing,
        "logging_steps": settings.logging_steps,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps" if settings.save_steps else "no",
        "save_steps": settings.save_steps or 500,
        "save_total_limit": settings.save_total_limit,
        "report_to": settings.report_to or "none",
        "remove_unused_columns": False,
        "use_cpu": device().type == "cpu",
        "dataloader_pin_memory": torch.cuda.is_available(),
        "accelerator_config": {"non_blocking": torch.cuda.is_available()},  # copies of pinned batches cause no sync
        "ddp_find_unused_parameters": False,
        "disable_tqdm": False,
    }
    _refuse_missing_optimizer(str(settings.trainer_arguments.get("optim", "")))
    try:
        return TrainingArguments(**(values | settings.trainer_arguments))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"train: {error}") from error


def _refuse_missing_optimizer(name: str) -> None:
    if any(part in name for part in ("8bit", "bnb", "paged")) and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"train.trainer_arguments: the optimizer {name} is bitsandbytes', which is not installed. Run: pip install "
            "bitsandbytes"
        )


def micro_batch_size(settings: TrainConfig, processes: int) -> int:
    """Rows that each process forwards together."""
    return settings.micro_batch_size or math.ceil(settings.batch_size / processes)


class QuietProgress(ProgressCallback):
    """The progress bar with its ETA; metrics go to metrics.jsonl instead of the screen."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        bar: Any = getattr(self, "training_bar", None)
        if bar is not None and logs and "loss" in logs:
            bar.set_postfix({k: f"{logs[k]:.3f}" for k in ("loss", "accuracy") if k in logs})
