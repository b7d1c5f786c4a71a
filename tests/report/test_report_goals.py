"""The plot of reward by goal: only where a run was asked for several, with flat lines for arms without goals."""

import re
from dataclasses import replace

from popmargin.report import StudyResults, render_report
from popmargin.report.goal_plot import arms_without_goals, reward_by_goal

GOALS = [[1.0, 0.1, 0.0, 0.2], [4.0, 0.2, 0.1, 0.3], [10.0, 0.4, 0.3, 0.5]]


def swept(study: StudyResults, arms: int = 4) -> StudyResults:
    """The first arm without goals, the second with them, the others without a reward."""
    first, second, *rest = study.arms[:arms]
    others = [replace(arm, metrics={"accuracy": arm.metrics["accuracy"]}) for arm in rest]
    return replace(study, arms=[first, replace(second, goals=GOALS), *others])


def test_no_sweep_no_section(study: StudyResults) -> None:
    assert not reward_by_goal(study)
    assert 'id="goals"' not in render_report(study) and "#goals" not in render_report(study)


def test_a_line_with_intervals_for_each_arm(study: StudyResults) -> None:
    """Three marks and bars for the arm with goals, one of each for the arm without; higher rewards stand higher."""
    some = swept(study)
    picture = str(reward_by_goal(some))
    assert [style.label for style, _ in arms_without_goals(some)] == ["DPO"]
    assert picture.count("goal 1: 0.10 (0.00 to 0.20)") == 1 and "goal 10: 0.40" in picture
    assert len(re.findall(r'class="bar s1"', picture)) == 3 and len(re.findall(r'class="bar s0"', picture)) == 1
    heights = [float(y) for y in re.findall(r'<g class="s1"><polygon points="[\d.]+,([\d.]+)', picture)]
    assert len(heights) == 3 and heights == sorted(heights, reverse=True)
    assert "DPO, asked for no goal: 0.48" in picture and 'class="level"' in picture
    page = render_report(some)
    assert 'href="#goals"' in page and "arms whose prompts ask for no goal (DPO)" in page
    assert StudyResults.from_json(some.to_json()).arms[1].goals == GOALS
