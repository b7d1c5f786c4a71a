"""Names, units and definitions in plain words of every number in the report."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from popmargin.statistics.intervals import Interval

DASH = "–"
MINUS = "−"


@dataclass(frozen=True)
class Metric:
    """How one metric is shown.

    Args:
        key: its name in ``ArmResult.metrics``.
        title: column heading.
        unit: ``"%"`` shows a share as a percentage; other units are words for the notes.
        better: the direction that is better, None if there is none (length, KL).
        meaning: one or two sentences for the notes.
    """

    key: str
    title: str
    unit: str
    better: Literal["higher", "lower"] | None
    meaning: str

    @property
    def is_share(self) -> bool:
        return self.unit == "%"


def _metric(
    key: str, title: str, unit: str, better: Literal["higher", "lower"] | None, meaning: str
) -> tuple[str, Metric]:
    return key, Metric(key, title, unit, better, meaning)


METRICS: dict[str, Metric] = dict(
    [
        _metric(
            "accuracy",
            "Accuracy",
            "%",
            "higher",
            "Share of held-out preferences whose chosen response gets the higher implicit reward from the policy "
            "(reward margin above zero). 50% is guessing.",
        ),
        _metric(
            "pop_accuracy",
            "PoP accuracy",
            "%",
            "higher",
            "Share of held-out pairs of preferences in which the stronger preference also has the larger reward "
            "margin. 50% is guessing.",
        ),
        _metric(
            "spearman",
            "Spearman ρ",
            "rank correlation, −1 to 1",
            "higher",
            "Rank correlation between reward margin and strength of the held-out preferences.",
        ),
        _metric(
            "mean_reward",
            "Mean reward",
            "gold reward",
            "higher",
            "Average score of what was sampled on held-out prompts, by the study's reward (not the policy's).",
        ),
        _metric(
            "win_rate_reference",
            "Win rate vs reference",
            "%",
            "higher",
            "How often the arm's sample scores above the reference policy's on the same prompt; ties count half.",
        ),
        _metric(
            "win_rate_baseline",
            "Win rate vs baseline arm",
            "%",
            "higher",
            "The same, against the samples of the baseline arm.",
        ),
        _metric(
            "kl_per_token",
            "KL per token (T = 1, no cut)",
            "nats",
            None,
            "How far the policy moved from the reference: log-probability under the policy minus that under the "
            "reference, averaged over the tokens it sampled at temperature 1 without top-k. Not given for other "
            "samples, whose mean log-ratio is not a KL. Neither better nor worse by itself; at equal reward, less is "
            "better.",
        ),
        _metric("length", "Length", "tokens", None, "Mean length of the sampled completions."),
        _metric("accuracy_weak", "Accuracy, weak", "%", "higher", "Accuracy on the third with the smallest strength."),
        _metric("accuracy_medium", "Accuracy, medium", "%", "higher", "Accuracy on the middle third."),
        _metric(
            "accuracy_strong", "Accuracy, strong", "%", "higher", "Accuracy on the third with the largest strength."
        ),
        _metric(
            "accuracy_longer",
            "“Longer wins”",
            "%",
            None,
            "Accuracy of a rule that always picks the longer response.",
        ),
        _metric(
            "accuracy_reference",
            "Reference model",
            "%",
            None,
            "Accuracy of the reference model by the arm’s score, before any training. Only for scores that are not "
            "ratios to the reference, by which it ranks nothing.",
        ),
        _metric("pearson", "Pearson r", "correlation, −1 to 1", "higher", "Linear correlation of reward margin and "
            "strength."),
        _metric("kendall", "Kendall τ", "rank correlation, −1 to 1", "higher", "Share of agreeing minus disagreeing "
                "pairs when preferences are ordered by margin and by strength."),
        _metric(
            "ece",
            "ECE",
            "0 to 1",
            "lower",
            "Expected calibration error: mean distance, over bins weighted by count, between the policy’s confidence "
            "in the side it prefers, σ(|reward margin|), and how often it is right. Corrected for the error that "
            "noise alone gives a calibrated model; its interval is conservative.",
        ),
        _metric("reward_margin", "Reward margin", "reward units", None, "Mean of β · (log-ratio of the chosen "
            "response minus log-ratio of the rejected one)."),
        _metric("win_rate_equal_length", "Win rate at equal length", "%", "higher", "Win rate against the reference "
            "at equal lengths, predicted by a logistic regression on the length difference. Not AlpacaEval’s "
            "length-controlled win rate, which also models instruction difficulty."),
        _metric("length_difference", "Length − reference", "tokens", None, "Mean difference in length from the "
            "reference policy on the same prompts."),
        _metric("distinct_1", "Distinct-1", "%", "higher", "Distinct words as a share of all sampled words. Falls "
            "with the number of completions."),
        _metric("distinct_2", "Distinct-2", "%", "higher", "The same for word bigrams."),
        _metric("goal_spearman", "Spearman ρ of goals", "rank correlation, −1 to 1", "higher", "Rank correlation of "
            "the goal that a prompt asks for and the reward of the answer, over all prompts and goals. At 0, the "
            "policy does not follow goals."),
        _metric("finished", "Finished", "%", "higher", "Share of completions that ended before the length limit."),
    ]
)  # fmt: skip

FURTHER = "mean_"
"""What the metric of a further reward (`evaluation.also`) begins with; its name follows."""
LOG_RATIO = "log_ratio_per_token_"
_LOG_RATIO_MEANING = (
    "Log-probability under the policy minus that under the reference, both at temperature 1, averaged over tokens "
    "sampled as the title says. It is not a KL, since these are not plain samples from the policy."
)

_AT: Mapping[str, tuple[str, str, Literal["higher", "lower"] | None, str]] = {
    "recall": ("Recall", "%", "higher", "Share of users whose next item is among the first {k} of all items."),
    "ndcg": ("NDCG", "0 to 1", "higher", "Mean of 1 / log₂(rank + 1) of the next item, 0 if its rank is above {k}."),
    "coverage": ("Coverage", "%", None, "Share of the catalogue that is among the first {k} of anyone."),
    "popularity": ("Popularity", "%", None, "Mean popularity percentile of the first {k}; 50% without any bias."),
    "gini": ("Gini", "0 to 1", None, "How unequally often items are among the first {k}; 0 if all are equally often."),
}  # fmt: skip
"""Metrics of recommendations, which have a number of places behind an @: title, unit, what is better, meaning."""

SUMMARY_COLUMNS = (
    "accuracy", "pop_accuracy", "spearman", "mean_reward",
    "win_rate_reference", "win_rate_baseline", "kl_per_token", "length",
)  # fmt: skip


def is_further(key: str) -> bool:
    """Whether a metric is that of a further reward.

    Example:
        >>> is_further("mean_is_still_the_prompt"), is_further("mean_reward")
        (True, False)
    """
    return key.startswith(FURTHER) and key not in METRICS


def is_ranking(key: str) -> bool:
    """Whether a metric is of recommendations.

    Example:
        >>> is_ranking("recall@10"), is_ranking("accuracy")
        (True, False)
    """
    name, _, places = key.partition("@")
    return name in _AT and places.isdigit()


def metric(key: str) -> Metric:
    """The entry of a metric; one not in the table is shown under its own name."""
    if is_ranking(key):
        name, _, places = key.partition("@")
        title, unit, better, meaning = _AT[name]
        return Metric(key, f"{title}@{places}", unit, better, meaning.format(k=places))
    if key.startswith(LOG_RATIO):
        return Metric(key, f"Log-ratio per token ({_settings(key)})", "nats", None, _LOG_RATIO_MEANING)
    if is_further(key):
        name = key.removeprefix(FURTHER).replace("_", " ")
        meaning = f"Average of the further reward {name} over the same samples."
        return Metric(key, f"Mean {name}", "", "higher", meaning)
    return METRICS.get(key) or Metric(key, key.replace("_", " ").capitalize(), "", None, "")


def _settings(key: str) -> str:
    """How the samples of a log-ratio were drawn, according to its name.

    Example:
        >>> _settings("log_ratio_per_token_t0.7_k50"), _settings("log_ratio_per_token_own")
        ('T = 0.7, top-k 50', "the model's own settings")
        >>> _settings("log_ratio_per_token_t0.7_k0_p0.9")
        'T = 0.7, top-p 0.9'
    """
    temperature, _, cuts = key.removeprefix(LOG_RATIO).removeprefix("t").partition("_k")
    if not cuts:
        return "the model's own settings"
    top_k, _, top_p = cuts.partition("_p")
    named = [*([] if top_k == "0" else [f"top-k {top_k}"]), *([f"top-p {top_p}"] if top_p else [])]
    return f"T = {temperature}, {', '.join(named) or 'no cut'}"


def is_known(interval: Interval | None) -> bool:
    """Whether there is an estimate to show."""
    return interval is not None and math.isfinite(interval.estimate)


def has_bounds(interval: Interval | None) -> bool:
    """Whether estimate and both ends are finite."""
    return interval is not None and all(math.isfinite(v) for v in (interval.estimate, interval.low, interval.high))


def decimals(intervals: Iterable[Interval | None], *, share: bool = False) -> int:
    """Decimals of a column: two digits of the narrowest half width below 3.5, otherwise one; one for percentages.

    Example:
        >>> decimals([Interval(0.5123, 0.4923, 0.5323)])
        3
    """
    if share:
        return 1
    known = [entry for entry in intervals if entry is not None and is_known(entry)]
    widths = [(entry.high - entry.low) / 2 for entry in known if has_bounds(entry) and entry.high > entry.low]
    sizes = widths or [abs(entry.estimate) / 100 for entry in known if entry.estimate]
    if not sizes:
        return 2
    power = math.floor(math.log10(min(sizes)))
    return min(4, max(0, (1 if min(sizes) < 3.55 * 10.0**power else 0) - power))


def number(value: float | None, places: int, *, share: bool = False, sign: bool = False) -> str:
    """A number for display: true minus sign, a percentage for shares, an en dash if unknown.

    Example:
        >>> number(0.7123, 1, share=True), number(-0.5, 2), number(float("nan"), 2)
        ('71.2%', '−0.50', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{100 * value if share else value:{'+' if sign else ''},.{places}f}"
    if not text.strip("+-0.,"):  # "-0.0" and "+0.0" mean the same
        text = text.lstrip("+-")
    return text.replace("-", MINUS) + ("%" if share else "")
