"""Label noise: how often the answer to "which of these two preferences is stronger?" is wrong."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

from popmargin.errors import ConfigError


def check_noise(flip: float, temperature: float) -> None:
    """Refuse meaningless noise settings.

    Raises:
        ConfigError: flip is outside [0, 1], or temperature is negative or not finite.
    """
    if not 0.0 <= flip <= 1.0:
        raise ConfigError(f"flip is {flip}; the probability of flipping a label must be in [0, 1].")
    if not (np.isfinite(temperature) and temperature >= 0.0):
        raise ConfigError(
            f"temperature is {temperature}; give a number >= 0 on the scale of the strengths (0 = exact)."
        )


def label_probability(
    gap: Float[np.ndarray, " n"], *, flip: float = 0.0, temperature: float = 0.0
) -> Float[np.ndarray, " n"]:
    """Probability that the label calls the first preference the stronger one.

    P = (1 - flip)·q + flip·(1 - q) with q = σ(gap / temperature), and q = [gap > 0] at temperature 0 (½ at gap 0).
    The Bradley-Terry noise and the flips are the two noise models of the PoP note; composing them is ours.

    Args:
        gap: strength of the first minus strength of the second preference (n,), on the scale of the strengths.
        flip: probability that a label is flipped.
        temperature: scale of the Bradley-Terry noise, on the scale of the strengths.

    Returns:
        Probabilities (n,).

    Example:
        >>> label_probability(np.array([2.0, -2.0, 0.0]), flip=0.1).tolist()
        [0.9, 0.1, 0.5]
    """
    check_noise(flip, temperature)
    exact = 0.5 * (1.0 + np.sign(gap))
    # A subnormal temperature would overflow the quotient; the limit is still the exact label.
    with np.errstate(over="ignore"):
        right = exact if temperature == 0.0 else np.where(gap == 0.0, 0.5, expit(gap / temperature))
    return (1.0 - flip) * right + flip * (1.0 - right)


def flip_labels(labels: Bool[np.ndarray, " n"], flip: float, rng: np.random.Generator) -> Bool[np.ndarray, " n"]:
    """Flip every label with probability `flip`, independently.

    Args:
        labels: True where the first of two preferences is the stronger one (n,).
        flip: probability of a flip.
        rng: source of randomness.

    Returns:
        Labels (n,) after the noise.

    Example:
        >>> flip_labels(np.array([True, False]), 1.0, np.random.default_rng(0)).tolist()
        [False, True]
    """
    check_noise(flip, 0.0)
    return labels ^ (rng.random(len(labels)) < flip)


def bradley_terry_labels(
    gap: Float[np.ndarray, " n"], temperature: float, rng: np.random.Generator
) -> Bool[np.ndarray, " n"]:
    """Labels drawn from Bradley-Terry on the strength gap: small gaps are confused more often.

    P(first is called stronger) = σ(gap / temperature); temperature 0 gives the exact label. A gap of 0 is a fair coin.

    Args:
        gap: strength of the first minus strength of the second preference (n,).
        temperature: on the scale of the strengths, >= 0.
        rng: source of randomness.

    Returns:
        True where the first is called the stronger one (n,).

    Example:
        >>> bradley_terry_labels(np.array([1.0, -1.0]), 0.0, np.random.default_rng(0)).tolist()
        [True, False]
    """
    return rng.random(len(gap)) < label_probability(gap, temperature=temperature)
