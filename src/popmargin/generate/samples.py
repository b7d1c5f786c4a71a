"""Completions of some prompts by one model, not yet scored."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from popmargin.generate.drawn import Drawn


@dataclass(frozen=True, eq=False)
class Samples:
    """The result of a task's `sample`: completions (n,), all samples of a prompt together.

    Attributes:
        texts: the completions as text (n,).
        lengths: tokens (n,).
        finished: whether a completion ended by itself (n,).
        log_ratio: summed log π(y) − log π_ref(y) of each completion (n,), nats.
        drawn: how they were sampled.
    """

    texts: list[str]
    lengths: Int64[np.ndarray, " n"]
    finished: Bool[np.ndarray, " n"]
    log_ratio: Float64[np.ndarray, " n"]
    drawn: Drawn
