"""A tiny random model of every causal architecture that transformers has, with windows and chunks of a few tokens."""

from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

NAMES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
VOCABULARY = 90
WINDOW = 17  # tokens: a plan's trial has 16
_MOST_PARAMETERS = 3_000_000

_BY_VALUE: dict[Any, str] = {
    VOCABULARY: "vocab_size vocab_size_per_layer_input shape_vocab_size pronunciation_vocab_size",
    32: "hidden_size n_embd d_model embedding_size word_embed_proj_dim dim_model attention_hidden_size lru_width "
    "emb_dim",
    48: "n_inner ffn_dim decoder_ffn_dim encoder_ffn_dim intermediate_size mlp_intermediate_size ffn_hidden_size "
    "dense_intermediate_size intermediate_size_mlp d_inner dff dim_ff",
    16: "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size expert_ffn_hidden_size "
    "moe_shared_expert_intermediate_size q_lora_rank kv_lora_rank qk_head_dim index_head_dim",
    4: "num_hidden_layers n_layer n_layers num_layers num_blocks num_attention_heads n_head n_heads num_heads "
    "decoder_attention_heads encoder_attention_heads num_experts num_local_experts n_routed_experts moe_num_experts "
    "mamba_d_conv mamba_dt_rank time_step_rank conv_kernel linear_num_value_heads linear_num_heads index_n_heads "
    "no_rope_layer_interval",
    2: "decoder_layers num_key_value_heads num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts "
    "zero_expert_num mamba_expand n_mamba_heads linear_num_key_heads max_window_layers",
    1: "encoder_layers n_group topk_group num_expert_groups num_expert_group n_shared_experts moe_num_shared_experts "
    "num_shared_experts first_k_dense_replace mamba_n_groups mamba_ngroups n_groups",
    8: "head_dim global_head_dim attention_head_dim kv_channels o_lora_rank qk_rope_head_dim qk_nope_head_dim "
    "v_head_dim mamba_d_state mamba_n_heads mamba_d_head mamba_chunk_size mamba_headdim mamba_num_heads "
    "mamba_head_dim state_size ssm_state_size linear_key_head_dim linear_value_head_dim linear_head_dim rotary_dim "
    "dim_head block_size chunk_size hidden_size_per_layer_input qk_dim v_dim shape_embed_dim pronunciation_embed_dim",
    64: "mamba_d_ssm",
    256: "max_position_embeddings n_positions n_ctx max_seq_len seq_length max_sequence_length seq_len context_length "
    "max_target_positions",
    WINDOW: "sliding_window attention_chunk_size attention_window_size window_size local_attention sliding_window_size "
    "index_topk keep_window_size",
    20: "floor_scale",
    0.3: "initializer_range init_std",  # so that attention matters
}
_SIZES = {name: value for value, names in _BY_VALUE.items() for name in names.split()}
_SIZES |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_ALTERNATING = ["sliding_attention", "full_attention"] * 2
_OWN: dict[str, dict[str, Any]] = {
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "intermediate_size": [48] * 4,
        "activation_sparsity_pattern": [0.0] * 4,
        "layer_types": _ALTERNATING,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "mamba2": {"num_heads": 8},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [16, 16]},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
}
_AS_MANY_KEYS = "axk1 axk2 bailing_hybrid deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa longcat_flash"
_OWN |= {name: {"num_key_value_heads": 4} for name in (*_AS_MANY_KEYS.split(), "minicpm3", "youtu")}


def tiny(name: str, **changes: Any) -> Any:
    """A random model in fp32, in evaluation mode.

    Raises:
        Exception: transformers cannot build it from these sizes, or it stays too large.
    """
    kind = CONFIG_MAPPING[name]
    default = kind()
    values = _shrunken(default)
    text = getattr(default, "text_config", None)
    if text is not None:
        values["text_config"] = _shrunken(text)
    if hasattr(default, "is_decoder") and not default.is_encoder_decoder:
        values["is_decoder"] = True
    config = kind(**values | _OWN.get(name, {}) | changes)
    with torch.device("meta"):
        size = sum(
            parameter.numel() for parameter in transformers.AutoModelForCausalLM.from_config(config).parameters()
        )
    if size > _MOST_PARAMETERS:
        raise ValueError(f"{size:,} parameters")
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).float().eval()


def _shrunken(config: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        if isinstance(value, bool):
            if name.startswith("use_") and "window" in name:
                values[name] = True
        elif name in _SIZES and (isinstance(value, int | float) or (value is None and name != "q_lora_rank")):
            values[name] = _SIZES[name]
    return values
