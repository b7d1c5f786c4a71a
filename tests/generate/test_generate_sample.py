"""Sampling: seeded, batched, ended where the model ends."""

from typing import Any

import numpy as np
import pytest
import torch

from popmargin.data.ragged import Ragged
from popmargin.engine.logps import response_sums, token_logps
from popmargin.engine.sequences import pad_sequences
from popmargin.generate.sample import Sampling, completion_logps, sample

PROMPTS = Ragged.of([[5, 6, 7], [8], [9, 10], [11, 12, 13, 14]])


def tokens(completions: list[Any]) -> list[list[int]]:
    return [completion.tokens.tolist() for completion in completions]


def test_greedy_completions_do_not_depend_on_the_batch(tiny_model: Any, tiny_tokenizer: Any) -> None:
    runs = [
        sample(tiny_model, tiny_tokenizer, PROMPTS, Sampling(temperature=0.0, max_new_tokens=6, batch_size=size))
        for size in (1, 4)
    ]
    assert tokens(runs[0]) == tokens(runs[1])
    ids = torch.from_numpy(PROMPTS[0].astype(np.int64))[None]
    for expected in runs[0][0].tokens.tolist():
        token = int(tiny_model(input_ids=ids).logits[0, -1].argmax())
        assert token == expected
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


def test_seeded_and_without_touching_the_callers_random_state(tiny_model: Any, tiny_tokenizer: Any) -> None:
    settings = {"samples": 2, "max_new_tokens": 5}
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = sample(tiny_model.train(), tiny_tokenizer, PROMPTS, Sampling(**settings))
    assert torch.equal(torch.get_rng_state(), before) and tiny_model.training
    assert tokens(first) == tokens(sample(tiny_model, tiny_tokenizer, PROMPTS, Sampling(**settings)))
    assert tokens(first) != tokens(sample(tiny_model, tiny_tokenizer, PROMPTS, Sampling(seed=1, **settings)))
    assert len(first) == 8 and tokens(first)[0] != tokens(first)[1]


def test_a_completion_ends_with_its_end_token(tiny_model: Any, tiny_tokenizer: Any) -> None:
    end = tiny_tokenizer.eos_token_id
    with torch.no_grad():  # the end token is always the most likely one
        tiny_model.lm_head.weight.zero_()
        tiny_model.lm_head.weight[end] = 0.0
    completions = sample(tiny_model, tiny_tokenizer, PROMPTS, Sampling(samples=30, max_new_tokens=40, batch_size=120))
    for completion in completions:
        assert completion.finished == (end in completion.tokens.tolist())
        assert end not in completion.tokens[:-1].tolist() and 1 <= len(completion.tokens) <= 40
        assert "<|im_end|>" not in completion.text
    assert {completion.finished for completion in completions} == {True, False}


@pytest.mark.parametrize("size", [1, 3])
def test_log_probs_of_completions(tiny_model: Any, size: int) -> None:
    prompts, completions = [PROMPTS[i] for i in range(4)], [np.array([20 + i] * (i + 1)) for i in range(4)]
    sums = completion_logps(tiny_model, prompts, completions, tokens_per_batch=size, precision="fp32", pad_id=0)
    sequences = pad_sequences(prompts, completions, 0)
    expected = response_sums(token_logps(tiny_model, sequences).detach(), sequences["lengths"])
    np.testing.assert_allclose(sums, expected.numpy(), atol=1e-4)
