"""The meaning of TRL's arguments here: each is used, has no effect on results, or is refused with an explanation."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainingArguments

from popmargin.config import DataConfig, EvaluationConfig, TrainConfig
from popmargin.errors import ConfigError
from popmargin.objectives.base import OBJECTIVES

_NO_LIMIT = 2**31 - 1

LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid": {"name": "dpo"},
    "hinge": {"name": "hinge"},
    "ipo": {"name": "ipo", "length_normalized": True},
    "robust": {"name": "robust_dpo"},
}
"""TRL's loss types that are registered objectives; write others as your own objective."""

_REFUSED: dict[str, tuple[Any, str]] = {
    "fp16": (False, "weights are trained in fp32 or with bf16 matmuls. Set bf16=True, or omit both"),
    "model_init_kwargs": (None, "load the model yourself and pass it as `model`"),
    "trust_remote_code": (False, "code next to a model never runs here. Load the model yourself and pass it"),
    "router_aux_loss_coef": (None, "there is no load-balancing loss. Remove it"),
    "ld_alpha": (None, "long responses are not down-weighted. `objective='simpo'` divides by their lengths"),
    "loss_weights": ([1.0], "there is one loss, with weight 1. Regularizers have their own weights"),
    "truncation_mode": ("keep_start", "the prompt is cut; config={'data': {'truncation': …}} says at which end"),
    "f_divergence_type": ("reverse_kl", "scores are log-ratios. Write another divergence as an objective"),
    "use_weighting": (False, "rows are not weighted by the policy's own probabilities. Remove it"),
    "activation_offloading": (False, "activations stay on the device. gradient_checkpointing=True saves memory"),
    "sync_ref_model": (False, "the reference is fixed. A moving target is `objective='pop'`"),
    "pad_token": (None, "set tokenizer.pad_token"),
    "label_smoothing_factor": (0.0, "it belongs to other trainers. `objective='cdpo'` takes soft labels"),
    "use_liger_kernel": (False, "the forward pass is popmargin's own. Remove it"),
    "torch_compile": (False, "say config={'train': {'compile': True}}"),
    "auto_find_batch_size": (False, "set per_device_train_batch_size, or config={'train': {'tokens_per_batch': 8192}}"),
    "neftune_noise_alpha": (None, "noise in the embeddings would change log-ratios. Remove it"),
    "push_to_hub": (False, "save the model and push its folder with huggingface_hub"),
}
"""Argument -> its neutral value, and what to do instead of setting another one."""

_DATA = ("truncation", "prompt", "reasoning")
"""Fields allowed in `config["data"]`: the others are about reading data, which is already done."""
_TRAIN = ("tokens_per_batch", "edge_batching", "frozen_cache_gb", "compile", "token_statistics")
"""Fields allowed in `config["train"]`: the arguments set the others."""
_EVALUATION = ("tokens_per_batch", "seed", "pop_k")
"""Fields allowed in `config["evaluation"]`: the others are about generations and curves."""


@dataclasses.dataclass(frozen=True)
class Read:
    """TRL's arguments in popmargin's terms.

    Attributes:
        arguments: for transformers' trainer.
        config: a run's configuration, as plain values.
    """

    arguments: TrainingArguments
    config: dict[str, Any]


def read_arguments(args: TrainingArguments, objective: str | Mapping[str, Any] | None, *, edges: bool) -> Read:
    """The arguments of a TRL script, TRL's DPOConfig or transformers' TrainingArguments.

    Args:
        args: those of the script.
        objective: a name, or a mapping with `name` and options; None takes `pop` with edges, else `args.loss_type`.
        edges: whether PoP edges are given.

    Raises:
        ConfigError: an argument that is meaningless here; the message says what to do instead.
    """
    for name, (nothing, instead) in _REFUSED.items():
        value = getattr(args, name, nothing)
        if value != nothing and value is not None:
            raise ConfigError(f"args.{name} is {value!r}, which PreferenceTrainer does not take: {instead}.")
    own = copy.copy(args)
    precision = "bf16" if args.bf16 else "fp32"
    changes: dict[str, Any] = {
        "bf16": False,  # the forward pass casts its matmuls itself
        "mixed_precision": "no",
        "remove_unused_columns": False,
        "logging_nan_inf_filter": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "ddp_find_unused_parameters": False,
    }
    for name, value in changes.items():
        setattr(own, name, value)
    length = getattr(args, "max_length", 1024)
    config: dict[str, Any] = {
        "name": "run",
        "seed": args.seed,
        "output": str(args.output_dir),
        "objective": _objective(args, objective, edges=edges),
        "model": {"precision": precision, "dropout": not getattr(args, "disable_dropout", True)},
        "data": {"max_length": _NO_LIMIT if length is None else length},
        "train": {
            "batch_size": args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "micro_batch_size": args.per_device_train_batch_size,
        },
    }
    return Read(own, config)


def check_sections(config: Mapping[str, Any], args: TrainingArguments) -> None:
    """See that further settings say nothing that the arguments of the trainer say, and nothing without effect.

    Raises:
        ConfigError: one does; the message names the argument.
    """
    if "task" in config:
        raise ConfigError("PreferenceTrainer trains policies. Reward models are trained by popmargin.train.")
    said = {
        "seed": "args.seed",
        "output": "args.output_dir",
        "objective": "objective=…",
        "model.precision": "args.bf16",
    }
    said |= {"data.train": "train_dataset=…", "data.test": "eval_dataset=…", "data.max_length": "args.max_length"}
    said |= {"model.dropout": "args.disable_dropout"} if hasattr(args, "disable_dropout") else {}
    said |= {f"data.{name}": "load_preferences" for name in _others(DataConfig, *_DATA, "train", "test", "max_length")}
    said |= {f"train.{name}": "args" for name in _others(TrainConfig, *_TRAIN)}
    said["train.average"] = "popmargin.train"
    said |= {f"evaluation.{name}": "popmargin.evaluate" for name in _others(EvaluationConfig, *_EVALUATION)}
    for name in config:
        section = config[name]
        parts = isinstance(section, Mapping) and name in ("data", "train", "model", "evaluation")
        names = [f"{name}.{key}" for key in section] if parts else [name]
        for full in names:
            if full in said:
                raise ConfigError(f"config={{…}} sets {full}, {_instead(said[full])}")


def _others(section: Any, *names: str) -> list[str]:
    """The fields of a section except these."""
    return [field.name for field in dataclasses.fields(section) if field.name not in names]


def _instead(said_by: str) -> str:
    if said_by == "load_preferences":
        return (
            "but the data is already read and split. Pass the final train_dataset and eval_dataset; load_preferences, "
            "split_preferences and the methods of Preferences make them."
        )
    if said_by == "popmargin.evaluate":
        return (
            "but PreferenceTrainer measures margins and generates nothing. popmargin.train and popmargin.evaluate "
            "sample and score."
        )
    if said_by == "popmargin.train":
        return "but PreferenceTrainer keeps the last weights. popmargin.train averages them."
    return f"but {said_by} sets this. Set it only there."


def _objective(args: TrainingArguments, objective: str | Mapping[str, Any] | None, *, edges: bool) -> dict[str, Any]:
    losses: Any = getattr(args, "loss_type", ["sigmoid"])
    losses = [losses] if isinstance(losses, str) else list(losses)
    smoothing, beta = float(getattr(args, "label_smoothing", 0.0)), getattr(args, "beta", None)
    if objective is None and edges:
        objective = "pop"
    if objective is not None and losses != ["sigmoid"]:
        raise ConfigError(f"args.loss_type {losses} and the objective both choose the loss: omit args.loss_type.")
    if smoothing and losses != ["robust"]:
        raise ConfigError(
            "args.label_smoothing only works with the loss type `robust`. For uncertain labels use objective='cdpo' "
            "with a `soft_label` column, or objective={'name': 'robust_dpo', 'flip_rate': …}."
        )
    if objective is None:
        if len(losses) != 1 or losses[0] not in LOSSES:
            raise ConfigError(
                f"args.loss_type {losses} is not supported (only {', '.join(LOSSES)}). Name an objective instead: "
                f"objective=… takes {', '.join(OBJECTIVES.names())}, or your own as 'file.py:function'; regularizers "
                "are config={'regularizers': […]}."
            )
        values = dict(LOSSES[losses[0]])
        values |= {"flip_rate": smoothing} if losses == ["robust"] else {}
        return values if beta is None else values | {"beta": beta}
    values = {"name": objective} if isinstance(objective, str) else dict(objective)
    usual = {field.name: field.default for field in dataclasses.fields(args)}.get("beta")
    if beta is None or beta == usual:
        return values
    entry = OBJECTIVES.get(str(values.get("name")))
    if "beta" not in {field.name for field in dataclasses.fields(entry.options)}:
        raise ConfigError(f"args.beta is {beta}, and the objective '{entry.name}' has no β: omit it.")
    if values.get("beta", beta) != beta:
        raise ConfigError(f"args.beta is {beta}, and the objective's beta {values['beta']}: omit one of them.")
    return values | {"beta": beta}
