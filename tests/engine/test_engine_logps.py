"""Token log-probs against plain full logits, one unpadded sequence at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from popmargin.data.tokenize import TokenizedPreferences
from popmargin.engine.batch import preference_sequences
from popmargin.engine.logps import SelectedLogSoftmax, response_sums, token_logps
from popmargin.engine.sequences import pad_sequences
from rounding import rounding

TOLERANCE = {"rtol": 0.0, "atol": 1e-5}


def plain_logps(model: nn.Module, prompt: np.ndarray, completion: np.ndarray) -> torch.Tensor:
    """The textbook way: all logits of one sequence, log-softmax, shift by one."""
    ids = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))
    logits = model(input_ids=ids[None]).logits[0].double()
    logps = logits.log_softmax(-1)[:-1].gather(1, ids[1:, None]).squeeze(1)
    return logps[len(prompt) - 1 :]


def pairs(tokenized: TokenizedPreferences) -> tuple[list[np.ndarray], list[np.ndarray]]:
    count = len(tokenized)
    prompts = [tokenized.prompt[i] for i in range(count)] * 2
    return prompts, [side[i] for side in (tokenized.chosen, tokenized.rejected) for i in range(count)]


def grads(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_value_and_gradient_are_those_of_single_sequences(tiny_model: Any, tokenized: TokenizedPreferences) -> None:
    prompts, completions = pairs(tokenized)
    weights = torch.linspace(-1, 1, len(prompts))
    expected = [plain_logps(tiny_model, p, c) for p, c in zip(prompts, completions, strict=True)]
    sum((w * e.sum() for w, e in zip(weights, expected, strict=True)), torch.zeros(())).backward()
    plain = grads(tiny_model)
    tiny_model.zero_grad()
    sequences = preference_sequences(tokenized, range(len(tokenized)), pad_id=0, layout="padded")
    logps = token_logps(tiny_model, sequences)
    torch.testing.assert_close(logps, torch.cat(expected).float(), **TOLERANCE)
    (weights * response_sums(logps, sequences["lengths"])).sum().backward()
    for name, gradient in grads(tiny_model).items():
        torch.testing.assert_close(gradient, plain[name], **TOLERANCE, msg=name)
    assert len(plain) == len(list(tiny_model.parameters()))


@pytest.mark.parametrize("size", [1, 5, 24])
def test_batch_size_order_and_padding_do_not_matter(
    tiny_model: Any, tokenized: TokenizedPreferences, size: int
) -> None:
    prompts, completions = pairs(tokenized)
    order = np.random.default_rng(size).permutation(len(prompts))
    found: dict[int, torch.Tensor] = {}
    for start in range(0, len(order), size):
        part = order[start : start + size]
        sequences = pad_sequences([prompts[i] for i in part], [completions[i] for i in part], pad_id=size)
        values = token_logps(tiny_model, sequences).detach()
        found |= dict(zip(part.tolist(), values.split(sequences["lengths"].tolist()), strict=True))
    for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        expected = plain_logps(tiny_model, prompt, completion).float().detach()
        torch.testing.assert_close(found[number], expected, **TOLERANCE)


def test_a_model_that_does_not_tell_its_head(tiny_model: Any, tokenized: TokenizedPreferences) -> None:
    class Headless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_model

        def forward(self, **inputs: Any) -> Any:
            return self.inner(**inputs)

        def get_output_embeddings(self) -> None:
            return None

    sequences = preference_sequences(tokenized, [0, 3], pad_id=0, layout="padded")
    torch.testing.assert_close(token_logps(Headless(), sequences), token_logps(tiny_model, sequences), **TOLERANCE)


def test_the_head_is_left_as_it_was(tiny_model: Any, tokenized: TokenizedPreferences) -> None:
    sequences = preference_sequences(tokenized, [0], pad_id=0, layout="padded")
    token_logps(tiny_model, sequences)
    assert tiny_model(input_ids=sequences["input_ids"]).logits.shape[:2] == sequences["input_ids"].shape
    with pytest.raises(IndexError):
        token_logps(tiny_model, {**sequences, "input_ids": sequences["input_ids"] + 10_000})
    assert not tiny_model.get_output_embeddings()._forward_pre_hooks


def test_bf16_is_near_fp32(tiny_model: Any, tokenized: TokenizedPreferences) -> None:
    sequences = preference_sequences(tokenized, [1, 2], pad_id=0, layout="padded")
    rough = token_logps(tiny_model, sequences, precision="bf16")
    assert rough.dtype == torch.float32
    exact = token_logps(tiny_model, sequences).detach()
    allowed = rounding(torch.bfloat16, float(exact.abs().max()), 20)  # two layers
    torch.testing.assert_close(rough.detach(), exact, rtol=0, atol=allowed)
    assert not torch.equal(rough, exact)


def test_lora_models_score_as_their_base_at_the_start(
    make_model: Callable[..., Any], tokenized: TokenizedPreferences
) -> None:
    from popmargin.config import ModelConfig
    from popmargin.models.policies import make_policy

    model = make_model()
    adapted = make_policy(model, ModelConfig(lora_rank=2))
    sequences = preference_sequences(tokenized, [0, 1], pad_id=0, layout="padded")
    torch.testing.assert_close(token_logps(adapted.eval(), sequences), token_logps(model, sequences), **TOLERANCE)


@pytest.mark.parametrize("count", [1, 3, 600])
def test_selected_log_softmax_gradient_in_fp64(count: int) -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 4, (count,))
    logits = torch.randn(count, 4, dtype=torch.float64, requires_grad=True)
    if count < 10:
        assert torch.autograd.gradcheck(SelectedLogSoftmax.apply, (logits, labels))
    weights = torch.randn(count, dtype=torch.float64)
    (mine,) = torch.autograd.grad((SelectedLogSoftmax.apply(logits, labels) * weights).sum(), logits)
    plain = logits.log_softmax(-1).gather(1, labels[:, None]).squeeze(1)
    (expected,) = torch.autograd.grad((plain * weights).sum(), logits)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)


def test_selected_log_softmax_at_extremes() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], requires_grad=True)
    values = SelectedLogSoftmax.apply(logits, torch.tensor([1, 2]))
    values.sum().backward()
    torch.testing.assert_close(values, torch.tensor([-2e4, -np.log(3.0)], dtype=torch.float32), rtol=0, atol=1e-3)
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_response_sums_with_weights() -> None:
    values, lengths = torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([1, 3])
    assert response_sums(values, lengths).tolist() == [1.0, 14.0]
    assert response_sums(values, lengths, torch.tensor([1.0, 0.0, 1.0, 0.5])).tolist() == [1.0, 8.0]
