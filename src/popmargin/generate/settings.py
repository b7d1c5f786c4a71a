"""Settings of `generate`: only what was asked for, unless that is the model's own settings."""

import contextlib
import copy
from collections.abc import Generator
from typing import Any

from transformers import GenerationConfig

from popmargin.generate.drawn import Drawn

# Fields that do not change the probability of a sampled token, or that we always set.
_HARMLESS = {
    "max_length", "max_new_tokens", "do_sample", "eos_token_id", "pad_token_id", "bos_token_id", "use_cache",
    "decoder_start_token_id", "num_return_sequences", "output_attentions", "output_hidden_states", "output_scores",
    "output_logits", "return_dict_in_generate", "transformers_version", "compile_config", "disable_compile",
    "length_penalty", "early_stopping", "num_beam_groups", "diversity_penalty", "renormalize_logits",
    "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_lookbehind",
    "target_lookbehind", "cache_config", "max_cache_len",
}  # fmt: skip
_ONE_IS_OFF = {
    "temperature", "top_p", "top_h", "typical_p", "repetition_penalty", "encoder_repetition_penalty", "guidance_scale",
    "num_beams",
}  # fmt: skip


def own_settings(model: Any) -> dict[str, Any]:
    """The fields of a model's own generation config that affect sampling: {"repetition_penalty": 1.1}, as JSON."""
    found: dict[str, Any] = {}
    for name, value in sorted(_inner(model).generation_config.to_diff_dict().items()):
        off = value in (None, False, 0, [], {}) or (name in _ONE_IS_OFF and value == 1)
        if not (off or name in _HARMLESS or name.startswith("_")):
            found[name] = value if type(value) in (bool, int, float, str, list) else str(value)
    return found


def make_generation_config(
    model: Any, drawn: Drawn, *, max_new_tokens: int, ends: list[int], pad_id: int
) -> GenerationConfig:
    """The complete configuration of one call of `generate`, with every field set.

    Args:
        model: its own config is used only if `drawn` says so.
        drawn: how to draw.
        max_new_tokens: maximum completion length, tokens.
        ends: ids of the tokens that end a completion.
        pad_id: id of the padding token.
    """
    lengths: dict[str, Any] = {"max_new_tokens": max_new_tokens, "eos_token_id": ends or None, "pad_token_id": pad_id}
    if drawn.generation_config == "model":
        config = copy.deepcopy(_inner(model).generation_config)
        plain = {"max_length": None, "num_return_sequences": 1, "return_dict_in_generate": False}
        outputs = dict.fromkeys(name for name in vars(config) if name.startswith("output_"))
        for name, value in {**plain, **outputs, **lengths}.items():
            setattr(config, name, value)
        return config
    if drawn.temperature == 0:
        return GenerationConfig(do_sample=False, **lengths)
    cuts: dict[str, Any] = {"top_k": drawn.top_k, "top_p": float(drawn.top_p)}
    return GenerationConfig(do_sample=True, temperature=drawn.temperature, **cuts, **lengths)


@contextlib.contextmanager
def only(model: Any, config: GenerationConfig) -> Generator[None]:
    """Set a model's own generation config aside: `generate` fills unset fields from it."""
    inner = _inner(model)
    own = inner.generation_config
    inner.generation_config = config
    try:
        yield
    finally:
        inner.generation_config = own


def _inner(model: Any) -> Any:
    """The transformers model inside an adapter: the one that generates."""
    return getattr(model, "get_base_model", lambda: model)()
