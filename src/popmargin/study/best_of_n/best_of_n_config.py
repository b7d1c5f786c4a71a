"""The configuration of a best-of-n study."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from popmargin.bounds import Count, NotNegative, Positive, PositiveShare, RightShare, Seed, Size
from popmargin.config import apply_overrides, from_dict, merge, read_yaml, section
from popmargin.errors import ConfigError, did_you_mean
from popmargin.study.budget.arms import ARMS
from popmargin.study.budget.budget_config import FeaturesConfig, PricesConfig

GOLD = "gold"
"""The arm that chooses by the gold reward itself: what can be had at most."""
DEFAULT_ARMS = (
    "base", "more", "grade", "votes", "rated", "ratings", "ratings_margin", "chain_control", "chain_pop", "chain_rank",
    "chain_scale", "coin", "untrained", "length",
)  # fmt: skip


@section("samples")
class SamplesConfig:
    """Samples of a policy, and the gold reward that they are worth.

    Attributes:
        measured: file or glob of several samples to each prompt (`popmargin generate --n 32`), which reward models
            choose among.
        training: the same for other prompts: preferences are made from these.
        score: name of a score in both that is the gold reward.
        reward: the gold reward, if no score of the files is: `popmargin.demo.sentiment:sentiment_reward`.
        agreement: how often two annotators agree about preferences of the training samples; it sets the noise of their
            labels. 0.73 is that of InstructGPT's labellers (Ouyang et al. 2022: 72.6%).
    """

    measured: str = ""
    training: str = ""
    score: str | None = None
    reward: str | None = None
    agreement: RightShare = 0.73


@section()
class BestOfNConfig:
    """Which labels make a reward model choose well among n samples.

    Example:
        >>> samples = SamplesConfig(measured="a.parquet", training="b.parquet", score="gold")
        >>> config = BestOfNConfig(samples=samples, sizes=[100], draws=8)
        >>> config.output, config.budget
        ('runs/best-of-n', 3.0)

    Attributes:
        title: heading of the report.
        output: folder of the study; the same command goes on there.
        samples: of the policy.
        features: what reward models see.
        prices: of labels.
        sizes: numbers of preferences that are there already, each with one annotator's label.
        budget: further time of the annotator, in multiples of what those took; every arm spends it otherwise.
        draws: repetitions; preferences, labels, comparisons, noise and validation prompts are drawn anew in each.
        arms: only these; empty for the usual ones.
        ns: numbers of samples that are chosen among; empty for 1, 2, 4 … up to the fewest of a prompt.
        hidden: units of a hidden layer of the head; 0 is a linear head.
        ridges: of the head; the one that is best on validation prompts is used.
        comparison_noise: temperature of comparisons, log-odds.
        rating_steps: of the rating scale, over the middle nine tenths of the responses; 0 for no steps.
        rank_weight: λ of `pop_rank`.
        validation: share of the training prompts that choose the ridge and calibrate soft labels, drawn anew.
        rehearse: measure on some of the training prompts, and leave the measured ones alone while settings are tried.
        difference: to be found, in points of accuracy, for the power of the study.
        gain_difference: to be found in the gold reward at the largest n, in points of what choosing by the gold reward
            itself gains there.
        workers: processes.
        seed: of all draws.
    """

    title: str = "Which labels choose well among n samples?"
    output: str = "runs/best-of-n"
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    prices: PricesConfig = field(default_factory=PricesConfig)
    sizes: list[Size] = field(default_factory=lambda: [100, 400])
    budget: Positive = 3.0
    draws: Size = 20
    arms: list[str] = field(default_factory=list[str])
    ns: list[Size] = field(default_factory=list[int])
    hidden: Count = 0
    ridges: list[Positive] = field(default_factory=lambda: [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
    comparison_noise: NotNegative = 1.4142
    rating_steps: Count = 5
    rank_weight: NotNegative = 1.0
    validation: PositiveShare = 0.2
    rehearse: bool = False
    difference: Positive = 2.0
    gain_difference: Positive = 5.0
    workers: Size = 2
    seed: Seed = 0

    def __post_init__(self) -> None:
        if not self.sizes or not self.ridges:
            raise ConfigError("A best-of-n study needs a size and a ridge or more.")
        known = [*ARMS, GOLD]
        unknown = [name for name in self.arms if name not in known]
        if unknown:
            raise ConfigError(f"The arm '{unknown[0]}' is unknown. {did_you_mean(unknown[0], known)}")

    @property
    def arm_names(self) -> list[str]:
        """The arms in their order: always with the first labels alone, and with the gold reward last."""
        wanted = {*(self.arms or DEFAULT_ARMS), "base"}
        return [*(name for name in ARMS if name in wanted), GOLD]


NOT_OF_A_DRAW = ("title", "output", "draws", "workers", "difference", "gain_difference")
"""Settings that do not change a draw."""


def arm_label(name: str) -> str:
    """An arm's name in the report."""
    return "the gold reward itself" if name == GOLD else ARMS[name].label


def load_best_of_n(
    path: str | Path | None, overrides: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> BestOfNConfig:
    """A best-of-n study from YAML (or the defaults), with changes and `--samples.score NAME` flags put over it.

    Raises:
        ConfigError: unknown keys or values that do not fit, no samples or no gold reward; the message names the file.
    """
    values = apply_overrides(merge({} if path is None else read_yaml(path), changes or {}), overrides)
    try:
        config = from_dict(BestOfNConfig, values)
        samples = config.samples
        missing = [name for name in ("measured", "training") if not getattr(samples, name)]
        if missing:
            raise ConfigError(
                f"samples.{missing[0]} is missing: a file of several samples to each prompt, as `popmargin generate "
                "--n 32` writes it."
            )
        if (samples.score is None) == (samples.reward is None):
            raise ConfigError(
                "Say what samples are worth: samples.score, a score in the files, or samples.reward, such as "
                "popmargin.demo.sentiment:sentiment_reward; one of them."
            )
    except ConfigError as error:
        raise ConfigError(str(error) if path is None else f"{path}: {error}") from error
    return config
