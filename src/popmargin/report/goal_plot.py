"""The chart of a sweep over goals: gold reward against the goal that the prompts asked for."""

from markupsafe import Markup

from popmargin.report.metrics import has_bounds, is_known
from popmargin.report.plots import WIDE, Style, arm_styles, ends, shown
from popmargin.report.results import StudyResults
from popmargin.report.svg import Plot, span
from popmargin.statistics.intervals import Interval

_KEY = "mean_reward"
_APART = 0.012  # of the range of goals, between the marks of two arms at one goal
_LANE = 11.0  # px for each arm without goals, at the right


def reward_by_goal(study: StudyResults, width: float = WIDE) -> Markup:
    """Mean reward at each goal with intervals, a line for each arm; arms without goals are flat lines.

    Args:
        study: the results; nothing is drawn if no arm was asked for several goals.
        width: of the picture, px.
    """
    swept, flat = _swept(study), arms_without_goals(study)
    if not swept:
        return Markup("")
    start = study.reference.get(_KEY)
    levels = [start.estimate] if start is not None and is_known(start) else []
    goals = sorted({goal for _, points in swept for goal, _ in points})
    drawn = [value for _, points in swept for _, value in points] + [value for _, value in flat]
    height = (0.5 if width > 500 else 0.9) * width
    x, y = span(goals, pad=0.06), span([*levels, *(end for value in drawn for end in ends(value))])
    plot = Plot(x.on(48, width - 10 - _LANE * len(flat)), y.on(height - 42, 28))
    plot.y_axis()
    for goal in goals:
        plot.upright(goal, "grid")
        plot.text(f"{goal:g}", plot.x(goal), plot.y.start + 17, "tick mid")
    for level in levels:
        plot.across(level, "level")
    for place, (style, value) in enumerate(flat, 1):
        plot.across(value.estimate, f"line thin {style.colour}")
        _mark(plot, style, plot.x.end + _LANE * place, value, "asked for no goal")
    apart = _APART * (goals[-1] - goals[0])
    for place, (style, points) in enumerate(swept):
        shift = apart * (place - (len(swept) - 1) / 2)
        plot.line([(goal + shift, value.estimate) for goal, value in points], f"line {style.colour}", style.dash)
        for goal, value in points:
            _mark(plot, style, plot.x(goal + shift), value, f"goal {goal:g}")
    plot.text("↑ Mean reward", 0, 14, "axis-title")
    plot.text("Goal that the prompt asks for →", plot.x.end, height - 6, "axis-title end")
    said = [
        f"{style.label}: " + ", ".join(f"{shown(_KEY, value)} at goal {goal:g}" for goal, value in points)
        for style, points in swept
    ] + [f"{style.label}, asked for no goal: {shown(_KEY, value)}" for style, value in flat]
    return plot.picture(width, height, f"Mean reward by goal. {'; '.join(said)}.")


def goal_styles(study: StudyResults) -> list[Style]:
    """The arms of the chart, for its legend."""
    return [style for style, _ in (*_swept(study), *arms_without_goals(study))]


def arms_without_goals(study: StudyResults) -> list[tuple[Style, Interval]]:
    """Arms that were not asked for several goals, with their reward."""
    return [
        (style, arm.metrics[_KEY])
        for arm, style in zip(study.arms, arm_styles(study), strict=True)
        if not arm.goals and is_known(arm.metrics.get(_KEY))
    ]


def _swept(study: StudyResults) -> list[tuple[Style, list[tuple[float, Interval]]]]:
    return [
        (style, [(row[0], Interval(*row[1:4])) for row in arm.goals])
        for arm, style in zip(study.arms, arm_styles(study), strict=True)
        if arm.goals
    ]


def _mark(plot: Plot, style: Style, x: float, value: Interval, when: str) -> None:
    if has_bounds(value):
        plot.segment((x, x), (plot.y(value.low), plot.y(value.high)), f"bar {style.colour}")
    plot.body.append(style.mark(x, plot.y(value.estimate), 4.4, f"{style.label}, {when}: {shown(_KEY, value)}"))
