"""How far numbers of a coarse dtype may be from exact ones, whatever the CPU."""

import torch


def rounding(dtype: torch.dtype, magnitude: float, roundings: float) -> float:
    """The largest difference to expect between a result that was rounded on its way and the exact one.

    A rounding is off by at most u = eps / 2 of what it rounds. Many on the way add up like independent errors, to
    u·√roundings of the magnitude; four of that are exceeded by none of some thousand numbers. Which kernels run (AMX,
    avx512_bf16, or bf16 emulated in fp32) changes where it is rounded and in which order it is summed, not this.

    Args:
        dtype: the coarsest on the way.
        magnitude: of the results, or of what cancels in them.
        roundings: one after the other: about ten in a decoder layer (inputs and outputs of its matmuls, norms, sums).
            In fp32, where the sums inside matmuls round as well, times their length.
    """
    return 4 * torch.finfo(dtype).eps / 2 * roundings**0.5 * magnitude
