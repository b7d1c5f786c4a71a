"""The fused head against log-softmax of full logits: value and gradient."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.engine import head
from popmargin.engine.head import HeadSettings, fused_token_scores
from rounding import rounding

HEADS = st.builds(HeadSettings, softcap=st.sampled_from([None, 2.0, 30.0]), scale=st.sampled_from([1.0, 0.25, 3.0]))


def full(hidden: Any, weight: Any, labels: Any, bias: Any, after: HeadSettings) -> torch.Tensor:
    logits = after.scale * (hidden @ weight.T + (0 if bias is None else bias))
    if after.softcap is not None:
        logits = after.softcap * torch.tanh(logits / after.softcap)
    return logits.log_softmax(-1)


@settings(max_examples=150)
@given(
    count=st.integers(1, 9),
    chunk=st.integers(1, 40),
    after=HEADS,
    trained=st.sets(st.sampled_from(["hidden", "weight", "bias"])),
    with_bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_value_and_gradient_are_those_of_full_logits(
    count: int, chunk: int, after: HeadSettings, trained: set[str], with_bias: bool, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(*shape, generator=random, dtype=torch.float64, requires_grad=name in trained)
        for name, shape in {"hidden": (count, 3), "weight": (7, 3), "bias": (7,)}.items()
    }
    labels = torch.randint(0, 7, (count,), generator=random)
    upstream = torch.randn(count, generator=random, dtype=torch.float64)
    bias = tensors["bias"] if with_bias else None
    wanted = [t for name, t in tensors.items() if name in trained and (with_bias or name != "bias")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "_CHUNK_ELEMENTS", chunk)
        found = fused_token_scores(
            tensors["hidden"], tensors["weight"], labels, bias_V=bias, settings=after, statistics=True
        )
        log_softmax = full(tensors["hidden"], tensors["weight"], labels, bias, after)
        expected = log_softmax.gather(1, labels[:, None]).squeeze(1)
        torch.testing.assert_close(found.logps, expected, rtol=0, atol=1e-12)
        assert found.entropy is not None and found.top1 is not None
        entropy = -(log_softmax.exp() * log_softmax).sum(-1)
        torch.testing.assert_close(found.entropy, entropy.detach(), rtol=0, atol=1e-12)
        assert found.top1.tolist() == (log_softmax.argmax(-1) == labels).tolist()
        if not wanted:
            assert not found.logps.requires_grad
            return
        mine = torch.autograd.grad((found.logps * upstream).sum(), wanted)
    plain = torch.autograd.grad((expected * upstream).sum(), wanted)
    for ours, theirs in zip(mine, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_gradcheck() -> None:
    torch.manual_seed(0)
    hidden, weight = (torch.randn(n, 4, dtype=torch.float64, requires_grad=True) for n in (5, 6))
    labels = torch.tensor([0, 5, 2, 2, 1])

    def logps(*tensors: torch.Tensor) -> torch.Tensor:
        return fused_token_scores(*tensors, labels, settings=HeadSettings(softcap=3.0, scale=0.7)).logps

    assert torch.autograd.gradcheck(logps, (hidden, weight))
    assert torch.autograd.gradcheck(logps, (hidden, weight.detach()))


def test_bf16_keeps_fp32_sums() -> None:
    """2,000 labels of a 500-token vocabulary: a sum in bf16 would be wrong in the second digit."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(2000, 16).bfloat16(), torch.randn(500, 16).bfloat16()
    labels = torch.randint(0, 500, (2000,))
    found = fused_token_scores(hidden, weight, labels).logps
    assert found.dtype == torch.float32
    expected = full(hidden.float(), weight.float(), labels, None, HeadSettings()).gather(1, labels[:, None]).squeeze(1)
    largest = float((hidden.float() @ weight.float().T).abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=rounding(torch.bfloat16, largest, 1))
    assert abs(float(found.sum() / expected.sum()) - 1) < 1e-3


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True)
    logps = fused_token_scores(hidden, weight, torch.tensor([1, 0])).logps
    logps.sum().backward()
    torch.testing.assert_close(logps, torch.tensor([-2e4, -2e4]))
    assert torch.isfinite(hidden.grad).all() and torch.isfinite(weight.grad).all()  # pyright: ignore


def test_no_logits_are_kept() -> None:
    """Nothing as wide as the vocabulary but the weight itself is saved for the backward pass."""
    hidden, weight = torch.randn(40, 8, requires_grad=True), torch.randn(1000, 8, requires_grad=True)
    kept: list[torch.Size] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        fused_token_scores(hidden, weight, torch.zeros(40, dtype=torch.long)).logps.sum()
    assert torch.Size([40, 8]) in kept and torch.Size([40, 1000]) not in kept
