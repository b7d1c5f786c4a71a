"""Multiple comparisons: which differences are clear, and which hold up among all of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from popmargin.report.metrics import SUMMARY_COLUMNS, has_bounds, is_further, is_ranking, metric
from popmargin.report.results import ArmResult
from popmargin.statistics.intervals import Interval

RATE = 0.05
NAMED = 6
"""At most this many are named in a sentence; more are in the summary."""


@dataclass(frozen=True)
class Difference:
    """One difference of the summary.

    Attributes:
        arm: name of the arm.
        label: what the report calls it.
        key: the metric.
        clear: whether its interval excludes zero.
        stands: whether it holds up at a false discovery rate of `RATE`.
    """

    arm: str
    label: str
    key: str
    clear: bool
    stands: bool


def seeds_tell(arm: ArmResult, base: ArmResult) -> bool:
    """Whether the interval of a difference covers the spread of seeds: an arm has several, or neither has any."""
    return len(arm.seeds) > 1 or len(base.seeds) > 1 or not (arm.seeds or base.seeds)


def benjamini_hochberg(p: Sequence[float], rate: float = RATE) -> list[bool]:
    """Which of several tests to call discoveries, so that the expected share of false ones is at most `rate`.

    Benjamini & Hochberg (1995): the tests up to the last one, in order of p, whose p is at most rate · rank / number.

    Example:
        >>> benjamini_hochberg([0.001, 0.04, 0.02, 0.8])
        [True, False, True, False]
    """
    ordered = sorted(p)
    below = [value for rank, value in enumerate(ordered, 1) if value <= rate * rank / len(p)]
    return [bool(below) and value <= below[-1] for value in p]


def further_metrics(arms: Sequence[ArmResult]) -> list[str]:
    """The metrics of further rewards that arms have, in their order."""
    return list(dict.fromkeys(key for arm in arms for key in arm.metrics if is_further(key)))


def differences(arms: Sequence[ArmResult], baseline: str) -> list[Difference]:
    """All tested differences in the summary whose intervals cover the spread of seeds.

    Args:
        arms: results of all arms.
        baseline: name of the arm that they are compared with.
    """
    base = next((arm for arm in arms if arm.name == baseline), None)
    found: list[tuple[ArmResult, str, Interval, float]] = []
    for arm in arms:
        if base is None or arm is base or not seeds_tell(arm, base):
            continue
        for key in (*SUMMARY_COLUMNS, *further_metrics(arms), *filter(is_ranking, arm.differences)):
            own = key == "win_rate_baseline"  # is itself a difference, from ½
            interval = (arm.metrics if own else arm.differences).get(key)
            if interval is not None and has_bounds(interval) and math.isfinite(interval.p):
                found.append((arm, key, interval, 0.5 if own else 0.0))
    stand = benjamini_hochberg([interval.p for _, _, interval, _ in found])
    return [
        Difference(arm.name, arm.label or arm.name, key, not interval.low <= null <= interval.high, stands)
        for (arm, key, interval, null), stands in zip(found, stand, strict=True)
    ]


def discovery_note(shown: Sequence[Difference]) -> str:
    """One or two sentences on how many of the differences would look clear by chance; empty without any."""
    clear = [one for one in shown if one.clear]
    if len(shown) < 2:
        return ""
    chance = f"{RATE * len(shown):.1f}".removesuffix(".0")
    exclude = "excludes" if len(clear) == 1 else "exclude"
    opening = (
        f"Of {len(shown)} differences in the summary, {len(clear)} {exclude} zero at 95%; if none were real, {chance} "
        "would on average."
    )
    if not clear:
        return opening
    fallen = [f"{one.label} in {metric(one.key).title}" for one in clear if not one.stands]
    if not fallen:
        rest = "All of them hold up" if len(clear) > 1 else "It holds up"
    elif len(fallen) == len(clear):
        rest = "None of them holds up" if len(clear) > 1 else "It does not hold up"
    else:
        rest = f"{len(clear) - len(fallen)} of them hold{'s' if len(clear) - len(fallen) == 1 else ''} up"
    if len(fallen) > NAMED:
        named = "; the others have the marks △ and ▽ in the summary"
    else:
        named = f"; {', '.join(fallen)} {'does' if len(fallen) == 1 else 'do'} not"
    named = named if 0 < len(fallen) < len(clear) else ""
    return f"{opening} {rest} at a false discovery rate of {RATE:.0%} (Benjamini–Hochberg){named}."
