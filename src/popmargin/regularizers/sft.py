"""Supervised term on the chosen responses."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from popmargin.objectives.base import Logps
from popmargin.regularizers.base import regularizer


@dataclass(frozen=True, kw_only=True)
class SFTOptions:
    """Options of `sft`.

    Attributes:
        length_normalized: use the mean over the tokens instead of their sum.
    """

    length_normalized: bool = True


@regularizer("sft", options=SFTOptions, reference=False, supervised=True)
def sft(logps: Logps, options: SFTOptions) -> Float[Tensor, "B"]:
    """SFT: the negative log-likelihood of the chosen response, which keeps its probability from falling.

    R = −logp(y_w) / |y_w|   (without the division when `length_normalized` is off)

    Args:
        logps: summed log-probs (B,), nats.
        options: see `SFTOptions`.

    Returns:
        The term of every row (B,), nats (per token when normalized).
    """
    return -logps.chosen / logps.chosen_tokens if options.length_normalized else -logps.chosen
