"""The report of a best-of-n study: curves, accuracy against the choice's worth, every arm, and what could be seen."""

from pathlib import Path

from popmargin.files import HTML
from popmargin.report.best_of_n_plot import above_first_labels, accuracy_against_gold, choice_styles, curves
from popmargin.report.best_of_n_results import BestOfNResults, ChoiceArm, ChoiceCell, Difference
from popmargin.report.budget_page import points, share, unbroken
from popmargin.report.metrics import DASH, has_bounds, is_known, number
from popmargin.report.plots import NARROW, WIDER, legend_mark
from popmargin.report.render import TEMPLATES, render_page
from popmargin.report.results import write_text
from popmargin.statistics.intervals import Interval


def render_best_of_n(study: BestOfNResults) -> str:
    """The page as HTML; the same study gives the same bytes."""
    return render_page(
        TEMPLATES / "best_of_n.html.j2",
        study=study,
        opening=_opening(study),
        curves=[curves(study, width) for width in (WIDER, NARROW)],
        above=[above_first_labels(study, width) for width in (WIDER, NARROW)],
        scatter=[accuracy_against_gold(study, width) for width in (WIDER, NARROW)],
        styles=choice_styles(study),
        key_of=legend_mark,
        tables=[(cell.size, arm_rows(study, cell)) for cell in study.cells],
        differences=difference_rows(study),
        left_out=_left_out(study),
        text=unbroken,
    )


def write_best_of_n_report(study: BestOfNResults, path: str | Path) -> Path:
    """Write the HTML file, and return its path."""
    write_text(path, render_best_of_n(study), HTML)
    return Path(path)


def _opening(study: BestOfNResults) -> str:
    when = (
        "This is a rehearsal: the measured prompts were left alone."
        if study.measured_first is None
        else f"The measured prompts were first used on {study.measured_first}."
    )
    return (
        f"Reward models learn from what a simulated annotator says about samples of a policy, and choose the best of n "
        f"other samples, to {study.prompts:,} prompts that they have not seen; a gold reward says what the choice is "
        f"worth. All choose among the same samples, and every n is exact. {study.draws} draws, each with other "
        f"preferences, labels, comparisons and noise. {when}"
    )


def gold(value: Interval | None, *, sign: bool = False) -> str:
    """A gold reward, or a difference, with its interval.

    Example:
        >>> gold(Interval(0.25, 0.2, 0.3)), gold(Interval(0.25, 0.2, 0.3), sign=True)
        ('0.250 [0.200, 0.300]', '+0.250 [+0.200, +0.300]')
    """
    if value is None or not is_known(value):
        return DASH
    text = number(value.estimate, 3, sign=sign)
    if not has_bounds(value):
        return text
    return f"{text} [{number(value.low, 3, sign=sign)}, {number(value.high, 3, sign=sign)}]"


def arm_rows(study: BestOfNResults, cell: ChoiceCell) -> list[dict[str, str]]:
    """Every arm of a size, as text by column."""
    shown = [place for place, n in enumerate(study.ns) if n in (4, study.ns[-1])]

    def row(arm: ChoiceArm) -> dict[str, str]:
        return {
            "Arm": arm.label,
            "Minutes": f"{arm.minutes:.0f}" if arm.minutes else DASH,
            "Accuracy": share(arm.accuracy),
            **{f"Best of {study.ns[place]}": gold(arm.curve[place]) for place in shown},
            "Of what can be gained": number(arm.share_of_possible, 0, share=True),
        }

    return [row(arm) for arm in cell.arms.values()]


def difference_rows(study: BestOfNResults) -> list[dict[str, str]]:
    """The differences of arms that learn, and the power for them, as text by column."""

    def row(cell: ChoiceCell, one: Difference) -> dict[str, str]:
        last = study.ns[-1]
        wanted = f"{100 * study.gain_difference:g}%"
        return {
            "First labels": str(cell.size),
            "Arm": cell.arms[one.name].label,
            "Against": cell.arms[one.against].label,
            "Accuracy": points(one.accuracy),
            f"Power, {100 * study.difference:g} points": _percent(one.accuracy_power),
            f"Gold, best of {last}": gold(one.curve[-1], sign=True),
            f"Power, {wanted}": _percent(one.gold_power),
        }

    return [row(cell, one) for cell in study.cells for one in cell.differences]


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{value:.0%}"


def _left_out(study: BestOfNResults) -> list[str]:
    return [
        f"{name}, {cell.size} first labels: {reason}" for cell in study.cells for name, reason in cell.left_out.items()
    ]


def best_of_n_table(study: BestOfNResults) -> str:
    """Every arm, for a terminal: a block of lines for each size."""
    lines: list[str] = []
    for cell in study.cells:
        lines.append(
            f"{cell.size} first labels (a sample {cell.start:+.3f}, at most {cell.start + cell.possible:+.3f}):"
        )
        for row in arm_rows(study, cell):
            lines.append("  " + "  ".join([f"{row['Arm']:<42}", *list(row.values())[2:]]))
    return "\n".join(lines)
