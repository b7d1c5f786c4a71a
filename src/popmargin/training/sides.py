"""Training and held-out preferences from their files: read, split, limited, flipped, with the account."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit

from popmargin.account import Step
from popmargin.config import DataConfig
from popmargin.data.exchange import flipped
from popmargin.data.goals import asking, body_keys, goal_facts
from popmargin.data.load import load_preferences
from popmargin.data.schema import Preferences
from popmargin.data.split import check_leak, normalised_key, split_preferences
from popmargin.errors import DataError, counted
from popmargin.training.account import reading_step

RATINGS = ("chosen_rating", "rejected_rating")
QUANTILES = (0.01, 0.99)
"""Of the ratings, in place of the smallest and the largest, which outliers set."""


def load_split(config: DataConfig) -> tuple[Preferences, Preferences]:
    """Training and held-out preferences, checked for leaks, with label noise only on the training side.

    Raises:
        DataError: unusable rows, or prompts on both sides.
    """
    split = read_split(config)
    return split.train, split.test


def load_side(config: DataConfig, side: Literal["train", "test"]) -> Preferences:
    """All preferences in the file or data set named by `data.train` or `data.test`.

    Raises:
        DataError: unusable rows.
    """
    from popmargin.demo import embedded_data

    named, split = (config.train, config.split) if side == "train" or config.test is None else (config.test, None)
    return load_preferences(
        embedded_data(named) or named,
        split=split,
        format=config.format,
        pairs=config.pairs,
        min_gap=config.min_gap,
        seed=config.split_seed,
        bad_rows=config.bad_rows,
        contradictions=config.contradictions,
        columns=config.columns or None,
        max_image_pixels=config.max_image_pixels,
    )


@dataclass(frozen=True)
class Split:
    """Training and held-out preferences, and where they come from.

    Attributes:
        train: to train on, flipped and with soft labels as configured.
        test: held out.
        aside: the rest of the training file: beyond `data.limit`, or set aside when there are validation ones.
        passed_over: ids of training preferences dropped by `data.limit`.
        steps: the account of reading and splitting.
        flipped: ids of training preferences whose label `data.flip` has flipped.
    """

    train: Preferences
    test: Preferences
    aside: Preferences
    passed_over: frozenset[str]
    steps: tuple[Step, ...]
    flipped: frozenset[str] = frozenset()


def read_split(config: DataConfig) -> Split:
    """As `load_split`, with the account.

    Raises:
        DataError: unusable rows, or prompts on both sides.
    """
    everything = load_side(config, "train")
    steps, notes = [reading_step(everything.report)], list[str]()
    if config.test is None:
        train, test = _hold_out(everything, config.test_size, config.split_seed)
        notes.append(_how_held_out("data.test_size", config.test_size, config.split_seed, train, test))
        apart = test
    else:
        train, test, apart = everything, load_side(config, "test"), None
        check_leak(train, test)
        steps.append(reading_step(test.report))
        notes.append(f"held out: all {len(test)} of {test.report.source}; no prompt is on both sides")
    left_out: dict[str, int] = {}
    if config.validation_size:
        if apart is not None:
            left_out["set aside for testing, replaced by validation preferences"] = len(apart)
        else:
            notes[-1] = f"set aside, replaced by validation preferences: {len(test)} of {test.report.source}"
        train, test = _hold_out(train, config.validation_size, config.split_seed + 1)
        notes.append(_how_held_out("data.validation_size", config.validation_size, config.split_seed + 1, train, test))
        apart = test
    whole = train
    if config.limit is not None:
        order = np.random.default_rng(config.split_seed).permutation(len(train))
        train = train.select(np.sort(order[: config.limit]))
        left_out["beyond data.limit, drawn with data.split_seed"] = len(whole) - len(train)
    if config.soft_label_temperature is not None:
        low, high, temperature = rating_scale(train, config.soft_label_temperature)
        train = with_soft_labels(train, temperature, low=low, high=high)
        named = config.soft_label_temperature
        how = f"{named:g}" if isinstance(named, float) else f"{named}, {temperature:.6g} rating points"
        notes.append(f"soft labels derived from ratings, data.soft_label_temperature {how}")
    wrong = frozenset[str]()
    if config.flip:
        ids, mask = train.ids, flipped(len(train), config.flip, config.split_seed)
        wrong = frozenset(ids[row] for row in np.flatnonzero(mask))
        notes.append(f"training labels flipped, data.flip {config.flip:g}: {len(wrong)}")
    train = train.flip(config.flip, config.split_seed)
    goal = goal_facts(train)
    test = asking(test, goal)
    if goal is not None:
        notes.append(f"held-out {goal.note()}; rows that carry a goal keep it")
    kept = {"to train on": len(train)} | ({} if apart is None else {"held out": len(apart)})
    steps.append(Step(name="split", rows_in=len(everything), kept=kept, left_out=left_out, notes=tuple(notes)))
    used = {*train.ids, *(() if apart is None else apart.ids)}
    aside = everything.select([number for number, name in enumerate(everything.ids) if name not in used])
    return Split(train, test, aside, frozenset(whole.ids) - frozenset(train.ids), tuple(steps), wrong)


def _how_held_out(field: str, size: float, seed: int, train: Preferences, test: Preferences) -> str:
    ours, theirs = (len({normalised_key(key) for key in body_keys(side)}) for side in (train, test))
    return (
        f"held out by prompt: {field} {size:g}, {theirs} of {counted(ours + theirs, 'prompt')} with "
        f"{counted(len(test), 'preference')}, drawn with seed {seed}"
    )


def _hold_out(preferences: Preferences, size: float, seed: int) -> tuple[Preferences, Preferences]:
    return split_preferences(preferences, test_size=int(size) if size >= 1 else size, seed=seed)


def rating_scale(
    preferences: Preferences, temperature: float | Literal["range", "quantiles"]
) -> tuple[float, float, float]:
    """Least and largest rating that count, and the temperature of soft labels, rating points.

    Args:
        preferences: their ratings give the scale.
        temperature: rating points; or `range` or `quantiles` of the ratings.

    Raises:
        DataError: all ratings are equal, so they have no range.
    """
    if not isinstance(temperature, str):
        return -np.inf, np.inf, temperature
    ratings = np.concatenate([preferences.column(name) for name in RATINGS if name in preferences.columns] or [[]])
    ratings = ratings[np.isfinite(ratings)]
    if not len(ratings):
        return -np.inf, np.inf, 1.0  # `with_soft_labels` names the preferences without ratings
    shares = (0.0, 1.0) if temperature == "range" else QUANTILES
    low, high = map(float, np.quantile(ratings, shares))
    if not high > low:
        equal = f"all {len(ratings)} ratings are {low:g}" if ratings.min() == ratings.max() else (
            f"the 1% and 99% quantiles of the ratings are both {low:g}"
        )  # fmt: skip
        raise DataError(
            f"data.soft_label_temperature: {temperature} divides by the range of the ratings, but {equal}: they do not "
            "say which response is better. Rate the responses with another reward, or set a number of rating points."
        )
    return low, high, high - low


def with_soft_labels(
    preferences: Preferences, temperature: float, *, low: float = -np.inf, high: float = np.inf
) -> Preferences:
    """The preferences with soft labels from their ratings, treated as rewards of a Bradley–Terry model.

    p = σ((chosen_rating − rejected_rating) / temperature): ½ at equal ratings, 0.73 at a gap of one temperature.

    Args:
        preferences: all with both ratings; any existing `soft_label` is replaced.
        temperature: rating points, above 0.
        low: ratings below count as this one.
        high: ratings above count as this one.

    Raises:
        DataError: a temperature that is not a finite number above 0, or preferences without ratings.
    """
    if not 0 < temperature < np.inf:
        raise DataError(f"data.soft_label_temperature is {temperature}; it must be a finite number above 0.")
    missing = np.flatnonzero(np.isnan(preferences.rating_gap))
    if len(missing):
        raise DataError(
            "data.soft_label_temperature derives soft labels from chosen_rating and rejected_rating, which "
            f"{len(missing)} of {len(preferences)} preferences lack (first: '{preferences.ids[missing[0]]}'). Add "
            "these columns to the data (`popmargin data rate` writes them), or remove the key to read soft_label."
        )
    gap = preferences.rating_gap
    if np.isfinite([low, high]).any():
        better, worse = (np.clip(preferences.column(name), low, high) for name in RATINGS)
        gap = better - worse
    return preferences.with_columns(soft_label=expit(gap / temperature))
