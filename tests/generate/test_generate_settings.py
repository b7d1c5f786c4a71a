"""What is sampled at temperature 1 is the policy, whatever the model's own generation config says."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import GenerationConfig, RwkvConfig, RwkvForCausalLM

from popmargin.data.ragged import Ragged
from popmargin.generate.drawn import Drawn
from popmargin.generate.sample import Sampling, sample
from popmargin.generate.settings import own_settings

PROMPT = [60, 61, 62, 63]
# Fields of a generation config that change what is written, in the order of transformers' own list.
CHANGES: dict[str, Any] = {
    "min_length": 30,
    "min_new_tokens": 5,
    "max_time": 1e-9,
    "stop_strings": ["a", "e"],
    "num_beams": 2,
    "cache_implementation": "static",
    "temperature": 0.2,
    "top_k": 2,
    "top_p": 0.3,
    "min_p": 0.3,
    "typical_p": 0.3,
    "epsilon_cutoff": 0.02,
    "eta_cutoff": 0.02,
    "repetition_penalty": 3.0,
    "encoder_repetition_penalty": 3.0,
    "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1,
    "bad_words_ids": [[token] for token in range(70, 200)],
    "forced_bos_token_id": 9,
    "forced_eos_token_id": 2,
    "exponential_decay_length_penalty": (1, 9.0),
    "suppress_tokens": list(range(70, 200)),
    "begin_suppress_tokens": list(range(70, 200)),
    "sequence_bias": {(token,): 20.0 for token in range(70, 90)},
    "token_healing": True,
    "guidance_scale": 4.0,
    "penalty_alpha": 0.6,
    "prompt_lookup_num_tokens": 3,
    "dola_layers": "low",
}
NO_CHANGE: dict[str, Any] = {
    "use_cache": False,
    "num_return_sequences": 2,
    "return_dict_in_generate": True,
    "output_scores": True,
    "output_logits": True,
    "max_length": 3,
    "max_new_tokens": 1,
}


@pytest.fixture
def peaked(tiny_model: Any) -> Any:
    """The tiny model with clearly unequal probabilities."""
    with torch.no_grad():
        tiny_model.lm_head.weight.mul_(3.0)
    return tiny_model


def ids(model: Any, tokenizer: Any, **options: Any) -> list[list[int]]:
    settings = Sampling(**{"samples": 12, "max_new_tokens": 6, **options})
    return [one.tokens.tolist() for one in sample(model, tokenizer, Ragged.of([PROMPT, [8, 9]]), settings)]


def shipped(**settings: Any) -> GenerationConfig:
    """A model's generation config as its file gives it: fields are set, nothing is checked."""
    config = GenerationConfig(do_sample=True)
    for name, value in settings.items():
        setattr(config, name, value)
    return config


def test_sampled_frequencies_are_the_models_probabilities(peaked: Any, tiny_tokenizer: Any) -> None:
    """Two tokens deep, with a penalty on what the prompt holds and every common cut in the model's own config."""
    peaked.generation_config = shipped(repetition_penalty=1.5, min_p=0.2, top_p=0.8, typical_p=0.5)
    count = 10_000
    settings = Sampling(samples=count, max_new_tokens=2, batch_size=count)
    drawn = sample(peaked, tiny_tokenizer, Ragged.of([PROMPT]), settings)
    with torch.no_grad():
        first = peaked(torch.tensor([PROMPT])).logits[0, -1].double().softmax(-1)
        rows = torch.tensor([[*PROMPT, token] for token in range(len(first))])
        second = first[:, None] * peaked(rows).logits[:, -1].double().softmax(-1)
    end = tiny_tokenizer.eos_token_id
    pairs = np.zeros(second.shape)
    for one in drawn:
        pairs[one.tokens[0], one.tokens[1] if len(one.tokens) > 1 else 0] += 1
    expected = second.numpy().copy()
    expected[end] = 0.0
    expected[end, 0] = float(first[end])  # a completion that has ended has no second token
    often = expected * count > 5
    observed = [*pairs[often], pairs[~often].sum()]
    assert often.sum() > 100
    assert chisquare(observed, np.array([*expected[often], expected[~often].sum()]) * count).pvalue > 1e-3


@pytest.mark.parametrize("name", [*CHANGES, *NO_CHANGE])
def test_no_setting_of_the_model_changes_a_completion(name: str, peaked: Any, tiny_tokenizer: Any) -> None:
    peaked.generation_config = shipped()
    expected = ids(peaked, tiny_tokenizer)
    own = shipped(**{name: {**CHANGES, **NO_CHANGE}[name]})
    peaked.generation_config = own
    assert ids(peaked, tiny_tokenizer) == expected
    assert peaked.generation_config is own, "the model keeps its own config"
    assert (name in own_settings(peaked)) == (name in CHANGES)


def test_every_field_of_a_generation_config_is_known_to_this_test() -> None:
    """A field that transformers adds must be looked at: does it change what is sampled?"""
    looked_at = {*CHANGES, *NO_CHANGE, "do_sample", "output_attentions", "output_hidden_states"}
    never_alone = {  # only with another field, or an object that a model folder cannot hold
        "early_stopping", "length_penalty", "num_beam_groups", "diversity_penalty", "constraints", "force_words_ids",
        "renormalize_logits", "remove_invalid_values", "low_memory", "watermarking_config", "is_assistant", "use_mtp",
        "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold", "top_h",
        "max_matching_ngram_size", "assistant_early_exit", "assistant_lookbehind", "target_lookbehind",
        "assistant_ensemble_weight", "speculation_type", "compile_config", "disable_compile", "cache_config",
        "max_cache_len", "continuous_batching_config", "prefill_chunk_size", "transformers_version",
        "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id",
    }  # fmt: skip
    fields = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    assert fields - looked_at - never_alone == set()


def test_what_is_left_out_is_said(peaked: Any, tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    peaked.generation_config = shipped(repetition_penalty=1.07, top_k=20, use_cache=True)
    ids(peaked, tiny_tokenizer)
    assert "sets repetition_penalty 1.07, top_k 20. It is ignored" in caplog.text
    assert "sampled at temperature 1 from all tokens" in caplog.text
    caplog.clear()
    ids(peaked, tiny_tokenizer)
    peaked.generation_config = shipped()
    ids(peaked, tiny_tokenizer, samples=2)
    assert not caplog.text, "said once, and only where something is left out"


def test_the_models_own_settings_when_asked_for(peaked: Any, tiny_tokenizer: Any) -> None:
    peaked.generation_config = shipped(bad_words_ids=[[token] for token in range(100)], num_return_sequences=3)
    drawn = ids(peaked, tiny_tokenizer, generation_config="model")
    assert min(token for row in drawn for token in row if token != tiny_tokenizer.eos_token_id) >= 100
    peaked.generation_config = shipped(stop_strings=["a", "e", "i"])
    completions = sample(
        peaked, tiny_tokenizer, Ragged.of([PROMPT]), Sampling(samples=200, max_new_tokens=9, generation_config="model")
    )
    assert {one.finished for one in completions} == {True, False}
    for one in completions:
        assert len(one.tokens) == 9 or one.finished
        assert tiny_tokenizer.pad_token_id not in one.tokens[-1:]


def test_an_adapters_base_has_the_config(peaked: Any, tiny_tokenizer: Any) -> None:
    from peft import LoraConfig, get_peft_model

    policy = get_peft_model(peaked, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    policy.get_base_model().generation_config = shipped()
    expected = ids(policy, tiny_tokenizer)
    policy.get_base_model().generation_config = shipped(repetition_penalty=3.0, suppress_tokens=list(range(70, 200)))
    assert ids(policy, tiny_tokenizer) == expected
    assert set(own_settings(policy)) == {"repetition_penalty", "suppress_tokens"}


def test_only_samples_of_the_policy_itself_have_a_kl() -> None:
    assert Drawn().exact and Drawn().log_ratio == "kl_per_token"
    others = [Drawn(temperature=0.7), Drawn(top_k=5), Drawn(temperature=0.0), Drawn(generation_config="model")]
    assert [other.log_ratio for other in others] == [
        "log_ratio_per_token_t0.7_k0",
        "log_ratio_per_token_t1_k5",
        "log_ratio_per_token_t0_k0",
        "log_ratio_per_token_own",
    ]


class SeesPadding(torch.nn.Module):
    """A token embedding that also adds what stands in the first column, as recurrent models without a mask do."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found = self.inner(ids)
        return found + 3.0 * self.inner(ids[:, :1]) if ids.shape[1] > 1 else found


def test_a_model_that_sees_padding_gets_none(
    peaked: Any, tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = Ragged.of([[20, 21], [60, 61, 62, 63, 64, 65], [60, 61, 62], [30, 31]])
    options = {"temperature": 0.0, "max_new_tokens": 4, "samples": 2}
    for sees in (False, True):
        if sees:
            peaked.set_input_embeddings(SeesPadding(peaked.get_input_embeddings()))
        alone, together = (
            [one.tokens.tolist() for one in sample(peaked, tiny_tokenizer, prompts, Sampling(batch_size=n, **options))]
            for n in (1, 8)
        )
        assert alone == together
        assert ("sampling runs prompts of equal length together" in caplog.text) == sees


def test_a_model_that_batches_wrongly_is_sampled_one_at_a_time(
    tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The recurrent state of transformers' RWKV gives other tokens in a batch, from the second on."""
    torch.manual_seed(0)
    config = RwkvConfig(
        vocab_size=300, hidden_size=32, attention_hidden_size=32, num_hidden_layers=2, context_length=64
    )
    model = RwkvForCausalLM(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.normal_(std=0.3) if weights.dim() == 2 else None
    prompts, found = Ragged.of([[20, 21], [60, 61, 62, 63], [60, 61, 62], [30, 31]]), []
    for size in (1, 8):
        settings = Sampling(batch_size=size, temperature=0.0, max_new_tokens=6)
        found.append([one.tokens.tolist() for one in sample(model, tiny_tokenizer, prompts, settings)])
    assert found[0] == found[1]
    assert "RwkvForCausalLM gives different probabilities in a batch: sampling runs one prompt at a time" in caplog.text
