"""Merging a saved adapter into the weights of its base, so that one whole model is trained and saved."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from popmargin.errors import ConfigError, RunError
from popmargin.models.adapter_files import ADAPTER_CONFIG, Adapter, find_adapter
from popmargin.models.refusals import reason
from popmargin.models.shared_weights import shared_copy

_PREFIX = "base_model.model."  # of peft's names
_ALLOWED = 1e-3  # maximum change of a logit by merging in fp32, relative to the largest logit


def merge_adapter(model: Any, adapter: Adapter, info: dict[str, Any]) -> None:
    """Merge an adapter into its base, in place, and check that the merged model equals the adapted one.

    Modules that the adapter contains as a whole (`modules_to_save`, a resized vocabulary) replace the base's. A head
    that was tied to the embeddings is untied if the adapter changed only one of them.

    Args:
        model: the base, in fp32.
        adapter: trained on this base.
        info: transformers' loading info of the base; weights that the adapter supplies are no longer missing.

    Raises:
        RunError: the adapter's weights do not fit this model, or it is of a kind that cannot be merged.
    """
    config = _settings(adapter)
    tensors = {_own_name(name): value for name, value in adapter.tensors().items()}
    lost = _refuse_foreign_head(model, tensors, info)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(tie_word_embeddings|tied).*")  # untied below if necessary
        _resize(model, tensors)
        if not getattr(config, "ensure_weight_tying", False):
            _untie(model, tensors)
        adapted = _put_on(model, config, adapter, {name: value for name, value in tensors.items() if name not in lost})
        expected = _logits(model)
        try:
            adapted.merge_and_unload()
        except (ValueError, NotImplementedError, AttributeError, RuntimeError) as error:
            raise RunError(f"The adapter '{adapter.path}' cannot be merged into its base: {reason(error)}") from error
    vars(model).pop("peft_config", None)  # otherwise peft treats the next adapter as a second one
    model.requires_grad_(True)
    change = (_logits(model) - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    if not change <= _ALLOWED:
        raise RunError(
            f"Merging the adapter '{adapter.path}' changes the model's logits (by {change:.2g} of the largest). "
            "Merge it yourself, save the whole model, and start from that."
        )
    brought = {name for name in info["missing_keys"] if name in tensors}
    info["missing_keys"] = type(info["missing_keys"])(name for name in info["missing_keys"] if name not in brought)


def _settings(adapter: Adapter) -> Any:
    from peft import PeftConfig

    try:
        config = PeftConfig.from_pretrained(str(adapter.weights.parent))
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"The adapter '{adapter.path}' has settings that peft does not know: {reason(error)}") from error
    if config.is_prompt_learning:
        raise RunError(
            f"'{adapter.path}' is an adapter of type {config.peft_type}, which does not change weights and cannot be "
            "merged. Start from a LoRA adapter or a whole model."
        )
    config.inference_mode, config.task_type = (
        True,
        None,
    )  # the base may be another kind of model
    return config


def _own_name(name: str) -> str:
    """The name of a weight without peft's prefix and the wrappers of whole modules."""
    return name.removeprefix(_PREFIX).replace(".modules_to_save.", ".")


def _refuse_foreign_head(model: Any, tensors: dict[str, torch.Tensor], info: dict[str, Any]) -> set[str]:
    """Weights of a head that this model does not have: a reward model has no LM head."""
    inside = dict(model.named_children())
    foreign = {name for name in tensors if name.partition(".")[0] in ("lm_head", "score", "classifier")}
    foreign = {name for name in foreign if name.partition(".")[0] not in inside}
    info["unexpected_keys"] = type(info["unexpected_keys"])({*info["unexpected_keys"], *foreign})
    return foreign


def _resize(model: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Give the base the vocabulary of an adapter that was saved with its embeddings."""
    embeddings = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embeddings)
    saved = tensors.get(f"{name}.weight")
    if saved is not None and len(saved) != len(embeddings.weight):
        model.resize_token_embeddings(len(saved), mean_resizing=False)


def _untie(model: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Untie the head, starting from the embeddings' values, if an adapter changes only one of the two."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not embeddings.weight:
        return
    names = {f"{name}." for name, module in model.named_modules() if module is head or module is embeddings}
    own = [name for name in tensors if "trainable_tokens" not in name]  # peft keeps these tied
    changed = any(name.startswith(prefix) for name in own for prefix in names)
    if changed:
        head.weight = nn.Parameter(embeddings.weight.detach().clone())
        model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
        model.all_tied_weights_keys = {}


def _put_on(model: Any, config: Any, adapter: Adapter, tensors: dict[str, torch.Tensor], name: str = "default") -> Any:
    """The model with the adapter on it, all of its weights and no others."""
    from peft import PeftModel, PeftModelForCausalLM, get_peft_model_state_dict, set_peft_model_state_dict

    remedy = f"Is '{adapter.base}' the model it was trained on? See base_model_name_or_path in {ADAPTER_CONFIG}."
    try:
        adapted = (PeftModel if name == "default" else PeftModelForCausalLM)(model, config, name)
        result = set_peft_model_state_dict(adapted, {f"{_PREFIX}{key}": value for key, value in tensors.items()}, name)
        wanted = {
            _own_name(key) for key in get_peft_model_state_dict(adapted, adapter_name=name, save_embedding_layers=False)
        }
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"The adapter '{adapter.path}' does not fit its base: {reason(error)}. {remedy}") from error
    if result.unexpected_keys:
        raise RunError(
            f"The adapter '{adapter.path}' has weights that do not exist in its base (first: "
            f"{_own_name(min(result.unexpected_keys))}). {remedy}"
        )
    missing = wanted - tensors.keys()
    if missing:
        raise RunError(
            f"The adapter '{adapter.path}' lacks weights (first: {min(missing)}): is its file complete? {remedy}"
        )
    return adapted


@torch.no_grad()
def _logits(model: Any) -> torch.Tensor:
    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = (torch.arange(1, 9) * 7919 % vocabulary)[None].to(next(model.parameters()).device)
    return model(input_ids=tokens).logits.float()


START = "start"
"""The name of a start adapter kept under the trained one."""


def stack_adapter(model: Any, adapter: Adapter) -> Any:
    """Put a plain LoRA adapter on its base, frozen, so that another one can go on top.

    Its scaling is folded into its weights, so that these and the configuration fully describe the model.

    Raises:
        ConfigError: it has or does more than LoRA matrices, or its base is an adapter too.
        RunError: it does not fit this model.
    """
    config = _settings(adapter)
    more = {"modules_to_save": None, "use_dora": False, "bias": "none", "lora_bias": False, "layer_replication": None,
            "trainable_token_indices": None}  # fmt: skip
    found = [name for name, plain in more.items() if getattr(config, name, plain) != plain]
    tensors = {_own_name(name): value for name, value in adapter.tensors().items()}
    if (
        str(config.peft_type).rpartition(".")[2] != "LORA"
        or found
        or any(".lora_A." not in n and ".lora_B." not in n for n in tensors)
    ):
        raise ConfigError(
            f"model.start_adapter is stack, which takes a plain LoRA adapter; '{adapter.path}' has more "
            f"({', '.join(found) or config.peft_type}). Set it to merge."
        )
    if find_adapter(adapter.base) is not None:
        raise ConfigError(f"The base of '{adapter.path}' is itself an adapter. Set model.start_adapter to merge.")
    config.lora_dropout, config.base_model_name_or_path = 0.0, adapter.base
    before = _checksum(model)
    adapted = _put_on(model, config, adapter, tensors, START)
    if _checksum(adapted) != before:
        raise ConfigError(
            f"model.start_adapter is stack, which keeps the base unchanged, but '{adapter.path}' changes its weights "
            f"(init_lora_weights: {config.init_lora_weights}). Set it to merge."
        )
    with torch.no_grad():
        for module in _layers(adapted).values():
            module.lora_B[START].weight.mul_(module.scaling[START])
            module.scaling[START] = 1.0
    return adapted


def _checksum(model: Any) -> float:
    """Of all weights except those of adapters."""
    own = [value.detach() for name, value in model.named_parameters() if ".lora_" not in name]
    return sum(float(value.abs().sum(dtype=torch.float64)) for value in own)


def is_stacked(model: Any) -> bool:
    """Whether a model has a start adapter on it."""
    return START in (getattr(model, "peft_config", None) or {})


def put_on_top(model: Any, config: Any) -> Any:
    """A new adapter on a model with a start adapter; only the new one is trained."""
    model.add_adapter("default", config)
    model.base_model.set_adapter([START, "default"])
    model.active_adapter = "default"
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".default." in name)
    return model


def without_start_adapter(model: Any) -> Any:
    """Only the base, around the same weights."""
    base = shared_copy(model).unload()
    vars(base).pop("peft_config", None)
    return base


def as_one_adapter(model: Any, weights: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Any]:
    """Start adapter and trained adapter as one, of the sum of their ranks: B₁A₁ + s·B₂A₂ = [B₁ s·B₂]·[A₁; A₂].

    Args:
        model: a policy with both.
        weights: its weights by name.

    Returns:
        The weights by their names in an adapter's file, and peft's configuration.
    """
    from peft import LoraConfig

    layers = _layers(model)
    ranks = {name: max(module.r[name] for module in layers.values() if name in module.r) for name in (START, "default")}
    tensors: dict[str, torch.Tensor] = {}
    for place, module in layers.items():
        halves: dict[str, list[torch.Tensor]] = {"lora_A": [], "lora_B": []}
        for name, rank in ranks.items():
            for side, parts in halves.items():
                dim = 0 if side == "lora_A" else 1
                width = module.in_features if side == "lora_A" else module.out_features
                shape = [rank, width] if dim == 0 else [width, rank]
                part = torch.zeros(shape)
                if name in module.r:
                    own = weights[f"{_PREFIX}{place}.{side}.{name}.weight"].detach().cpu().float()
                    part.narrow(dim, 0, own.shape[dim]).copy_(own * (module.scaling[name] if dim else 1.0))
                parts.append(part)
        for side, parts in halves.items():
            tensors[f"{_PREFIX}{place}.{side}.weight"] = torch.cat(parts, 0 if side == "lora_A" else 1).contiguous()
    rank = sum(ranks.values())
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=sorted(layers), task_type="CAUSAL_LM", inference_mode=True,  # pyright: ignore[reportArgumentType]
        fan_in_fan_out=any(module.fan_in_fan_out for module in layers.values()), lora_dropout=0.0,
    )  # fmt: skip
    config.base_model_name_or_path = model.peft_config[START].base_model_name_or_path
    return tensors, config


def _layers(model: Any) -> dict[str, Any]:
    """The layers with LoRA matrices, by their names in the base."""
    from peft.tuners.lora import LoraLayer

    return {n.removeprefix(_PREFIX): module for n, module in model.named_modules() if isinstance(module, LoraLayer)}
