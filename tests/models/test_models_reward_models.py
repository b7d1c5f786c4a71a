"""Starting reward models from what people have."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification, OPTConfig, OPTForCausalLM

from popmargin.config import ModelConfig
from popmargin.errors import RunError
from popmargin.models.reward_models import RewardFormat, load_reward_model, make_reward_model


def test_a_start_model_whose_configuration_names_no_initializer_range(tmp_path: Path) -> None:
    config = OPTConfig(vocab_size=64, hidden_size=256, word_embed_proj_dim=256, ffn_dim=16, num_hidden_layers=1,
                       num_attention_heads=2, max_position_embeddings=16)  # fmt: skip
    OPTForCausalLM(config).save_pretrained(tmp_path)
    torch.manual_seed(0)
    model = make_reward_model(load_reward_model(str(tmp_path), torch.float32, 1), ModelConfig())
    assert model.score.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_a_classifier_with_two_outputs(tmp_path: Path) -> None:
    config = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=2, num_labels=2)  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(
        RunError,
        match=r"it has 2 outputs \(num_labels\), but a reward model has 1\. Use another "
        r"model",
    ):
        load_reward_model(str(tmp_path), torch.float32, 1)
    LlamaConfig.from_pretrained(tmp_path, num_labels=1, intermediate_size=8).save_pretrained(tmp_path)
    with pytest.raises(RunError, match=r"it has model\.layers\.0\.mlp\.\w+\.weight of shape \(16, 16\)"):
        load_reward_model(str(tmp_path), torch.float32, 1)


def test_a_folder_without_the_hidden_layer_that_it_should_have(tmp_path: Path) -> None:
    config = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=2, num_labels=1)  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    RewardFormat(max_length=8, head_hidden=4).save(tmp_path)
    with pytest.raises(RunError, match="should have a head with a hidden layer of 4, but its weights are others"):
        load_reward_model(str(tmp_path), torch.float32, 1)
