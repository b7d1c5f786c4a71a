"""Dropout of every kind is off in what is trained, unless it is asked for."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
)

from popmargin.config import RunConfig
from popmargin.engine.dropout import draws, own_dropout, switch_off_dropout
from popmargin.engine.logps import forward_plan, token_logps
from popmargin.engine.reference import model_fingerprint
from popmargin.engine.trial import refuse_noise, trial_sequences
from popmargin.errors import RunError
from popmargin.models.policies import load_model
from popmargin.training.run import train

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2,
         "pad_token_id": 0}  # fmt: skip
GLU = SMALL | {"intermediate_size": 16, "num_key_value_heads": 2}
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128, "bos_token_id": 1, "eos_token_id": 2}
OPT = SMALL | {"word_embed_proj_dim": 16, "ffn_dim": 16, "layerdrop": 0.5, "max_position_embeddings": 128}
FALCON = SMALL | {"hidden_dropout": 0.3, "parallel_attn": False, "new_decoder_architecture": False}
ROUTER = GLU | {"num_local_experts": 2, "router_jitter_noise": 0.3, "input_jitter_noise": 0.3}
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "modules, on by default": (GPT2Config, GPT2LMHeadModel, GPT),
    "a number beside the attention": (LlamaConfig, LlamaForCausalLM, GLU | {"attention_dropout": 0.3}),
    "whole layers": (OPTConfig, OPTForCausalLM, OPT),
    "read from the configuration": (FalconConfig, FalconForCausalLM, FALCON),
    "noise of the router": (PhimoeConfig, PhimoeForCausalLM, ROUTER),
}


def build(kind: str, vocabulary: int = 64) -> Any:
    config_class, model_class, settings = KINDS[kind]
    torch.manual_seed(0)
    return model_class(config_class(vocab_size=vocabulary, **settings))


def noise(model: Any) -> float:
    tokens = torch.arange(1, 33)[None]
    with torch.no_grad():
        model.eval()
        still = model(input_ids=tokens).logits
        model.train()
        return max(float((model(input_ids=tokens).logits - still).abs().max()) for _ in range(4))


@pytest.mark.parametrize("kind", list(KINDS))
def test_nothing_is_random_and_the_saved_configuration_is_the_start_models(tmp_path: Path, kind: str) -> None:
    model = build(kind)
    assert noise(model) > 1e-3
    said = {name: value for name, value in model.config.to_diff_dict().items() if "drop" in name or "jitter" in name}
    model.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), torch.float32)
    assert noise(loaded) == 0
    tokens = torch.arange(1, 33)[None]
    torch.testing.assert_close(loaded.eval()(input_ids=tokens).logits, model.eval()(input_ids=tokens).logits)
    assert noise(copy.deepcopy(loaded)) == 0
    with own_dropout(loaded):
        again = loaded.config.to_diff_dict()
    assert {name: again.get(name) for name in said} == said
    asked = load_model(str(tmp_path), torch.float32, dropout=True)
    assert noise(asked) > 1e-3
    assert model_fingerprint(asked) == model_fingerprint(loaded)  # in evaluation they are one model


@pytest.mark.parametrize(
    ("kind", "rank"),
    [("modules, on by default", 0), ("modules, on by default", 2), ("a number beside the attention", 0),
     ("whole layers", 0)],
)  # fmt: skip
def test_the_first_log_ratios_are_0(
    tmp_path: Path, configure: Callable[..., RunConfig], tiny_tokenizer: Any, kind: str, rank: int
) -> None:
    """With `lora_dropout` too: an adapter starts with 0. The saved configuration is the start model's."""
    start = build(kind, len(tiny_tokenizer))
    start.save_pretrained(tmp_path / "start")
    tiny_tokenizer.save_pretrained(tmp_path / "start")
    settings = {"path": str(tmp_path / "start"), "lora_rank": rank, "lora_dropout": 0.5 if rank else 0.0}
    run, policy = train(configure({"model": settings, "train": {"max_steps": 1}}), keep_model=True)
    line = json.loads((run.path / "metrics.jsonl").read_text().splitlines()[0])
    assert line["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert abs(line["chosen_logratio"]) < 1e-5 and abs(line["rejected_logratio"]) < 1e-5
    if rank:
        assert {module.p for name, module in policy.named_modules() if "lora_dropout.default" in name} == {0.5}
        return
    said = {n: v for n, v in start.config.to_dict().items() if draws(n)}
    assert {n: v for n, v in json.loads((run.model / "config.json").read_text()).items() if draws(n)} == said


def test_dropout_by_choice(tmp_path: Path, configure: Callable[..., RunConfig], tiny_tokenizer: Any) -> None:
    build("modules, on by default", len(tiny_tokenizer)).save_pretrained(tmp_path / "start")
    tiny_tokenizer.save_pretrained(tmp_path / "start")
    settings = {"path": str(tmp_path / "start"), "dropout": True}
    run, _ = train(configure({"model": settings, "train": {"max_steps": 1}}))
    line = json.loads((run.path / "metrics.jsonl").read_text().splitlines()[0])
    assert abs(line["loss"] - np.log(2)) > 1e-4


def test_what_cannot_be_switched_off_is_refused(tiny_model: Any) -> None:
    class Shaky(nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return hidden * (1 + 0.3 * torch.rand(())) if self.training else hidden

    switch_off_dropout(tiny_model)
    before, plan = torch.get_rng_state(), forward_plan(tiny_model)
    sequences = trial_sequences(tiny_model, plan.layout)

    def scores() -> torch.Tensor:
        return token_logps(tiny_model, sequences, plan=plan)

    refuse_noise(tiny_model, scores)
    assert not tiny_model.training
    tiny_model.model.norm = nn.Sequential(tiny_model.model.norm, Shaky())
    with pytest.raises(RunError, match=r"draws random numbers in training.*set model\.dropout to true"):
        refuse_noise(tiny_model, scores)
    assert torch.equal(torch.get_rng_state(), before)
