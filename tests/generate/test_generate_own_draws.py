"""Random numbers of one's own: the probabilities are those of transformers, and no batch changes a completion."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from popmargin.data.ragged import Ragged
from popmargin.generate.drawn import Drawn
from popmargin.generate.own_draws import choose_tokens, token_probabilities, uniforms
from popmargin.generate.sample import Sampler, Sampling

PROMPTS = Ragged.of([[5, 6, 7], [8], [9, 10], [11, 12, 13, 14]])
KEYS = ["a", "b", "c", "d"]


@given(
    st.integers(0, 99),
    st.sampled_from([0.3, 0.7, 1.0, 2.5]),
    st.sampled_from([0, 1, 3, 50]),
    st.sampled_from([0.05, 0.5, 0.9, 1.0]),
)
@settings(max_examples=30)
def test_probabilities_are_those_of_transformers(seed: int, temperature: float, top_k: int, top_p: float) -> None:
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    ids: Any = torch.zeros(3, 1, dtype=torch.long)
    warped: Any = TemperatureLogitsWarper(temperature)(ids, logits)
    if top_k:
        warped = TopKLogitsWarper(top_k)(ids, warped)
    if top_p < 1:
        warped = TopPLogitsWarper(top_p)(ids, warped)
    found = token_probabilities(logits, Drawn(temperature, top_k, top_p=top_p))
    torch.testing.assert_close(found, warped.softmax(-1))


def test_draws_have_the_probabilities() -> None:
    """Every random number on a fine grid gives the shares themselves; impossible tokens are never drawn."""
    chances = torch.tensor([0.0, 0.25, 0.0, 0.6, 0.15, 0.0]).double()
    grid = (torch.arange(10_000).double() + 0.5) / 10_000
    tokens = choose_tokens(chances.expand(len(grid), -1), grid)
    assert tokens.bincount(minlength=6).tolist() == [0, 2500, 0, 6000, 1500, 0]
    ends = torch.tensor([0.0, 1 - 2**-53]).double()
    assert choose_tokens(chances.expand(2, -1), ends).tolist() == [1, 4]


def test_numbers_belong_to_prompt_number_and_seed() -> None:
    first = uniforms(0, "p", 0, 5)
    np.testing.assert_array_equal(uniforms(0, "p", 0, 9)[:5], first)
    others = [uniforms(1, "p", 0, 5), uniforms(0, "q", 0, 5), uniforms(0, "p", 1, 5), uniforms(0, "p\ud800", 0, 5)]
    assert len({row.tobytes() for row in (first, *others)}) == 5


def drawn(model: Any, tokenizer: Any, prompts: Ragged, keys: list[str], **options: Any) -> dict[tuple[str, int], Any]:
    """The completions by key and number, in whatever batches."""
    sampling = Sampling(**{"samples": 3, "max_new_tokens": 7, **options})
    sampler = Sampler(model, tokenizer, prompts, sampling, keys=keys)
    found: dict[tuple[str, int], Any] = {}
    for places in sampler.batches:
        for place, completion in zip(places, sampler.draw(places), strict=True):
            found[keys[place // sampling.samples], place % sampling.samples] = completion.tokens.tolist()
    return found


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_p": 0.8}, {"top_k": 5}, {"temperature": 0.0}])
def test_a_completion_is_the_same_in_any_batch(tiny_model: Any, tiny_tokenizer: Any, settings: dict[str, Any]) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    everything = drawn(tiny_model.train(), tiny_tokenizer, PROMPTS, KEYS, batch_size=64, **settings)
    assert torch.equal(torch.get_rng_state(), before) and tiny_model.training
    assert len(everything) == 12 and everything.keys() == {(key, number) for key in KEYS for number in range(3)}
    for size in (1, 5):
        assert drawn(tiny_model, tiny_tokenizer, PROMPTS, KEYS, batch_size=size, **settings) == everything
    fewer = drawn(tiny_model, tiny_tokenizer, Ragged.of([[9, 10], [8]]), ["c", "b"], samples=2, **settings)
    assert fewer == {key: everything[key] for key in fewer}
    if settings.get("temperature") != 0.0:
        assert drawn(tiny_model, tiny_tokenizer, PROMPTS, KEYS, seed=1, **settings) != everything
        assert everything["a", 0] != everything["a", 1]


def test_completions_are_samples_of_the_model(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """Over many completions, tokens in six groups have the model's own probabilities, within 5 σ."""
    count = 1500
    with torch.no_grad():
        logits = tiny_model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1]
    found = drawn(tiny_model, tiny_tokenizer, Ragged.of([[5, 6, 7]]), ["a"], samples=count, max_new_tokens=1,
                  batch_size=500)  # fmt: skip
    group = np.arange(len(logits)) % 6
    expected = np.bincount(group, weights=logits.double().softmax(-1).numpy())
    shares = np.bincount([group[tokens[0]] for tokens in found.values()], minlength=6) / count
    assert (np.abs(shares - expected) < 5 * np.sqrt(expected * (1 - expected) / count)).all()


def test_the_models_own_settings_draw_by_batch(tiny_model: Any, tiny_tokenizer: Any) -> None:
    tiny_model.generation_config.do_sample, tiny_model.generation_config.top_k = True, 4
    runs = [
        drawn(tiny_model, tiny_tokenizer, PROMPTS, KEYS, generation_config="model", batch_size=4, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]
