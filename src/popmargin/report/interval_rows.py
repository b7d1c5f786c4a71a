"""Chart of one panel for each metric, and in it one row for each arm: its estimate and its interval."""

from collections.abc import Sequence

from markupsafe import Markup

from popmargin.report.metrics import is_known, metric
from popmargin.report.plots import WIDER, arm_styles, draw_dots, ends, short_names, shown
from popmargin.report.results import StudyResults
from popmargin.report.svg import Plot, Scale, span, text_width


def interval_rows(study: StudyResults, keys: Sequence[str], width: float = WIDER) -> Markup:
    """Estimates and intervals of all arms in some metrics, each on a scale of its own; the dotted line is the baseline.

    Args:
        study: its arms.
        keys: the metrics.
        width: of the picture; panels are below each other where it is narrow.
    """
    styles, wide = arm_styles(study), width > 500
    room = min(max(text_width(style.label, 12) for style in styles) + 10, width * (0.26 if wide else 0.36))
    row, gap, columns = (26.0, 24.0, len(keys)) if wide else (22.0, 0.0, 1)
    step, panel = 76 + row * len(styles), (width - room - 14 - gap * (columns - 1)) / columns
    base = next((arm.metrics for arm in study.arms if arm.name == study.baseline), {})
    whole = Plot(Scale(0, 1, 0, 1), Scale(0, 1, 0, 1))
    said: list[str] = []
    for place, key in enumerate(keys):
        entry, values = metric(key), [arm.metrics.get(key) for arm in study.arms]
        scale = span((end for value in values if value is not None and is_known(value) for end in ends(value)),
                     pad=0.04, floor=0, cap=1)  # fmt: skip
        left, top = room + place % columns * (panel + gap), place // columns * step + 40
        plot = Plot(scale.on(left, left + panel), Scale(0, 1, top + row * len(styles), top - 4), whole.body)
        plot.text(entry.title, left, top - 26, "panel-title")
        plot.x_axis(share=entry.is_share, count=4)
        if is_known(base.get(key)):
            plot.upright(base[key].estimate, "base")
        told = [f"{style.label} {shown(key, value)}" for style, value in zip(styles, values, strict=True)]
        dots = [(style, value, f"{entry.title}: {text}")
                for style, value, text in zip(styles, values, told, strict=True)]  # fmt: skip
        draw_dots(plot, dots, top, row, short_names(styles, room - 10, 12) if left == room else ())
        said.append(f"{entry.title}: {', '.join(told)}.")
    height = step * (len(keys) // columns) - 10
    return whole.picture(width, height, f"Dot plot of recommenders. {' '.join(said)}")
