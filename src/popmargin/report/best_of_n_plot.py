"""The charts of a best-of-n study: gold reward against divergence, and against accuracy, a panel for each size."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from popmargin.report.best_of_n_results import BestOfNResults, ChoiceCell
from popmargin.report.metrics import has_bounds, is_known, number
from popmargin.report.plots import COLOURS, WIDER, Style, crosses, ends
from popmargin.report.svg import SHAPES, Plot, Scale, span
from popmargin.statistics.intervals import Interval

CURVES = ("base", "more", "ratings", "chain_control", "chain_pop", "chain_rank", "chain_scale", "coin", "length")
"""The arms of the charts; the tables have all. The gold reward itself is the dashed line."""

BANDS = ("base", "more", "coin")
"""The arms whose bands are drawn: those of all arms overlap, since all choose among the same samples."""
_APART = 4.0  # px between the marks of two arms at the same n


def choice_styles(study: BestOfNResults) -> list[Style]:
    """How the arms of the charts look; the first labels alone are grey, arms that learn nothing are hollow."""
    shapes = list(SHAPES)
    arms = study.cells[0].arms
    known = [name for name in CURVES if any(name in cell.arms for cell in study.cells)]
    return [
        Style(name, arms[name].label if name in arms else name, f"s{place % COLOURS}", shapes[place % len(shapes)],
              name in arms and arms[name].control, "2 3" if name in arms and arms[name].control else None)
        for place, name in enumerate(known)
    ]  # fmt: skip


def curves(study: BestOfNResults, width: float = WIDER) -> Markup:
    """Gold reward of the best of n against the divergence from the policy, a line with its band for each arm."""
    styles = choice_styles(study)
    shown = [style.name for style in styles]
    values = [value for cell in study.cells for name, arm in cell.arms.items() if name in shown for value in arm.curve]
    highest = [arm.curve[-1].estimate for cell in study.cells for arm in cell.arms.values()]
    y = span([*(end for value in values for end in ends(value)), *highest], pad=0.05)
    whole, said = Plot(Scale(0, 1, 0, 1), Scale(0, 1, 0, 1)), list[str]()
    columns, panel, height = _panels(len(study.cells), width)
    for place, cell in enumerate(study.cells):
        left, top = place % columns * panel, place // columns * height
        x = span(study.divergences, pad=0.04)
        plot = Plot(x.on(left + 48, left + panel - 14), y.on(top + height - 60, top + 40), whole.body)
        plot.text(f"{cell.size} first labels", plot.x.start, top + 14, "panel-title")
        plot.y_axis()
        _axis_of_n(plot, study)
        plot.text("n, and the divergence (nats) →", plot.x.end, plot.y.start + 50, "axis-title end")
        plot.line(zip(study.divergences, [one.estimate for one in cell.arms["gold"].curve], strict=True), "base")
        plot.text("chosen by the gold reward", plot.x.start + 8, plot.y.end + 12, "tick halo")
        for style in styles:
            said += _curve(plot, style, cell, study)
    total = height * math.ceil(len(study.cells) / columns)
    return whole.picture(width, total, f"Gold reward of the best of n against the divergence. {'; '.join(said)}.")


def _panels(count: int, width: float) -> tuple[int, float, float]:
    """Columns, and the width and height of a panel."""
    columns = min(count, 2) if width > 500 else 1
    panel = width / columns
    return columns, panel, min(430.0, 0.9 * panel + 60)


def _axis_of_n(plot: Plot, study: BestOfNResults) -> None:
    for n, divergence in zip(study.ns, study.divergences, strict=True):
        plot.upright(divergence, "grid")
        plot.text(f"{n}", plot.x(divergence), plot.y.start + 16, "tick mid")
        if n == 1 or n > 2:
            plot.text(f"{divergence:.1f}", plot.x(divergence), plot.y.start + 31, "tick mid")


def _curve(plot: Plot, style: Style, cell: ChoiceCell, study: BestOfNResults) -> list[str]:
    arm = cell.arms.get(style.name)
    if arm is None:
        return []
    points = list(zip(study.divergences, arm.curve, strict=True))
    if style.name in BANDS and has_bounds(arm.curve[-1]):
        plot.band([(x, value.low, value.high) for x, value in points], f"area {style.colour}")
    plot.line([(x, value.estimate) for x, value in points], f"line {style.colour}", style.dash)
    for n, (x, value) in zip(study.ns, points, strict=True):
        plot.body.append(
            style.mark(plot.x(x), plot.y(value.estimate), 3.6, f"{style.label}, best of {n}: {_gold(value.estimate)}")
        )
    return [f"{style.label}, {cell.size} first labels: {_gold(arm.curve[-1].estimate)} at n = {study.ns[-1]}"]


def _gold(value: float) -> str:
    return number(value, 3, sign=True)


def above_first_labels(study: BestOfNResults, width: float = WIDER) -> Markup:
    """Gold reward of the best of n above that of the first labels alone, paired, with the intervals."""
    styles = [style for style in choice_styles(study) if style.name != "base"]
    found = [
        {one.name: one.curve for one in cell.differences if one.against == "base"} for cell in study.cells
    ]  # fmt: skip
    styles = [style for style in styles if any(style.name in curves for curves in found)]
    if not styles:
        return Markup("")
    y = span([0.0, *(end for curves in found for style in styles for value in curves.get(style.name, ())
                     for end in ends(value))], pad=0.06)  # fmt: skip
    x = span(study.divergences, pad=0.06)
    whole, said = Plot(Scale(0, 1, 0, 1), Scale(0, 1, 0, 1)), list[str]()
    columns, panel, height = _panels(len(study.cells), width)
    for place, (cell, differences) in enumerate(zip(study.cells, found, strict=True)):
        left, top = place % columns * panel, place // columns * height
        plot = Plot(x.on(left + 48, left + panel - 14), y.on(top + height - 60, top + 40), whole.body)
        plot.text(f"{cell.size} first labels", plot.x.start, top + 14, "panel-title")
        plot.y_axis()
        _axis_of_n(plot, study)
        plot.text("n, and the divergence (nats) →", plot.x.end, plot.y.start + 50, "axis-title end")
        plot.across(0.0, "zero")
        for turn, style in enumerate(styles):
            shift = _APART * (turn - (len(styles) - 1) / 2)
            for divergence, value in zip(study.divergences[1:], differences.get(style.name, [])[1:], strict=False):
                at = plot.x(divergence) + shift
                if has_bounds(value):
                    plot.segment((at, at), (plot.y(value.low), plot.y(value.high)), f"bar soft {style.colour}")
                plot.body.append(style.mark(at, plot.y(value.estimate), 4.2, f"{style.label}: {_gold(value.estimate)}"))
            if style.name in differences:
                said.append(f"{style.label}, {cell.size} first labels: {_gold(differences[style.name][-1].estimate)}")
    total = height * math.ceil(len(study.cells) / columns)
    return whole.picture(width, total, f"Gold reward above that of the first labels alone. {'; '.join(said)}.")


def accuracy_against_gold(study: BestOfNResults, width: float = WIDER) -> Markup:
    """Gold reward of the choice at the largest n against accuracy on pairs, a mark with both intervals for each arm."""
    styles = choice_styles(study)
    found = [
        [(style, cell.arms[style.name].accuracy, cell.arms[style.name].curve[-1]) for style in styles
         if style.name in cell.arms and is_known(cell.arms[style.name].accuracy)]
        for cell in study.cells
    ]  # fmt: skip
    x = span((end for arms in found for _, across, _ in arms for end in ends(across)), pad=0.06, floor=0, cap=1)
    y = span((end for arms in found for _, _, up in arms for end in ends(up)), pad=0.06)
    whole, said = Plot(Scale(0, 1, 0, 1), Scale(0, 1, 0, 1)), list[str]()
    columns, panel, height = _panels(len(study.cells), width)
    for place, (cell, arms) in enumerate(zip(study.cells, found, strict=True)):
        left, top = place % columns * panel, place // columns * height
        plot = Plot(x.on(left + 48, left + panel - 14), y.on(top + height - 44, top + 40), whole.body)
        plot.text(f"{cell.size} first labels", plot.x.start, top + 14, "panel-title")
        plot.y_axis()
        plot.x_axis(share=True, count=4)
        plot.text("accuracy on pairs of samples →", plot.x.end, plot.y.start + 34, "axis-title end")
        hints = _hints(arms, study.ns[-1])
        crosses(plot, arms, hints, panel, named=False)
        said += [f"{cell.size} first labels, {hint}" for hint in hints]
    total = height * math.ceil(len(study.cells) / columns)
    return whole.picture(width, total, f"Gold reward of the choice against accuracy. {'; '.join(said)}.")


def _hints(arms: Sequence[tuple[Style, Interval, Interval]], n: int) -> list[str]:
    return [
        f"{style.label}: accuracy {number(across.estimate, 1, share=True)}, best of {n} {_gold(up.estimate)}"
        for style, across, up in arms
    ]
