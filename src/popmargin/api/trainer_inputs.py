"""A trainer's arguments, in TRL's form, as the configuration and the task of a run."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from popmargin.api.runs import refuse_no_model
from popmargin.errors import ConfigError
from popmargin.models.policies import with_padding
from popmargin.pop.edges import PopEdges
from popmargin.tasks.base import TaskSettings
from popmargin.tasks.language import LanguageTask
from popmargin.tasks.text import cache_folder

_LOG = logging.getLogger(__name__)
_IN_MEMORY = "model-in-memory"


def refuse_arguments(**given: Any) -> None:
    """Refuse arguments of TRL's trainer that are meaningless here.

    Raises:
        ConfigError: one is given; the message says what to do instead.
    """
    instead = {
        "data_collator": "batches are the task's own",
        "compute_metrics": "evaluate() measures accuracy, margins and loss, and a callback's on_evaluate gets them; "
        "predict() gives every preference's margin for your own metrics",
        "quantization_config": "weights are not quantized. With a LoRA adapter, load the model in bf16 to save memory",
    }
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"PreferenceTrainer does not take {name}: {instead[name]}.")


def _path(model: Any) -> str:
    return str(model) if isinstance(model, (str, Path)) else str(getattr(model, "name_or_path", "") or _IN_MEMORY)


def said_by_objects(
    model: Any, ref_model: Any, peft_config: Any, edges: Any, further: Mapping[str, Any]
) -> dict[str, Any]:
    """The part of the configuration given by model, reference, adapter and edges.

    Args:
        model, ref_model, peft_config, edges: the trainer's arguments.
        further: settings by section, which must not set the same.

    Raises:
        ConfigError: they do, or a policy cannot be trained with the adapter.
    """
    values: dict[str, Any] = {"model": {"path": _path(model)}}
    if ref_model is not None:
        values["reference"] = {"model": _path(ref_model)}
    if peft_config is not None:
        _check_adapter(peft_config)
        alpha, dropout = float(peft_config.lora_alpha), float(peft_config.lora_dropout)
        values["model"] |= {"lora_rank": int(peft_config.r), "lora_alpha": alpha, "lora_dropout": dropout}
        values["model"]["lora_last_layers"] = None  # set by peft_config.layers_to_transform
    if isinstance(edges, PopEdges):
        file = cache_folder(None).parent / "data" / f"edges-{edges.fingerprint()[:24]}.parquet"
        edges.save(file)
        values["pop"] = {"edges": str(file)}
    elif edges is not None:
        values["pop"] = {"edges": str(edges)}
    for name, section in values.items():
        also = further.get(name)
        for key in section if isinstance(also, Mapping) else ():
            if key in also:
                raise ConfigError(f"config={{…}} sets {name}.{key}, and so does another argument. Set it only there.")
    return values


def _check_adapter(peft_config: Any) -> None:
    from peft import LoraConfig

    kind = type(peft_config).__name__
    if not isinstance(peft_config, LoraConfig):
        raise ConfigError(f"peft_config is a {kind}; adapters are trained with a LoraConfig.")
    if peft_config.modules_to_save:
        raise ConfigError("peft_config.modules_to_save trains whole modules besides the adapter. Remove it.")
    task = getattr(peft_config.task_type, "value", peft_config.task_type)
    if task not in (None, "CAUSAL_LM"):
        raise ConfigError(
            f"peft_config.task_type is {task}, but a policy is a causal language model. Set task_type='CAUSAL_LM'. "
            "Reward models are trained by popmargin.train with config={'task': 'reward'}."
        )


def make_task(settings: TaskSettings, model: Any, ref_model: Any, tokenizer: Any, peft_config: Any) -> LanguageTask:
    """The task of a trainer's run, on models in memory if given.

    Raises:
        ConfigError: a model or its adapter cannot be trained.
    """
    task = LanguageTask(settings)
    task.adapter = peft_config
    if isinstance(model, (str, Path)):
        if tokenizer is not None:
            task.tokenizer = with_padding(tokenizer, str(model))
    else:
        refuse_no_model(model, tokenizer)
        if settings.model.start_adapter != "merge":
            raise ConfigError(
                "model.start_adapter works only with a start model on disk: pass the folder of its adapter."
            )
        if peft_config is not None and _path(model) == _IN_MEMORY:
            raise ConfigError(
                "The model was not loaded from a folder or the hub, so its adapter could not name a base. Save it "
                "with save_pretrained, and load it from there."
            )
        if peft_config is None and next(model.parameters()).dtype != torch.float32:
            _LOG.warning(
                "The weights of the model are in %s, which rounds small steps away: load it with dtype=torch.float32, "
                "and set bf16=True for fast matmuls.",
                str(next(model.parameters()).dtype).removeprefix("torch."),
            )
        task.take(model, with_padding(tokenizer, _path(model)))
    if ref_model is not None and not isinstance(ref_model, (str, Path)):
        if ref_model is model:
            raise ConfigError("model and ref_model are the same object. Omit ref_model: the reference is a copy.")
        task.take_reference(ref_model)
    return task
