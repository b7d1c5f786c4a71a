"""The report's tables and samples as plain rows for the template."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from popmargin.account import Step
from popmargin.report.discoveries import differences, further_metrics, seeds_tell
from popmargin.report.metrics import (
    DASH,
    METRICS,
    SUMMARY_COLUMNS,
    Metric,
    decimals,
    has_bounds,
    is_known,
    metric,
    number,
)
from popmargin.report.results import ArmResult, StudyResults
from popmargin.statistics.intervals import Interval

Verdict = Literal["better", "worse", "higher", "lower", "unclear", "one seed", ""]
SYMBOLS: dict[str, str] = {
    "better": "▲", "worse": "▼", "higher": "↑", "lower": "↓", "unclear": "○", "one seed": "·", "": "",
}  # fmt: skip
_CLEAR = ("better", "worse", "higher", "lower")
ALONE = {"▲": "△", "▼": "▽"}  # a difference that is clear by itself but not after correction for multiple comparisons
MAX_PROMPTS, MAX_CHARACTERS = 6, 3000
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Cell:
    """One number of a table: estimate, interval, and the difference from the baseline arm with its verdict.

    `stands` is False if a difference is clear by itself but not after correction for multiple ones (`discoveries`).
    """

    estimate: str
    interval: str = ""
    difference: str = ""
    verdict: Verdict = ""
    stands: bool = True

    @property
    def symbol(self) -> str:
        symbol = SYMBOLS[self.verdict]
        return symbol if self.stands else ALONE.get(symbol, symbol)


@dataclass(frozen=True)
class Sample:
    """One arm's answer to one prompt."""

    arm: str
    text: str
    cut: int
    reward: str


def visible_text(text: object) -> str:
    """Text that a browser can show: invalid characters (control characters, lone surrogates) become U+FFFD."""
    return _CONTROL.sub("\ufffd", str(text).replace("\r\n", "\n").replace("\r", "\n"))


def verdict(difference: Interval | None, entry: Metric, *, level: float = 0.0, told: bool = True) -> Verdict:
    """The verdict on a difference: clear only if its interval excludes ``level`` and covers the spread of seeds.

    Args:
        difference: with its interval.
        entry: its metric.
        level: the value it must exclude.
        told: whether either arm has several seeds.

    Example:
        >>> verdict(Interval(-0.02, -0.03, -0.01), METRICS["accuracy"])
        'worse'
    """
    if difference is None or not has_bounds(difference):
        return ""
    if not told:
        return "one seed"
    if difference.low <= level <= difference.high:
        return "unclear"
    up = difference.low > level
    if entry.better is None:
        return "higher" if up else "lower"
    return "better" if up == (entry.better == "higher") else "worse"


def cell(
    value: Interval | None,
    difference: Interval | None,
    entry: Metric,
    places: int,
    *,
    told: bool = True,
    stands: bool = True,
) -> Cell:
    """Format one number; the win rate against the baseline arm is itself a difference, from ½."""
    if value is None or not is_known(value):
        return Cell(DASH)
    share = entry.is_share
    ends = [number(100 * end if share else end, places) for end in (value.low, value.high)]
    interval = f"[{ends[0]}, {ends[1]}]" if has_bounds(value) else ""
    estimate = number(value.estimate, places, share=share)
    if entry.key == "win_rate_baseline":
        return Cell(estimate, interval, "", verdict(value, entry, level=0.5, told=told), stands)
    if difference is None or not is_known(difference):
        return Cell(estimate, interval)
    found, amount = verdict(difference, entry, told=told), (100 if share else 1) * difference.estimate
    while found in _CLEAR and places < 8 and round(amount, places) == 0:
        places += 1  # a clear difference is not shown as zero
    return Cell(estimate, interval, number(amount, places, sign=True), found, stands)


def summary_columns(study: StudyResults) -> list[Metric]:
    """All columns of the summary table, so that missing measurements can be seen; further rewards where there are some.

    Images have neither tokens nor a log-ratio.
    """
    keys = [key for key in SUMMARY_COLUMNS if study.responses == "texts" or key not in ("kl_per_token", "length")]
    after = keys.index("mean_reward") + 1
    found = [metric(key) for key in (*keys[:after], *further_metrics(study.arms), *keys[after:])]
    named = study.reward.replace("_", " ")
    return [replace(entry, unit=named) if named and entry.key == "mean_reward" else entry for entry in found]


def _places(study: StudyResults, entry: Metric) -> int:
    return decimals([arm.metrics.get(entry.key) for arm in study.arms], share=entry.is_share)


def summary_rows(study: StudyResults, columns: Sequence[Metric]) -> list[tuple[ArmResult, list[Cell]]]:
    """One row of cells per arm; the baseline arm has no differences."""
    places = [_places(study, entry) for entry in columns]
    base = next((arm for arm in study.arms if arm.name == study.baseline), None)
    alone = {(one.arm, one.key) for one in differences(study.arms, study.baseline) if one.clear and not one.stands}
    rows: list[tuple[ArmResult, list[Cell]]] = []
    for arm in study.arms:
        told = base is not None and seeds_tell(arm, base)
        cells = [
            Cell(DASH)
            if arm is base and entry.key == "win_rate_baseline"
            else cell(
                arm.metrics.get(entry.key),
                None if arm is base else arm.differences.get(entry.key),
                entry,
                digits,
                told=told,
                stands=(arm.name, entry.key) not in alone,
            )
            for entry, digits in zip(columns, places, strict=True)
        ]
        rows.append((arm, cells))
    return rows


def reference_row(study: StudyResults, columns: Sequence[Metric]) -> list[Cell]:
    """The reference policy's cells; empty if it was not measured."""
    if not any(is_known(study.reference.get(entry.key)) for entry in columns):
        return []
    return [cell(study.reference.get(entry.key), None, entry, _places(study, entry)) for entry in columns]


def other_metrics(study: StudyResults) -> list[tuple[Metric, list[Cell]]]:
    """Measured metrics without a column in the summary: one row per metric, one cell per arm."""
    measured = {key for arm in study.arms for key, value in arm.metrics.items() if is_known(value)}
    measured -= {entry.key for entry in summary_columns(study)}
    keys = [key for key in METRICS if key in measured] + sorted(measured - set(METRICS))
    rows: list[tuple[Metric, list[Cell]]] = []
    for entry in map(metric, keys):
        places = _places(study, entry)
        rows.append((entry, [cell(arm.metrics.get(entry.key), None, entry, places) for arm in study.arms]))
    return rows


# --- overhead -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """One row of the overhead table; ratios are to the baseline arm."""

    arm: str
    time: str
    time_ratio: str
    bar: float
    speed: str
    speed_ratio: str
    memory: str
    memory_ratio: str


def duration(seconds: float) -> str:
    """Seconds in the two largest units.

    Example:
        >>> duration(192.4), duration(7.25)
        ('3 min 12 s', '7.2 s')
    """
    if not math.isfinite(seconds):
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def overhead_rows(study: StudyResults) -> list[Cost]:
    """Training cost of each arm; empty if unknown for all."""
    names = ("train_seconds", "tokens_per_second", "peak_memory_mb")
    values = [{name: arm.overhead.get(name, math.nan) for name in (*names, "time_ratio")} for arm in study.arms]
    if not any(math.isfinite(value) for row in values for value in row.values()):
        return []
    base = next((arm.overhead for arm in study.arms if arm.name == study.baseline), dict[str, float]())
    longest = max((row["time_ratio"] for row in values if math.isfinite(row["time_ratio"])), default=1.0)

    def ratio(row: dict[str, float], name: str) -> str:
        below = base.get(name, math.nan)
        return _times(row[name] / below) if below else DASH

    return [
        Cost(
            arm=arm.label or arm.name,
            time=duration(row["train_seconds"]),
            time_ratio=_times(row["time_ratio"]),
            bar=100 * row["time_ratio"] / longest if math.isfinite(row["time_ratio"]) and longest > 0 else 0.0,
            speed=number(row["tokens_per_second"], 0),
            speed_ratio=ratio(row, "tokens_per_second"),
            memory=megabytes(row["peak_memory_mb"]),
            memory_ratio=ratio(row, "peak_memory_mb"),
        )
        for arm, row in zip(study.arms, values, strict=True)
    ]


@dataclass(frozen=True)
class AccountRow:
    """One step of the data account, as text."""

    name: str
    arms: str
    rows_in: str
    kept: list[str]
    left_out: list[str]
    notes: list[str]


def account_rows(study: StudyResults) -> list[AccountRow]:
    """What came in, was kept and was dropped, step by step."""
    rows: list[AccountRow] = []
    for entry in study.account:
        step = Step.from_dict({name: value for name, value in entry.items() if name != "arms"})
        rows.append(
            AccountRow(
                name=step.name,
                arms=", ".join(entry["arms"]),
                rows_in=f"{step.rows_in:,} {step.unit}",
                kept=[f"{count:,} {where}" for where, count in step.kept.items()],
                left_out=[f"{reason}: {count:,}" for reason, count in step.reasons.items()],
                notes=list(step.notes),
            )
        )
    return rows


def _times(value: float) -> str:
    return DASH if not math.isfinite(value) else f"{value:.2f} ×"


def megabytes(amount: float) -> str:
    """An amount of memory.

    Example:
        >>> megabytes(512.3), megabytes(12_300)
        ('512 MB', '12.3 GB')
    """
    if not math.isfinite(amount):
        return DASH
    return f"{amount:,.0f} MB" if amount < 10_000 else f"{amount / 1000:.1f} GB"


# --- samples --------------------------------------------------------------------------------------------------------


def sample_blocks(study: StudyResults) -> tuple[list[tuple[str, list[Sample]]], int]:
    """Prompts with every arm's completion, and the number of prompts not shown.

    Args:
        study: an arm's k-th answer to a prompt goes into the k-th block of that prompt.
    """
    blocks: dict[tuple[str, int], dict[str, Sample]] = {}
    for arm in study.arms:
        seen: dict[str, int] = {}
        for sample in arm.samples:
            prompt = visible_text(sample.get("prompt", ""))
            seen[prompt] = seen.get(prompt, 0) + 1
            text = visible_text(sample.get("completion", ""))
            kept = text[:MAX_CHARACTERS]
            shown = Sample(arm.name, kept, len(text) - len(kept), number(_reward(sample.get("reward")), 2))
            blocks.setdefault((prompt, seen[prompt]), {})[arm.name] = shown
    listed = [
        (prompt, [answers.get(arm.name) or Sample(arm.name, "", 0, DASH) for arm in study.arms])
        for (prompt, _), answers in blocks.items()
    ]
    return listed[:MAX_PROMPTS], max(0, len(listed) - MAX_PROMPTS)


def _reward(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
