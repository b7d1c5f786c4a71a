"""Responses to some prompts by one model, not yet scored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from popmargin.generate.drawn import Drawn, DrawnImages


@dataclass(frozen=True, eq=False, kw_only=True)
class Samples:
    """The result of a task's `sample`: responses (n,), all samples of a prompt together.

    Attributes:
        texts: the completions as text (n,); the names of images.
        drawn: how they were sampled.
        lengths: tokens (n,); None for images.
        finished: whether a completion ended by itself (n,); None for images.
        log_ratio: summed log π(y) − log π_ref(y) of each completion (n,), nats; None where it is unknown.
        images: PNG files (n,); None for texts.
        notes: what else is to be known, such as prompts that were cut, in sentences.
    """

    texts: list[str]
    drawn: Drawn | DrawnImages
    lengths: Int64[np.ndarray, " n"] | None = None
    finished: Bool[np.ndarray, " n"] | None = None
    log_ratio: Float64[np.ndarray, " n"] | None = None
    images: Sequence[bytes] | None = None
    notes: tuple[str, ...] = ()
