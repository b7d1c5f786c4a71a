"""Compiled parts: the same values and gradients, and a model that saves as before."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from popmargin.data.tokenize import TokenizedPreferences
from popmargin.engine.batch import preference_sequences
from popmargin.engine.compiled import compile_layers
from popmargin.engine.logps import forward_plan, token_logps
from popmargin.errors import ConfigError


def scores(model: Any, tokenized: TokenizedPreferences) -> tuple[torch.Tensor, torch.Tensor]:
    plan = forward_plan(model)
    logps = token_logps(model, preference_sequences(tokenized, range(len(tokenized)), 0, plan.layout), plan=plan)
    model.zero_grad()
    logps.square().sum().backward()
    return logps.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_values_gradients_and_files_are_the_same(
    tmp_path: Path, tiny_model: Any, tokenized: TokenizedPreferences
) -> None:
    plain_values, plain_gradient = scores(tiny_model, tokenized)
    names = list(tiny_model.state_dict())
    assert compile_layers(tiny_model) == 7  # two norms and an MLP in each of two layers, and the last norm
    values, gradient = scores(tiny_model, tokenized)
    torch.testing.assert_close(values, plain_values, rtol=0, atol=1e-5)
    torch.testing.assert_close(gradient, plain_gradient, rtol=1e-4, atol=1e-3)
    assert list(tiny_model.state_dict()) == names
    tiny_model.save_pretrained(tmp_path)


def test_a_model_without_known_parts_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.compile: Linear has no modules"):
        compile_layers(nn.Linear(2, 2))
