"""Names, units and plain-word definitions of every number that the report shows."""

import math
from collections.abc import Iterable
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
        unit: ``"%"`` shows a share as per cent; other units are words for the notes.
        better: the direction that is better, None where there is none (length, KL).
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
            "Share of held-out preferences in which the policy's implicit reward puts the chosen response above the "
            "rejected one (reward margin above zero). 50% is guessing.",
        ),
        _metric(
            "pop_accuracy",
            "PoP accuracy",
            "%",
            "higher",
            "Share of held-out pairs of preferences in which the stronger preference also gets the larger reward "
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
            "Average score that the study's own reward (not the policy) gives to completions sampled on held-out "
            "prompts.",
        ),
        _metric(
            "win_rate_reference",
            "Win rate vs reference",
            "%",
            "higher",
            "How often the arm's completion scores above the reference policy's on the same prompt; ties count half.",
        ),
        _metric(
            "win_rate_baseline",
            "Win rate vs baseline arm",
            "%",
            "higher",
            "The same against the completions of the baseline arm.",
        ),
        _metric(
            "kl_per_token",
            "KL per token (T = 1, no cut)",
            "nats",
            None,
            "How far the policy moved from the reference: log-probability under the policy minus that under the "
            "reference, averaged over the tokens that it sampled at temperature 1 from all tokens (no top-k). "
            "Not given for samples drawn otherwise, whose mean log-ratio is no KL. "
            "Neither better nor worse by itself; at equal reward, less is the cheaper move.",
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
            "Accuracy of a rule that looks at nothing but length and always picks the longer response.",
        ),
        _metric(
            "accuracy_reference",
            "Reference model’s own",
            "%",
            None,
            "Accuracy of the reference model in the arm’s own score, before any training; only where that score is no "
            "ratio to the reference’s log-probabilities, in which it has no order of its own.",
        ),
        _metric("pearson", "Pearson r", "correlation, −1 to 1", "higher", "Linear correlation of margin and strength."),
        _metric("kendall", "Kendall τ", "rank correlation, −1 to 1", "higher", "Share of agreeing minus disagreeing "
                "pairs when preferences are ordered by margin and by strength."),
        _metric(
            "ece",
            "ECE",
            "0 to 1",
            "lower",
            "Expected calibration error: mean distance, over bins weighted by count, between how sure the policy is of "
            "the side that it prefers, σ(|reward margin|), and how often it is right. Free of the error that noise "
            "alone gives a calibrated model; its interval is wider than needed.",
        ),
        _metric("reward_margin", "Reward margin", "reward units", None, "Mean of β · (log-ratio of the chosen response "
                "minus log-ratio of the rejected one)."),
        _metric("win_rate_equal_length", "Win rate at equal length", "%", "higher", "Win rate against the reference "
                "that a logistic regression on the difference in length gives for equal lengths. Not AlpacaEval’s "
                "length-controlled win rate, which also models how difficult each instruction is."),
        _metric("length_difference", "Length − reference", "tokens", None, "Mean difference in length to the "
                "reference policy on the same prompts."),
        _metric("distinct_1", "Distinct-1", "%", "higher", "Different words as a share of all sampled "
                "words. Falls with the number of completions."),
        _metric("distinct_2", "Distinct-2", "%", "higher", "The same for pairs of neighbouring words."),
        _metric("finished", "Finished", "%", "higher", "Share of completions that ended before the length limit."),
    ]
)  # fmt: skip

LOG_RATIO = "log_ratio_per_token_"
_LOG_RATIO_MEANING = (
    "Log-probability under the policy minus that under the reference, both at temperature 1, averaged over tokens that "
    "were drawn as the title says. It is no KL, as these are no samples of the policy itself."
)

SUMMARY_COLUMNS = (
    "accuracy", "pop_accuracy", "spearman", "mean_reward",
    "win_rate_reference", "win_rate_baseline", "kl_per_token", "length",
)  # fmt: skip


def metric(key: str) -> Metric:
    """The entry of a metric; one that is not in the table is shown under its own name."""
    if key.startswith(LOG_RATIO):
        return Metric(key, f"Log-ratio per token ({_settings(key)})", "nats", None, _LOG_RATIO_MEANING)
    return METRICS.get(key) or Metric(key, key.replace("_", " ").capitalize(), "", None, "")


def _settings(key: str) -> str:
    """How the samples of a log-ratio were drawn, from its name.

    Example:
        >>> _settings("log_ratio_per_token_t0.7_k50"), _settings("log_ratio_per_token_own")
        ('T = 0.7, top-k 50', 'own settings of the model')
    """
    temperature, _, top_k = key.removeprefix(LOG_RATIO).removeprefix("t").partition("_k")
    if not top_k:
        return "own settings of the model"
    return f"T = {temperature}, {'no cut' if top_k == '0' else f'top-k {top_k}'}"


def is_known(interval: Interval | None) -> bool:
    """Whether there is an estimate to show."""
    return interval is not None and math.isfinite(interval.estimate)


def has_bounds(interval: Interval | None) -> bool:
    """Whether estimate and both ends are finite."""
    return interval is not None and all(math.isfinite(v) for v in (interval.estimate, interval.low, interval.high))


def decimals(intervals: Iterable[Interval | None], *, share: bool = False) -> int:
    """Decimals that one column shows: two digits of the narrowest half width below 3.5, else one; per cent get one.

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
    """A number for reading: true minus sign, per cent where it is a share, an en dash where it is unknown.

    Example:
        >>> number(0.7123, 1, share=True), number(-0.5, 2), number(float("nan"), 2)
        ('71.2%', '−0.50', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{100 * value if share else value:{'+' if sign else ''},.{places}f}"
    if not text.strip("+-0.,"):  # "-0.0" and "+0.0" say the same
        text = text.lstrip("+-")
    return text.replace("-", MINUS) + ("%" if share else "")
