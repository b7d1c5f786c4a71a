"""What the reward costs: the reward of every arm against a further one, such as the fidelity of its pictures."""

from markupsafe import Markup

from popmargin.report.discoveries import further_metrics
from popmargin.report.metrics import is_known, metric
from popmargin.report.plots import Style, arm_styles, crosses, ends, shown
from popmargin.report.results import StudyResults
from popmargin.report.svg import Plot, span

REWARD = "mean_reward"
NAMED = 8
"""With more arms their names are in a legend, not beside their marks."""


def cost_keys(study: StudyResults) -> list[str]:
    """The further rewards that at least one arm has together with the reward."""
    return [key for key in further_metrics(study.arms) if placed(study, key)]


def placed(study: StudyResults, *keys: str) -> list[Style]:
    """The styles of the arms that have the reward and some further ones."""
    return [
        style
        for arm, style in zip(study.arms, arm_styles(study), strict=True)
        if all(is_known(arm.metrics.get(key)) for key in (REWARD, *keys))
    ]


def reward_against(study: StudyResults, key: str, width: float) -> Markup:
    """The reward (across) and a further reward (up) of every arm with their intervals, and lines at the reference.

    Args:
        study: the results.
        key: the metric of the further reward.
        width: of the picture, px.
    """
    metrics = {arm.name: arm.metrics for arm in study.arms}
    arms = [(style, metrics[style.name][REWARD], metrics[style.name][key]) for style in placed(study, key)]
    starts = {name: study.reference[name].estimate for name in (REWARD, key) if is_known(study.reference.get(name))}
    title, reward = metric(key).title, f"Mean {study.reward.replace('_', ' ') or 'reward'}"
    height = (0.8 if width > 300 else 1.0) * width
    x = span([*(end for _, across, _ in arms for end in ends(across)), *([starts[REWARD]] if REWARD in starts else [])],
             pad=0.08)  # fmt: skip
    y = span([*(end for _, _, up in arms for end in ends(up)), *([starts[key]] if key in starts else [])], pad=0.08)
    plot = Plot(x.on(46, width - 10), y.on(height - 42, 28))
    plot.y_axis()
    plot.x_axis(count=4)
    if REWARD in starts:
        plot.upright(starts[REWARD], "level")
    if key in starts:
        plot.across(starts[key], "level")
    said = [f"{style.label}: {shown(REWARD, across)} and {shown(key, up)}" for style, across, up in arms]
    crosses(plot, arms, said, width, named=len(arms) <= NAMED)
    plot.text(f"↑ {title}", 0, 14, "axis-title")
    plot.text(f"{reward} →", plot.x.end, height - 6, "axis-title end")
    return plot.picture(width, height, f"Scatter plot of {reward.lower()} and {title.lower()}. {'; '.join(said)}.")
