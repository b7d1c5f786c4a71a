"""Options of the task `images`."""

from dataclasses import dataclass, field
from typing import Literal

from popmargin.bounds import Count, PartialShare, Positive, Size
from popmargin.config import section


@section("task.noise")
class NoiseOptions:
    """The noise of a pair in training; it is random in evaluation.

    Attributes:
        source: `shared`: one random noise for both images, as in Diffusion-DPO; `inversion`: the policy's own
            deterministic way from each image to its noise, as in SmPO; `independent`: other noise for each image, a
            control.
        steps: steps of the inversion; each is a forward pass of both images, two with `renoise`.
        renoise: refine each step of the inversion once.
        renoise_time: the time of the second prediction of a refined step: `earlier`, as in the authors' code, or
            `later`.
        grid: levels of the inversion: `exact` ends at the time of the loss; `published` at the last point of diffusers'
            inverse DDIM grid before it, as in the authors' code.
    """

    source: Literal["shared", "inversion", "independent"] = "shared"
    steps: Size = 5
    renoise: bool = True
    renoise_time: Literal["earlier", "later"] = "earlier"
    grid: Literal["exact", "published"] = "exact"


@dataclass(frozen=True, kw_only=True)
class ImagesOptions:
    """Options of `task: images`.

    Attributes:
        size: height and width of the images in pixels: the shorter side is resized to it, the middle is cut out; null
            is the size that the start model was trained on.
        noise: the noise of a pair in training.
        time: `pair` draws a time for every pair; `step` one for all pairs of an optimizer step, so that both sides of
            a PoP edge have the same.
        draws: 0 draws time and noise anew in every step; above 0, every pair has this many fixed draws, whose reference
            errors are computed once.
        evaluation_draws: fixed draws of time and noise over which scores of held-out pairs are averaged.
        space: `epsilon` measures errors in the noise, whatever the model predicts, so that β means the same for all
            models; `native` in what the model predicts.
        snr_limit: maximum weight of an error of a model that predicts images, in the noise: ᾱ/(1 − ᾱ) grows without
            bound where there is little noise.
        prompt_dropout: share of pairs that are trained with the empty prompt, for guidance.
    """

    size: Size | None = None
    noise: NoiseOptions = field(default_factory=NoiseOptions)
    time: Literal["pair", "step"] = "pair"
    draws: Count = 0
    evaluation_draws: Size = 8
    space: Literal["epsilon", "native"] = "epsilon"
    snr_limit: Positive = 20.0
    prompt_dropout: PartialShare = 0.0
