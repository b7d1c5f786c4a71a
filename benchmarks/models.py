"""The models that are timed: SmolLM2-135M as it ships, or random weights of a given shape; and a tokenizer for them."""

from typing import Any

import torch

SHAPES: dict[str, dict[str, int]] = {
    "smollm2": {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                "num_attention_heads": 9, "num_key_value_heads": 3},
    "tiny": {"vocab_size": 8192, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "1b": {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
           "num_attention_heads": 32, "num_key_value_heads": 8},  # Llama 3.2's, for an accelerator
}  # fmt: skip


def make_model(name: str, dtype: torch.dtype) -> Any:
    """A Llama model with tied embeddings; its weights are the same whenever it is made.

    Args:
        name: a key of `SHAPES`. Speed does not depend on the values of weights, so they are random.
        dtype: of the weights.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    from popmargin.models.policies import device

    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[name], max_position_embeddings=8192, tie_word_embeddings=True, rope_theta=100_000.0,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    with device():
        return LlamaForCausalLM(config).to(dtype)


def with_adapter(model: Any, rank: int = 16) -> Any:
    """LoRA on all linear layers but the head, not at its start (where half of its gradients are zero)."""
    from popmargin.config import ModelConfig
    from popmargin.models.policies import make_policy

    adapted = make_policy(model, ModelConfig(lora_rank=rank))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return adapted


def perturb(model: Any) -> None:
    """Move a model a little, so that its loss against the reference is not log 2 everywhere."""
    random = torch.Generator(model.device).manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=random, device=model.device)
                parameter += 0.1 * parameter.std() * noise.to(parameter)


def make_tokenizer() -> Any:
    """TRL asks for one; nothing is tokenized with it."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"<unk>": 0, "<bos>": 1, "<eos>": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<bos>", eos_token="<eos>", pad_token="<eos>")
