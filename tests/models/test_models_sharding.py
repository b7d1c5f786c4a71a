"""The structure of a model, as it is sent to the processes that do not read it."""

import pickle
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, Qwen3MoeConfig

from popmargin.models.lora import add_adapter
from popmargin.models.sharding import _places, _without_values

SIZES: dict[str, Any] = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TIED = GPT2Config(n_embd=16, n_layer=1, n_head=2, **SIZES)
EXPERTS = Qwen3MoeConfig(
    hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
    num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8, **SIZES,
)  # fmt: skip


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("config", [TIED, EXPERTS], ids=["tied", "experts"])
def test_structure_travels_without_values(config: Any, adapted: bool) -> None:
    """Names, order, ties, dtypes and what is trained are the same in another process; values are nowhere."""
    from peft import LoraConfig

    model: Any = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    if adapted:
        targets = "all-linear" if config is TIED else ["q_proj", "v_proj"]
        model = add_adapter(model, LoraConfig(r=2, target_modules=targets, fan_in_fan_out=config is TIED))
    sent = pickle.dumps(_without_values(model))
    assert len(sent) < 100_000
    other = pickle.loads(sent)
    facts = [
        [(name, tuple(value.shape), value.dtype, value.requires_grad) for name, value in each.named_parameters()]
        for each in (model, other)
    ]
    assert facts[0] == facts[1]
    uses = [[[name for _, name in places] for places in _places(each)] for each in (model, other)]
    assert uses[0] == uses[1]
    assert {value.device.type for value in [*other.parameters(), *other.buffers()]} == {"meta"}
    head, embeddings = other.get_output_embeddings(), other.get_input_embeddings()
    assert (head.weight is embeddings.weight) == (config is TIED)
