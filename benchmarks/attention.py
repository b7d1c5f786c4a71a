"""Attention over packed rows on a GPU: three ways, forward and backward, against a call for every segment.

    python benchmarks/attention.py

Rows of the chat and long profiles with the heads of two models, bf16. `flash` is what the engine takes; `flex` is
torch's FlexAttention, compiled, with the same row as one block mask.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from lengths import draw_pairs
from models import SHAPES
from popmargin.engine import attention, flash
from popmargin.engine.sequences import make_sequences


def row_segments(profile: str, batch: int) -> tuple[tuple[int, ...], ...]:
    """Segments of one packed row of that many preferences."""
    pairs = draw_pairs(profile, batch, 30_000)
    return make_sequences(pairs.prompt * 2, pairs.chosen + pairs.rejected, 0, "packed")["segments"]


def flex_mask(segments: tuple[tuple[int, ...], ...]) -> Any:
    """The row's block mask; its making counts as part of a forward pass, once for all layers."""
    counts = [count for group in segments for count in group]
    of_group = [number for number, group in enumerate(segments) for _ in group]
    tail = [place for group in segments for place in range(len(group))]
    repeats = torch.tensor(counts)
    group_T = torch.repeat_interleave(torch.tensor(of_group), repeats).cuda()
    tail_T = torch.repeat_interleave(torch.tensor(tail), repeats).cuda()

    def seen(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (group_T[q] == group_T[k]) & ((tail_T[k] == 0) | (tail_T[q] == tail_T[k]))

    length = sum(counts)
    return create_block_mask(seen, None, None, length, length, device="cuda")


def milliseconds(run: Callable[[], object], repeats: int = 20) -> float:
    """Median of event-timed calls after three to warm up."""
    times: list[float] = []
    for number in range(repeats + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        if number > 2:
            times.append(begin.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def compare_attention(model: str, profile: str, batch: int) -> dict[str, Any]:
    """Milliseconds of one layer forward and backward, and the largest relative difference to a call a segment."""
    shape, segments = SHAPES[model], row_segments(profile, batch)
    heads, key_heads = shape["num_attention_heads"], shape["num_key_value_heads"]
    size, length = shape["hidden_size"] // heads, sum(map(sum, segments))
    torch.manual_seed(0)
    tensors = [
        torch.randn(1, count, length, size, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for count in (heads, key_heads, key_heads)
    ]
    upstream = torch.randn(1, length, heads, size, device="cuda", dtype=torch.bfloat16)
    flex, mask = torch.compile(flex_attention, dynamic=False), flex_mask(segments)
    result: dict[str, Any] = {"model": model, "profile": profile, "batch": batch, "tokens": length}
    ways: dict[str, Callable[[], Any]] = {
        "segments": lambda: attention._segment_by_segment(*tensors, segments),  # pyright: ignore
        "flash": lambda: flash.flash_attention(*tensors, segments),
        "flex": lambda: flex(*tensors, block_mask=mask, enable_gqa=heads > key_heads).transpose(1, 2),
    }
    grads: dict[str, list[Tensor]] = {}
    for name, way in ways.items():
        try:
            output = way()
            grads[name] = [output, *torch.autograd.grad(output, tensors, upstream)]
            result[f"{name}_forward_ms"] = milliseconds(way)
            result[f"{name}_both_ms"] = milliseconds(lambda way=way: torch.autograd.grad(way(), tensors, upstream))
            result[f"{name}_difference"] = max(
                float((mine - base).float().norm() / base.float().norm())
                for mine, base in zip(grads[name], grads["segments"], strict=True)
            )
        except Exception as error:  # one way that fails must not hide the others
            result[f"{name}_error"] = f"{type(error).__name__}: {error}"[:300]
    result["flex_mask_ms"] = milliseconds(lambda: flex_mask(segments), 5)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    for model, profile, batch in (
        ("smollm2", "chat", 16),
        ("smollm2", "long", 4),
        ("1b", "chat", 16),
        ("1b", "long", 4),
    ):
        print(json.dumps(compare_attention(model, profile, batch)), flush=True)


if __name__ == "__main__":
    main()
