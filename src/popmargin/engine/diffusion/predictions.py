"""What a model predicts of a noised image, and its error in the noise, whatever it predicts.

With x_t = a·x_0 + s·ε, the error in the noise is ‖ε − ε̂‖², where ε̂ follows from the prediction:

| prediction | target | ε̂ | ‖ε − ε̂‖² |
|---|---|---|---|
| epsilon | ε | ε̂ | ‖ε − ε̂‖² |
| v_prediction | v = a·ε − s·x_0 | a·v̂ + s·x_t | a²·‖v − v̂‖² |
| sample | x_0 | (x_t − a·x̂_0)/s | a²/s²·‖x_0 − x̂_0‖² |
| flow_prediction | u = ε − x_0 | x_t + a·û | a²·‖u − û‖² |

Axis suffix B: images.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from popmargin.engine.diffusion.schedules import Prediction, spread


@dataclass(frozen=True, eq=False)
class Levels:
    """Signal a and noise s of some images (B,)."""

    signal: Float64[Tensor, "B"]
    noise: Float64[Tensor, "B"]


def noised(images: Float[Tensor, "B ..."], noise: Float[Tensor, "B ..."], levels: Levels) -> Float[Tensor, "B ..."]:
    """x_t = a·x_0 + s·ε."""
    return spread(levels.signal, images) * images + spread(levels.noise, images) * noise


def target(
    prediction: Prediction, images: Float[Tensor, "B ..."], noise: Float[Tensor, "B ..."], levels: Levels
) -> Float[Tensor, "B ..."]:
    """What a perfect model predicts of x_t."""
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return images
    if prediction == "flow_prediction":
        return noise - images
    return spread(levels.signal, images) * noise - spread(levels.noise, images) * images


def predicted_noise(
    prediction: Prediction, predicted: Float[Tensor, "B ..."], noisy: Float[Tensor, "B ..."], levels: Levels
) -> Float[Tensor, "B ..."]:
    """ε̂ of a prediction at x_t."""
    signal, noise = spread(levels.signal, noisy), spread(levels.noise, noisy)
    if prediction == "epsilon":
        return predicted
    if prediction == "sample":
        return (noisy - signal * predicted) / noise
    if prediction == "flow_prediction":
        return noisy + signal * predicted
    return signal * predicted + noise * noisy


def noise_weight(prediction: Prediction, levels: Levels, snr_limit: float) -> Float64[Tensor, "B"]:
    """The factor (B,) from ‖target − prediction‖² to ‖ε − ε̂‖²; at most `snr_limit` for predicted images."""
    if prediction == "epsilon":
        return torch.ones_like(levels.signal)
    squared = levels.signal.square()
    return (squared / levels.noise.square()).clamp(max=snr_limit) if prediction == "sample" else squared


def denoising_errors(
    prediction: Prediction,
    predicted: Float[Tensor, "B ..."],
    images: Float[Tensor, "B ..."],
    noise: Float[Tensor, "B ..."],
    levels: Levels,
    *,
    space: Literal["epsilon", "native"] = "epsilon",
    snr_limit: float = 20.0,
) -> Float[Tensor, "B"]:
    """Errors of predictions of x_t (B,): the mean over all elements of ‖ε − ε̂‖².

    Args:
        prediction: what the model predicts.
        predicted: its predictions.
        images: x_0.
        noise: ε, so that x_t = a·x_0 + s·ε.
        levels: a and s of the images.
        space: `native` leaves ‖target − prediction‖² as it is.
        snr_limit: the largest weight of an error of a model that predicts images.

    Example:
        >>> half = torch.tensor([0.5]).double().sqrt()
        >>> image, noise, none = torch.zeros(1, 2).double(), torch.ones(1, 2).double(), torch.zeros(1, 2).double()
        >>> round(denoising_errors("v_prediction", none, image, noise, Levels(half, half)).item(), 6)  # a²·a²
        0.25
    """
    wanted = target(prediction, images, noise, levels)
    squares_B = (wanted - predicted).square().flatten(1).mean(1)
    if space == "native":
        return squares_B
    return squares_B * noise_weight(prediction, levels, snr_limit).to(squares_B.dtype)
