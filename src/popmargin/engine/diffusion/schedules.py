"""How much of an image and of noise there is at every time: x_t = a_t·x_0 + s_t·ε.

Axis suffixes: T times, B images.
"""

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from popmargin.errors import ConfigError

Prediction = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]
"""What a model predicts: the noise ε, v = a·ε − s·x_0, the image x_0, or the velocity u = ε − x_0 of a flow."""
CLEAN = -1
"""The level of an image without noise, below time 0."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """Signal and noise at the times 0 … T − 1 that a model was trained on.

    Attributes:
        signal: a_t (T,): √ᾱ_t, or 1 − σ_t of a flow.
        noise: s_t (T,): √(1 − ᾱ_t), or σ_t of a flow.
        inputs: the numbers that the model takes as times (T,).
        prediction: what the model predicts.

    Example:
        >>> schedule = Schedule.of_alphas([0.9, 0.5])
        >>> [round(value, 4) for value in schedule.signal.tolist()]
        [0.9487, 0.7071]
    """

    signal: Float64[Tensor, " T"]
    noise: Float64[Tensor, " T"]
    inputs: Float64[Tensor, " T"]
    prediction: Prediction

    def __len__(self) -> int:
        return len(self.signal)

    @staticmethod
    def of_alphas(alphas_T: Any, prediction: Prediction = "epsilon") -> "Schedule":
        """A schedule that keeps variances: a² = ᾱ and s² = 1 − ᾱ.

        Args:
            alphas_T: ᾱ (T,), falling.
            prediction: what the model predicts.
        """
        alphas = torch.as_tensor(alphas_T, dtype=torch.float64).cpu()
        times = torch.arange(len(alphas), dtype=torch.float64)
        return Schedule(alphas.sqrt(), (1 - alphas).sqrt(), times, prediction)

    @staticmethod
    def of_flow(sigmas_T: Any, inputs_T: Any) -> "Schedule":
        """A straight flow from images to noise: a = 1 − σ and s = σ.

        Args:
            sigmas_T: σ (T,), rising.
            inputs_T: what the model takes as times (T,).
        """
        sigmas, inputs = (torch.as_tensor(values, dtype=torch.float64).cpu() for values in (sigmas_T, inputs_T))
        return Schedule(1 - sigmas, sigmas, inputs, "flow_prediction")

    @staticmethod
    def of_scheduler(scheduler: Any) -> "Schedule":
        """The schedule on which a diffusers scheduler's model was trained.

        Raises:
            ConfigError: a scheduler of another kind.
        """
        kind = type(scheduler).__name__
        if kind.startswith("FlowMatch"):
            order = torch.as_tensor(scheduler.sigmas)[: scheduler.config.num_train_timesteps].argsort()
            return Schedule.of_flow(scheduler.sigmas[order], scheduler.timesteps[order])
        alphas = getattr(scheduler, "alphas_cumprod", None)
        predicted = getattr(scheduler.config, "prediction_type", None)
        if alphas is None or predicted not in ("epsilon", "v_prediction", "sample"):
            what = "has no alphas_cumprod" if alphas is None else f"has the prediction type '{predicted}'"
            raise ConfigError(
                f"The pipeline's scheduler, {kind}, {what}. Known are schedulers of the DDPM family (epsilon, "
                "v_prediction or sample) and of flow matching: save the pipeline with the scheduler it was trained "
                "with, such as DDPMScheduler or FlowMatchEulerDiscreteScheduler."
            )
        return Schedule.of_alphas(alphas, cast("Prediction", predicted))

    def levels(self, times_B: Int[Tensor, "B"]) -> tuple[Float64[Tensor, "B"], Float64[Tensor, "B"]]:
        """Signal and noise at some times (B,), with 1 and 0 at the level `CLEAN`."""
        clean, place = times_B == CLEAN, times_B.clamp(min=0)
        signal, noise = (values.to(times_B.device)[place] for values in (self.signal, self.noise))
        return signal.masked_fill(clean, 1.0), noise.masked_fill(clean, 0.0)

    def model_times(self, times_B: Int[Tensor, "B"]) -> Float64[Tensor, "B"]:
        """What the model takes as these times (B,); a clean image is at time 0."""
        return self.inputs.to(times_B.device)[times_B.clamp(min=0)]


def spread(values_B: Float[Tensor, "B"], like: Float[Tensor, "B ..."]) -> Tensor:
    """One number per image (B,) as a factor of images, in their dtype."""
    return values_B.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
