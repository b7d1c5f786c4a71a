"""Preferences of realistic lengths: three profiles, and token ids that fill them.

The spread of lengths is that of 1,000 UltraFeedback pairs under SmolLM2's tokenizer, as shares of their means: prompts,
responses (geometric mean of a pair's two), and log(chosen / rejected). A profile sets the two means.
"""

from dataclasses import dataclass

import numpy as np

# Quantiles at 5%, 15%, … 95%.
_LEVELS = np.arange(0.05, 1, 0.1)
_PROMPT = np.array([0.05, 0.08, 0.13, 0.22, 0.39, 0.54, 0.76, 1.24, 2.12, 3.76])
_RESPONSE = np.array([0.06, 0.15, 0.25, 0.43, 0.60, 0.90, 1.22, 1.55, 1.96, 2.67])
_LOG_RATIO = np.array([-2.44, -1.07, -0.54, -0.20, 0.0, 0.17, 0.36, 0.66, 1.14, 2.31])

PROFILES = {
    "chat": (120, 120),
    "long_prompt": (480, 120),
    "long_completion": (60, 240),
    "long": (512, 1024),
}
"""Mean tokens of prompt and of one completion. chat: prompt ≈ completion; long_prompt: prompt = 4 × completion; long:
responses of 1,500 tokens, for an accelerator."""


@dataclass(frozen=True)
class Pairs:
    """Token ids of prompts and completions, one array each a preference."""

    prompt: list[np.ndarray]
    chosen: list[np.ndarray]
    rejected: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.prompt)


def draw_pairs(profile: str, count: int, vocabulary: int, *, seed: int = 0, spread: bool = True) -> Pairs:
    """Random preferences; lengths are rescaled so that their means are the profile's exactly, up to rounding.

    Args:
        profile: a key of `PROFILES`.
        count: preferences.
        vocabulary: token ids are drawn below this.
        seed: the same seed gives the same preferences.
        spread: lengths vary as the quantiles above say; else all are as long as the mean.
    """
    random = np.random.default_rng(seed)
    mean_prompt, mean_response = PROFILES[profile]

    def draw(quantiles: np.ndarray) -> np.ndarray:
        return np.interp(random.random(count), _LEVELS, quantiles) if spread else np.full(count, quantiles.mean())

    prompts = _to_mean(draw(_PROMPT), mean_prompt)
    middle, half = draw(_RESPONSE), draw(_LOG_RATIO) / 2 if spread else np.zeros(count)
    both = _to_mean(np.concatenate([middle * np.exp(half), middle * np.exp(-half)]), mean_response)

    def tokens(length: int) -> np.ndarray:
        return random.integers(3, vocabulary, size=length)

    return Pairs(
        [tokens(n) for n in prompts], [tokens(n) for n in both[:count]], [tokens(n) for n in both[count:]]
    )  # fmt: skip


def _to_mean(values: np.ndarray, mean: float) -> np.ndarray:
    return np.maximum(1, np.round(values * (mean / values.mean()))).astype(int)
