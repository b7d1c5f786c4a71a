"""The engine's fast way on a real model: in bf16 rounding must not look like a wrong number."""

import logging
from typing import Any

import pytest
import torch

from popmargin.engine import attention
from popmargin.engine.logps import forward_plan
from popmargin.models.policies import load_model


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_real_model_is_packed_and_fused(dtype: torch.dtype) -> None:
    plan = forward_plan(load_model("demo", dtype))
    assert plan.layout == "packed" and plan.fused is not None


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wrong_attention_is_noticed(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Tokens that see the whole row before them, other responses included."""
    original = attention.packed_attention

    def wrong(query: Any, key: Any, value: Any, segments: Any, sight: Any, **more: Any) -> Any:
        return original(query, key, value, ((query.shape[2],),), sight, **more)

    monkeypatch.setattr(attention, "packed_attention", wrong)
    with caplog.at_level(logging.WARNING):
        assert forward_plan(load_model("demo", dtype)).layout == "padded"
    assert "scores would change by" in caplog.text
