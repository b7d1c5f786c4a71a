"""What is said before training: tokens and lengths that a model does not take, and weights that LoRA does not reach."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import transformers

from popmargin.config import ModelConfig, RunConfig
from popmargin.data.ragged import Ragged
from popmargin.data.tokenize import TokenizedPreferences, TruncationReport
from popmargin.errors import ConfigError, DataError, PopmarginError, RunError
from popmargin.models.policies import make_policy
from popmargin.tasks.checks import check_padding, check_rows, check_sampling
from popmargin.training.build import Run, make_parts

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}
ROPE = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}


def rows(*lengths: int, token: int = 7) -> TokenizedPreferences:
    """Rows named a, b, c … of so many tokens, three of them the prompt's; the last token is given."""
    texts = [[5] * (length - 5) + [token] for length in lengths]
    return TokenizedPreferences(
        ids=[chr(97 + number) for number in range(len(lengths))],
        prompt=Ragged.of([[3, 4, 5]] * len(lengths)),
        chosen=Ragged.of([[6]] * len(lengths)),
        rejected=Ragged.of([[6, *text] for text in texts]),
        index=np.arange(len(lengths)),
        report=TruncationReport(rows_in=len(lengths), rows_kept=len(lengths)),
    )


def llama(**changes: Any) -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES | {"max_position_embeddings": 20} | changes))


def learned(kind: str) -> Any:
    """Models with a table of 20 positions, RoBERTa's beginning two places in."""
    if kind == "gpt2":
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=20)
        )
    if kind == "gptj":
        return transformers.GPTJForCausalLM(
            transformers.GPTJConfig(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=20, rotary_dim=4)
        )
    config = transformers.RobertaConfig(**SIZES, max_position_embeddings=22, is_decoder=True)
    return transformers.RobertaForCausalLM(config)


def test_tokens_that_the_model_does_not_know() -> None:
    check_rows(rows(5, 6, token=49), llama(), "m")
    message = r"2 of 2 rows \('a', 'b'\) have tokens outside the vocabulary of 'm', such as 50: it covers ids below 50"
    with pytest.raises(DataError, match=message):
        check_rows(rows(5, 6, token=50), llama(), "m")


@pytest.mark.parametrize("kind", ["gpt2", "gptj", "roberta"])
def test_more_tokens_than_a_table_of_positions_has(kind: str) -> None:
    model = learned(kind)
    check_rows(rows(5, 20), model, "m")
    with pytest.raises(
        DataError, match=r"1 of 3 rows \('c' with 23\) has more tokens than 'm' takes: it has 2. positions"
    ):
        check_rows(rows(5, 20, 23), model, "m")
    check_sampling(model, "m", 10, 10, 100)
    with pytest.raises(ConfigError, match=r"evaluation.max_new_tokens 13 makes sequences of up to 23 tokens, too many"):
        check_sampling(model, "m", 10, 13, 100)
    check_sampling(model, "m", 10, 13, 20)  # cut to 20


def test_more_tokens_than_rotary_positions_were_made_for(caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        check_rows(rows(5, 20), llama(), "m")
    assert not caplog.text
    with caplog.at_level(logging.WARNING):
        check_rows(rows(21, 5, 22, 23, 24), llama(), "m")
    assert (
        "4 of 5 rows ('a' with 21, 'c' with 22, 'd' with 23, …) have more than the 20 tokens that 'm' was trained for"
        in (caplog.text)
    )


def test_positions_that_change_with_the_batch() -> None:
    model = llama(rope_parameters=ROPE)
    check_rows(rows(20), model, "m")
    message = r"1 of 2 rows \('b' with 21\) has more than the 20 tokens that 'm' takes: its dynamic position scaling"
    with pytest.raises(DataError, match=message):
        check_rows(rows(20, 21), model, "m")
    with pytest.raises(ConfigError, match="up to 21 tokens, too many for 'm': its dynamic position scaling"):
        check_sampling(model, "m", 11, 10, 100)


def test_a_padding_token_outside_the_embedding(tiny_tokenizer: Any) -> None:
    check_padding(tiny_tokenizer, llama(), "m")
    larger = copy.deepcopy(tiny_tokenizer)
    larger.pad_token = larger.convert_ids_to_tokens(60)
    with pytest.raises(
        RunError,
        match=r"has the padding token '.+' with the id 60, but the model only covers ids below",
    ):
        check_padding(larger, llama(), "m")


def test_a_run_says_it_before_anything_is_trained(
    configure: Callable[..., RunConfig], tmp_path: Any, tiny_tokenizer: Any
) -> None:
    model = llama(vocab_size=len(tiny_tokenizer), max_position_embeddings=24, rope_parameters=ROPE)
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    config = configure({"model": {"path": str(tmp_path / "model")}})
    with pytest.raises(PopmarginError, match=r"of 32 rows \('p\d+' with \d+.* more than the 24 tokens that"):
        make_parts(Run.read(config), Run.read(config).workspace())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_experts_that_lora_does_not_reach_are_named(caplog: Any) -> None:
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1, "num_key_value_heads": 2}
    model = transformers.MixtralForCausalLM(transformers.MixtralConfig(**SIZES | experts))
    size = sum(parameter.numel() for parameter in model.parameters())
    missed = sum(p.numel() for path, p in model.named_parameters() if "experts" in path)
    with caplog.at_level(logging.WARNING):
        policy = make_policy(model, ModelConfig(lora_rank=2))
    share = f"{100 * missed / size:.0f}% of the model"
    assert f"packed experts (model.layers.0.mlp.experts.down_proj and 1 more, {share})" in caplog.text
    assert not any(p.requires_grad for path, p in policy.named_parameters() if "experts" in path)
    caplog.clear()
    make_policy(llama(), ModelConfig(lora_rank=2))
    make_policy(model, ModelConfig(lora_rank=0))
    assert not caplog.text


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_models_that_peft_cannot_adapt() -> None:
    mamba = transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)
    )
    with pytest.raises(ConfigError, match=r"peft has no LoRA adapter for MambaForCausalLM .*out_proj.*model.lora_rank"):
        make_policy(mamba, ModelConfig(lora_rank=2))
