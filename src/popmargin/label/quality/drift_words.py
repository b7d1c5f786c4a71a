"""Changes over time, in sentences."""

from popmargin.label.quality.drift import Drift
from popmargin.report.metrics import has_bounds, number

CLEAR = 0.01
"""p below which a trend is told: there are two tests in every report."""


def drift_sentences(found: Drift | None) -> list[str]:
    """Trends that are told apart from none, or that there are none."""
    if found is None:
        return []
    told: list[str] = []
    change, pace = found.agreement, found.seconds
    if has_bounds(change) and change.p < CLEAR:
        way = "falls" if change.estimate < 0 else "rises"
        low, high = (number(100 * abs(end), 0) for end in sorted((change.low, change.high), key=abs))
        told.append(
            f"Agreement with the others {way} by {number(100 * abs(change.estimate), 0)} points from the first to the "
            f"last label ({low} to {high}; p = {_p(change.p)})."
        )
    if has_bounds(pace) and pace.p < CLEAR:
        told.append(
            f"People need {number(pace.estimate, 2)} times as long at the end as in the beginning "
            f"({number(pace.low, 2)} to {number(pace.high, 2)}; p = {_p(pace.p)})."
        )
    if not told and (has_bounds(change) or has_bounds(pace)):
        return ["No change over time is told apart from chance."]
    return told


def _p(value: float) -> str:
    return "less than 0.001" if value < 0.001 else number(value, 3)
