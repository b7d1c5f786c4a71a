"""Log-probs and gradients of every causal architecture: our plan against plain passes, one sequence at a time."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from architectures import NAMES, VOCABULARY, WINDOW, tiny

from popmargin.engine.logps import forward_plan, token_logps
from popmargin.engine.sequences import make_sequences
from popmargin.errors import RunError

_RANDOM = np.random.default_rng(1)
_FIRST, _SECOND, _THIRD = (_RANDOM.integers(3, VOCABULARY, size=size) for size in (13, 5, 7))
PROMPTS = [_FIRST, _SECOND, _FIRST, _SECOND, _THIRD]
COMPLETIONS = [_RANDOM.integers(3, VOCABULARY, size=size) for size in (17, 24, 31, 6, 33)]
assert max(map(len, COMPLETIONS)) > WINDOW + 12, "rows reach far beyond a window"
_PACKED = (
    "afmoe apertus arcee cohere cohere2 exaone4 gemma gemma2 gemma3_text gemma4_text glm4 gpt2 gpt_neox granite "
    "granitemoe hunyuan_v1_dense internlm3 llama ministral mistral mixtral olmo olmo2 olmo3 olmoe opt phi phi3 phimoe "
    "qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3 starcoder2"
)
PACKED = set(_PACKED.split())
"""Architectures that must stay on the fast way."""


def separate(model: Any, prompt: np.ndarray, completion: np.ndarray) -> torch.Tensor:
    """Log-probs of one completion, the textbook way."""
    ids = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))
    logits = model(input_ids=ids[None], use_cache=False).logits[0]
    return logits.log_softmax(-1)[:-1].gather(1, ids[1:, None]).squeeze(1)[len(prompt) - 1 :]


def gradient(model: Any, logps: torch.Tensor) -> torch.Tensor:
    """Of all weights together, by a weighted sum of the log-probs."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    grads = torch.autograd.grad((logps * torch.linspace(-1, 1, len(logps))).sum(), trained, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(trained, grads, strict=True)]
    )


def is_causal(model: Any) -> bool:
    ids = torch.from_numpy(np.concatenate([PROMPTS[0], COMPLETIONS[0]]))[None]
    other = ids.clone()
    other[0, -1] = ids[0, -1] % 80 + 3
    with torch.no_grad():
        first, second = (model(input_ids=row, use_cache=False).logits[0, :-1] for row in (ids, other))
    return torch.allclose(first, second, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the architectures' own code
@pytest.mark.parametrize("name", NAMES)
def test_our_plan_gives_the_models_own_log_probs_and_gradients(name: str, caplog: Any) -> None:
    transformers.utils.logging.set_verbosity_error()
    try:
        model = tiny(name)
        expected = torch.cat([separate(model, *one) for one in zip(PROMPTS, COMPLETIONS, strict=True)])
        plain = gradient(model, expected)
    except Exception as error:  # whatever an architecture raises
        assert name not in PACKED
        pytest.skip(f"{name} cannot be built tiny: {type(error).__name__}: {str(error).strip().splitlines()[0][:100]}")
    with caplog.at_level(logging.WARNING, logger="popmargin"):
        try:
            plan = forward_plan(model)
        except RunError as error:
            print(f"{name}: refused: {error}")
            assert not is_causal(model) or "cannot score a response" in str(error)
            return
    reasons = "; ".join(record.getMessage() for record in caplog.records)
    print(f"{name}: {plan.layout}, {'fused' if plan.fused is not None else 'plain'} head. {reasons}")
    assert plan.layout == "packed" or (name not in PACKED and reasons)
    found = token_logps(model, make_sequences(PROMPTS, COMPLETIONS, 0, plan.layout), plan=plan)
    # fp32 rounds by the size of what is summed; a key too many or too few changes log-probs by 0.01 and more.
    size = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * size)
    assert float((gradient(model, found) - plain).norm()) <= 1e-4 * float(plain.norm())
