"""What only runs on a GPU: the flash kernel over packed rows and the fused passes of the head."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from popmargin.config import RunConfig
from popmargin.engine import attention, contrast, flash, head
from popmargin.engine.contrast import Contrast
from popmargin.engine.flash import flash_attention, flash_fits
from popmargin.engine.head import HeadSettings, fused_token_scores, head_logits
from popmargin.engine.logps import ForwardPlan, forward_plan, token_logps
from popmargin.engine.sequences import make_sequences, sequences_to
from popmargin.engine.sight import Sight
from popmargin.files import read_jsonl
from popmargin.training.run import train
from rounding import rounding

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

ROWS: dict[str, tuple[tuple[int, ...], ...]] = {
    "pairs": ((40, 30, 25), (7, 1, 60), (100, 90, 120)),
    "one segment": ((17,),),
    "no prefix": ((0, 9, 4), (5, 3, 3)),
    "no tails": ((12,), (30,)),
    "single tokens": ((1, 1, 1), (1,), (0, 1)),
    "edges of one prompt": ((20, 5, 6, 7, 8),),
}


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
@pytest.mark.parametrize("row", ROWS)
def test_flash_is_attention_segment_by_segment(row: str, heads: tuple[int, int], window: int | None) -> None:
    segments, length = ROWS[row], sum(map(sum, ROWS[row]))
    torch.manual_seed(0)
    full = [torch.randn(1, count, length, 64, device="cuda").requires_grad_() for count in (*heads, heads[1])]
    halves = [tensor.detach().bfloat16().requires_grad_() for tensor in full]
    upstream = torch.randn(1, length, heads[0], 64, device="cuda")
    assert flash_fits(halves[0]) and not flash_fits(full[0])
    expected = attention.packed_attention(full[0], full[1], full[2], segments, Sight(window=window))[0]
    found = flash_attention(halves[0], halves[1], halves[2], segments, window=window)
    assert found.shape == expected.shape
    pairs = [(found, expected)]
    pairs += list(
        zip(
            torch.autograd.grad(found, halves, upstream.bfloat16()),
            torch.autograd.grad(expected, full, upstream),
            strict=True,
        )
    )
    for half, whole in pairs:
        assert float((half.float() - whole).norm()) <= 0.02 * float(whole.norm()) + 1e-3


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("settings", [HeadSettings(), HeadSettings(softcap=5.0, scale=0.5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_of_the_head(
    dtype: torch.dtype, settings: HeadSettings, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "_CHUNK_ELEMENTS_ELSEWHERE", 5 * 5000)  # several chunks, several blocks in a row
    monkeypatch.setattr(contrast, "_BLOCK_ELEMENTS_ELSEWHERE", 2 * 5000)
    torch.manual_seed(0)
    hidden, weight = torch.randn(23, 64, device="cuda"), torch.randn(5000, 64, device="cuda") / 4
    labels, upstream = torch.randint(5000, (23,), device="cuda"), torch.randn(23, device="cuda")
    results: list[list[torch.Tensor]] = []
    for double in (True, False):
        # The same rounding on both sides, so that what differs is the passes over the logits.
        kind = torch.float64 if double else dtype
        h = hidden.to(dtype).to(kind).requires_grad_()
        w = weight.to(dtype).to(kind).requires_grad_(not frozen)
        other = Contrast(0.5, head_logits(h.detach().flip(0), w.detach(), None, settings))
        scores = fused_token_scores(h, w, labels, settings=settings, statistics=True, contrast=other)
        assert scores.entropy is not None and scores.top1 is not None and scores.decoupled is not None
        (scores.logps * upstream).sum().backward()
        results.append([scores.logps.detach(), scores.entropy, scores.top1.double(), scores.decoupled, h.grad])  # pyright: ignore
        if not frozen:
            results[-1].append(w.grad)  # pyright: ignore
    for expected, found in zip(*results, strict=True):
        allowed = 1e-5 if dtype == torch.float32 else 0.02
        assert float((found.double() - expected.double()).norm()) <= allowed * float(expected.double().norm()) + 1e-4


def test_packed_rows_in_bf16_are_padded_ones(make_model: Callable[..., Any]) -> None:
    model = make_model().cuda()
    flash._works.cache_clear()  # pyright: ignore[reportPrivateUsage]
    with torch.no_grad():  # as the trial of a plan has it
        assert flash_fits(torch.zeros(1, 4, 8, 8, device="cuda", dtype=torch.bfloat16))
    random = np.random.default_rng(0)
    prompts = [random.integers(3, 290, size=size) for size in (30, 3, 12)]
    completions = [random.integers(3, 290, size=size) for size in (5, 40, 9, 1, 30, 17)]
    plan = forward_plan(model)
    assert plan.layout == "packed" and plan.fused is not None
    results: list[tuple[torch.Tensor, torch.Tensor]] = []
    for chosen in (plan, ForwardPlan("padded", plan.head, None)):
        model.zero_grad()
        sequences = sequences_to(make_sequences(prompts * 2, completions, 0, chosen.layout), torch.device("cuda"))
        logps = token_logps(model, sequences, precision="bf16", plan=chosen)
        logps.sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        results.append((logps.detach(), gradient))
    (packed, packed_gradient), (padded, padded_gradient) = results
    assert float((packed - padded).abs().max()) < rounding(torch.bfloat16, float(padded.abs().max()), 20)
    assert float((packed_gradient - padded_gradient).norm() / padded_gradient.norm()) < 0.05


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_training_on_the_gpu(configure: Callable[..., RunConfig], lora_rank: int) -> None:
    config = configure({"model": {"precision": "bf16", "lora_rank": lora_rank}, "train": {"token_statistics": True}})
    directory, policy = train(config, keep_model=True)
    assert directory.facts()["steps"] == 3 and next(policy.parameters()).is_cuda
    lines = [line for line in read_jsonl(directory.path / "metrics.jsonl") if "loss" in line]
    assert len(lines) == 3 and all(np.isfinite([line["loss"], line["entropy"], line["top1"]]).all() for line in lines)
