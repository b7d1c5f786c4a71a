"""The chart of a budget study: accuracy against the annotator's minutes, a panel for each budget."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from popmargin.report.budget_results import BudgetResults, Cell
from popmargin.report.metrics import has_bounds, is_known, number
from popmargin.report.plots import COLOURS, WIDER, Style, ends
from popmargin.report.svg import SHAPES, Plot, Scale, span

FRONTIER = ("more", "votes", "grade", "ratings", "chain_control", "chain_rank", "chain_scale", "chain_pop")
"""The arms of the chart; the table has all."""
_APART = 4.0  # px between the marks of two arms with the same minutes


def frontier_styles(study: BudgetResults) -> list[Style]:
    """How the arms of the chart look; new preferences are grey."""
    shapes = list(SHAPES)
    known = [name for name in FRONTIER if any(name in cell.arms for cell in study.cells)]
    return [
        Style(name, study.label(name), f"s{place % COLOURS}", shapes[place % len(shapes)], False, None)
        for place, name in enumerate(known)
    ]


def frontier(study: BudgetResults, width: float = WIDER) -> Markup:
    """Accuracy against minutes, a line for each arm, a panel for each budget; nothing more is the dotted line.

    Args:
        study: the results.
        width: of the picture; panels are below each other where it is narrow.
    """
    styles = frontier_styles(study)
    budgets = list(dict.fromkeys(cell.budget for cell in study.cells))
    values = [one.accuracy for cell in study.cells for name, one in cell.arms.items()
              if name in (*(style.name for style in styles), "base")]  # fmt: skip
    times = [one.minutes for cell in study.cells for one in cell.arms.values() if one.minutes > 0]
    if not values or not times:
        return Markup("")
    columns = len(budgets) if width > 500 else 1
    panel = width / columns
    height = min(380.0, 0.95 * panel + 40)
    y = span((end for value in values if is_known(value) for end in ends(value)), pad=0.05, floor=0, cap=1)
    x = span([math.log10(time) for time in times], pad=0.06)
    whole = Plot(Scale(0, 1, 0, 1), Scale(0, 1, 0, 1))
    said: list[str] = []
    for place, budget in enumerate(budgets):
        left, top = place % columns * panel, place // columns * height
        plot = Plot(x.on(left + 48, left + panel - 14), y.on(top + height - 44, top + 40), whole.body)
        plot.text(f"{budget:g} times the first labels' minutes, again", plot.x.start, top + 14, "panel-title")
        plot.y_axis(share=True)
        for time in round_times(times):
            plot.upright(math.log10(time), "grid")
            plot.text(f"{time:g}", plot.x(math.log10(time)), plot.y.start + 17, "tick mid")
        plot.text("annotator's minutes →", plot.x.end, plot.y.start + 34, "axis-title end")
        cells = [cell for cell in study.cells if cell.budget == budget]
        _line_of_base(plot, cells)
        for turn, style in enumerate(styles):
            said += _line(plot, style, cells, _APART * (turn - (len(styles) - 1) / 2))
    total = height * math.ceil(len(budgets) / columns)
    return whole.picture(width, total, f"Accuracy against the annotator's minutes. {'; '.join(said)}.")


def _line_of_base(plot: Plot, cells: Sequence[Cell]) -> None:
    """What the first labels alone give, at their own minutes."""
    points = [(math.log10(cell.arms["base"].minutes), cell.arms["base"].accuracy.estimate) for cell in cells]
    plot.line(points, "base")


def _line(plot: Plot, style: Style, cells: Sequence[Cell], shift: float) -> list[str]:
    points = [(cell.size, one.minutes, one.accuracy) for cell in cells if (one := cell.arms.get(style.name))]
    plot.line([(math.log10(time), value.estimate) for _, time, value in points], f"line thin {style.colour}")
    said: list[str] = []
    for size, time, value in points:
        at = plot.x(math.log10(time)) + shift
        if has_bounds(value):
            plot.segment((at, at), (plot.y(value.low), plot.y(value.high)), f"bar soft {style.colour}")
        words = f"{style.label}, {size} preferences, {time:.0f} minutes: {number(value.estimate, 1, share=True)}"
        plot.body.append(style.mark(at, plot.y(value.estimate), 4.2, words))
        said.append(words)
    return said


def round_times(times: Sequence[float]) -> list[float]:
    """Round numbers of minutes inside the range: 1, 3, 10, 30 …

    Example:
        >>> round_times([8.0, 400.0])
        [10, 30, 100, 300]
    """
    low, high = min(times), max(times)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10**power for power in powers for step in (1, 3) if low <= step * 10**power <= high]
