"""Features for studies: of preferences as they are in files, by the model's own tokenizer, once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from popmargin.data.load import load_preferences
from popmargin.models.reward_models import load_reward_model
from popmargin.tasks import reward
from popmargin.tasks.response_features import response_features


def test_features_of_a_file(tmp_path: Path, model_path: str, data_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    preferences = load_preferences(data_path).select(np.arange(5))
    found = response_features(preferences, model=model_path, pool="mean", layers=(0, 1), cache=str(tmp_path))
    values = found.array()
    assert found.tokenized.ids == list(preferences.ids) and found.tokenized.report.rows_kept == 5
    assert values.dtype == np.float32 and len(values) == len({*found.chosen, *found.rejected})
    model = load_reward_model(model_path, torch.float32, 0).eval()
    prompt, answer = found.tokenized.prompt[2], found.tokenized.rejected[2]
    row = torch.from_numpy(np.concatenate([prompt, answer]))[None]
    with torch.no_grad():
        states = model(input_ids=row, output_hidden_states=True).hidden_states
    expected = torch.cat([states[layer][0, len(prompt) :].mean(0) for layer in (0, 1)])
    torch.testing.assert_close(torch.from_numpy(values[found.rejected[2]]), expected, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(reward.RewardTask, "_find_plan", None)  # without a plan, nothing is computed
    again = response_features(preferences, model=model_path, pool="mean", layers=(0, 1), cache=str(tmp_path))
    np.testing.assert_array_equal(again.array(), values)
