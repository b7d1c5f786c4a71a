"""The configuration of a budget study."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from popmargin.bounds import Count, NotNegative, Positive, PositiveShare, RightShare, Seed, Size
from popmargin.config import apply_overrides, from_dict, merge, read_yaml, section
from popmargin.data.pairs import Pairing
from popmargin.errors import ConfigError, did_you_mean
from popmargin.study.budget.arms import ARMS


@section("data")
class StrengthsConfig:
    """The preferences, and what is known of their strengths.

    Attributes:
        path: file, glob, folder or hub id with votes, soft labels, ratings or strengths.
        format: of the data; auto detects it.
        split: which, if there are several.
        pairs: preferences to make of several rated responses.
        columns: our names and the file's, where they are not recognised.
        bad_rows: `error` stops at unusable rows, `drop` leaves them out and counts them.
        apart: a column whose rows stay in one part of the split, such as a topic; by default prompts (or clusters) do.
        votes: number of votes a preference, if the file has only their share.
        agreement: how often two annotators agree, for ratings and strengths (with votes it is measured). 0.73 is
            that of InstructGPT's labellers (Ouyang et al. 2022: 72.6%).
    """

    path: str = ""
    format: str = "auto"
    split: str | None = None
    pairs: Pairing = "all"
    columns: dict[str, str] = field(default_factory=dict[str, str])
    bad_rows: Literal["error", "drop"] = "error"
    apart: str | None = None
    votes: Positive | None = None
    agreement: RightShare = 0.73


@section("features")
class FeaturesConfig:
    """What the reward models see: features of every response, from a model that is not trained.

    Attributes:
        model: folder or hub id of a causal language model; `demo` is the embedded one.
        layers: hidden states that are averaged over the tokens of a response, and joined; the log of its length is
            added.
        max_length: tokens of prompt and response; the rest is cut off.
        cache: folder of the features, kept for other studies; null is the study's own.
        file: an .npz file with `features` [responses, D] and `keys`, in place of a model.
        dimensions: principal components that are kept, of unit variance (whitened on the development part); 0 for all
            features as they are.
    """

    model: str = "demo"
    layers: list[Count] = field(default_factory=lambda: [12, 20, 30])
    max_length: Size = 384
    cache: str | None = None
    file: str | None = None
    dimensions: Count = 96


@section("prices")
class PricesConfig:
    """What an annotator's time is: reading the texts themselves, and deciding.

    Attributes:
        words_per_minute: of silent reading; 238 for English non-fiction is the mean of 190 studies (Brysbaert 2019).
        decide_seconds: after reading, for a label, a comparison or a rating; ours, to be replaced by a pilot's
            (`popmargin label report` has the times).
        grade_seconds: for a grade beside a label (slightly, clearly, much better); ours.
        preference: seconds of a new preference, in place of the above; the same for the others.
        comparison: of two preferences drawn at random, both read.
        chained: of a comparison with the preference before it, one read.
        inline: of a comparison with the preference before it, asked with the label: none read.
        vote: of a further annotator's label.
        rating: of both responses of a preference, one by one.
        grade: of a grade beside the label.
    """

    words_per_minute: Positive = 238.0
    decide_seconds: NotNegative = 5.0
    grade_seconds: NotNegative = 2.0
    preference: Positive | None = None
    comparison: Positive | None = None
    chained: Positive | None = None
    inline: Positive | None = None
    vote: Positive | None = None
    rating: Positive | None = None
    grade: Positive | None = None


@section()
class BudgetConfig:
    """What the next hour of an annotator buys.

    Example:
        >>> config = BudgetConfig(data=StrengthsConfig(path="votes.jsonl"), sizes=[100], draws=8)
        >>> config.output, config.budgets
        ('runs/budget', [1.0, 3.0])

    Attributes:
        title: heading of the report.
        output: folder of the study; the same command goes on there.
        data: the preferences.
        features: what reward models see.
        prices: of labels.
        sizes: numbers of preferences that are there already, each with one annotator's label.
        budgets: further time, in multiples of what those took.
        draws: repetitions; training part, validation groups, labels, edges and noise are drawn anew in each.
        arms: only these; empty for all.
        hidden: units of a hidden layer of the head; 0 is a linear head.
        ridges: of the head; the one that is best on validation groups is used.
        comparison_noise: temperature of comparisons, log-odds: √2, twice the variance of a label, is somebody who sees
            either strength as exactly as for a label.
        rating_steps: of the rating scale, over the middle nine tenths of the responses; 0 for no steps.
        rank_weight: λ of `pop_rank`.
        held_out: share of the groups that only measure, the same in every draw.
        validation: share of the other groups that choose the ridge and calibrate soft labels, drawn anew.
        rehearse: measure on a part of the other groups, and leave the held-out ones alone while settings are tried.
        difference: to be found, in points of accuracy, for the power of the study.
        workers: processes.
        seed: of the held-out groups and of all draws.
    """

    title: str = "What does the next hour buy?"
    output: str = "runs/budget"
    data: StrengthsConfig = field(default_factory=StrengthsConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    prices: PricesConfig = field(default_factory=PricesConfig)
    sizes: list[Size] = field(default_factory=lambda: [50, 100, 200, 500, 1000])
    budgets: list[Positive] = field(default_factory=lambda: [1.0, 3.0])
    draws: Size = 24
    arms: list[str] = field(default_factory=list[str])
    hidden: Count = 0
    ridges: list[Positive] = field(default_factory=lambda: [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
    comparison_noise: NotNegative = 1.4142
    rating_steps: Count = 5
    rank_weight: NotNegative = 1.0
    held_out: PositiveShare = 0.3
    validation: PositiveShare = 0.2
    rehearse: bool = False
    difference: Positive = 2.0
    workers: Size = 2
    seed: Seed = 0

    def __post_init__(self) -> None:
        if not self.sizes or not self.budgets or not self.ridges:
            raise ConfigError("A budget study needs a size, a budget and a ridge or more.")
        unknown = [name for name in self.arms if name not in ARMS]
        if unknown:
            raise ConfigError(f"The arm '{unknown[0]}' is unknown. {did_you_mean(unknown[0], ARMS)}")

    @property
    def arm_names(self) -> list[str]:
        """The arms in their order, always with the first one, that the others are compared with."""
        return [name for name in ARMS if not self.arms or name in (*self.arms, "base")]


NOT_OF_A_DRAW = ("title", "output", "draws", "workers", "difference")
"""Settings that do not change a draw."""


def load_budget(
    path: str | Path | None, overrides: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> BudgetConfig:
    """A budget study from YAML (or the defaults), with changes and `--data.path FILE` flags put over it.

    Raises:
        ConfigError: unknown keys or values that do not fit, or no data; the message names the file.
    """
    values = apply_overrides(merge({} if path is None else read_yaml(path), changes or {}), overrides)
    try:
        config = from_dict(BudgetConfig, values)
        if not config.data.path:
            raise ConfigError("The data are missing: give --data FILE, or data: {path: FILE} in a configuration.")
    except ConfigError as error:
        raise ConfigError(str(error) if path is None else f"{path}: {error}") from error
    return config
