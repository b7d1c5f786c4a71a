"""Loading start models and finished policies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from popmargin import models
from popmargin.config import ModelConfig
from popmargin.errors import ConfigError, RunError
from popmargin.models import base_dtype, load_model, load_policy, load_tokenizer, make_policy


def test_only_frozen_weights_are_kept_in_bf16() -> None:
    assert base_dtype(ModelConfig(precision="bf16", lora_rank=4)) == torch.bfloat16
    assert base_dtype(ModelConfig(precision="bf16")) == torch.float32
    assert base_dtype(ModelConfig(lora_rank=4)) == torch.float32


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    for load in (load_tokenizer, lambda path: load_model(path, torch.float32)):
        with pytest.raises(RunError, match=r"Cannot load a .* from '.*nowhere'") as info:
            load(str(tmp_path / "nowhere"))
        assert "\n" not in str(info.value)


def test_the_start_model_is_not_trained(tiny_model: Any) -> None:
    policy = make_policy(tiny_model.requires_grad_(False), ModelConfig())
    assert all(p.requires_grad for p in policy.parameters())
    assert not any(p.requires_grad for p in tiny_model.parameters())
    adapted = make_policy(tiny_model, ModelConfig(lora_rank=2, lora_alpha=3.0))
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name and "lm_head" not in name for name in trained)
    assert adapted.peft_config["default"].lora_alpha == 3.0
    assert make_policy(tiny_model, ModelConfig(lora_rank=2)).peft_config["default"].lora_alpha == 4


@pytest.mark.parametrize("layers", [0, 3])
def test_layers_that_the_model_does_not_have(tiny_model: Any, layers: int) -> None:
    with pytest.raises(ConfigError, match=rf"lora_last_layers is {layers}; the model has 2 layers"):
        make_policy(tiny_model, ModelConfig(lora_rank=2, lora_last_layers=layers))


@pytest.mark.parametrize("rank", [0, 2])
def test_policies_come_back_as_they_were(
    tmp_path: Path, tiny_model: Any, make_model: Callable[..., Any], rank: int
) -> None:
    policy = make_policy(tiny_model, ModelConfig(lora_rank=rank)).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
        expected = policy(input_ids=torch.tensor([[5, 6, 7]])).logits
        policy.save_pretrained(tmp_path)
        loaded = load_policy(tmp_path, make_model()).eval()
        torch.testing.assert_close(loaded(input_ids=torch.tensor([[5, 6, 7]])).logits, expected)


def test_an_unfinished_run(tmp_path: Path, tiny_model: Any) -> None:
    with pytest.raises(RunError, match="holds no trained model: has the run finished"):
        load_policy(tmp_path, tiny_model)


@pytest.mark.parametrize(("fast", "slower"), [(torch.float32, True), (torch.bfloat16, False)])
def test_bf16_is_measured(fast: torch.dtype, slower: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert models._matmul_seconds(torch.bfloat16) > 0  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(models, "_matmul_seconds", lambda dtype: 1.0 if dtype == fast else 2.0)
    monkeypatch.setattr(models, "device", lambda: torch.device("cpu"))
    assert models.bf16_is_slower.__wrapped__() is slower
    monkeypatch.setattr(models, "device", lambda: torch.device("meta"))
    assert not models.bf16_is_slower.__wrapped__()
