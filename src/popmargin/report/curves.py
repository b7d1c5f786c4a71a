"""Charts of training and calibration: what changed step by step, in panels on shared scales."""

import math
from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup

from popmargin.report.metrics import LOG_RATIO, is_known, metric
from popmargin.report.plots import Style, arm_styles, short_names, shown
from popmargin.report.results import ArmResult, StudyResults
from popmargin.report.svg import Scale, band, el, path, picture, span, x_axis, y_axis
from popmargin.statistics.intervals import Interval

CURVES = ("accuracy", "win_rate_reference", "kl_per_token")  # and the log-ratios that are no KL
PANEL_WIDTH, PANEL_HEIGHT = 270.0, 206.0


def _rows(rows: Iterable[Sequence[float]], size: int) -> list[list[float]]:
    """Rows with a finite step and value, padded with nan to ``size``."""
    padded = [[*map(float, row), *([math.nan] * size)][:size] for row in rows]
    return [row for row in padded if math.isfinite(row[0]) and math.isfinite(row[1])]


def curve_names(study: StudyResults) -> list[str]:
    """The metrics that are drawn over training."""
    others = {name for arm in study.arms for name in arm.curves if name.startswith(LOG_RATIO)}
    return [*CURVES, *sorted(others)]


def curve(study: StudyResults, key: str) -> Markup:
    """One held-out metric over training, all arms; intervals of the last step stand at the right."""
    entry = metric(key)
    drawn = [(style, rows) for arm, style in zip(study.arms, arm_styles(study), strict=True)
             if len(rows := _rows(arm.curves.get(key, ()), 4)) > 1]  # fmt: skip
    if not drawn:
        return Markup("")
    width, height, left, top, bottom = 360.0, 262.0, 44.0, 30.0, 222.0
    lane = min(9.0, 66.0 / len(drawn))
    right = width - 12 - lane * len(drawn)
    few = len(drawn) <= 3
    values = [value for _, rows in drawn for row in rows for value in (row[1:] if few or row is rows[-1] else row[1:2])]
    y = span(values, floor=0 if entry.is_share or key == "kl_per_token" else None, cap=1 if entry.is_share else None)
    y = y.on(bottom, top)
    x = span((row[0] for _, rows in drawn for row in rows), pad=0).on(left, right)
    body = [*y_axis(y, left, right, share=entry.is_share), *x_axis(x, top, bottom, count=4, grid=False)]
    if key == "win_rate_reference" and y.low < 0.5 < y.high:
        body.append(el("line", x1=left, x2=right, y1=y(0.5), y2=y(0.5), class_="level"))
    for style, rows in drawn:
        if few:
            body.append(band([(row[0], row[2], row[3]) for row in rows], x, y, class_=f"area {style.colour}"))
        points = [(row[0], row[1]) for row in rows]
        body.append(path(points, x, y, class_=f"line {style.colour}", stroke_dasharray=style.dash))
    for position, (style, rows) in enumerate(drawn):
        at, last = right + 8 + lane * (position + 0.5), rows[-1]
        if math.isfinite(last[2]) and math.isfinite(last[3]):
            body.append(el("line", x1=at, x2=at, y1=y(last[2]), y2=y(last[3]), class_=f"bar {style.colour}"))
        hint = f"{style.label} at step {last[0]:g}: {shown(key, Interval(*last[1:4]))}"
        body.append(style.mark(at, y(last[1]), min(4.0, lane * 0.55), hint))
    unit = "" if entry.is_share or not entry.unit else f", {entry.unit}"
    body.append(el("text", f"{entry.title}{unit}", x=0, y=13, class_="panel-title"))
    body.append(el("text", "optimizer step", x=(left + right) / 2, y=height - 4, class_="tick mid"))
    body.append(el("text", "at the end", x=width, y=bottom + 17, class_="tick end"))
    listing = "; ".join(f"{style.label} ends at {shown(key, Interval(*rows[-1][1:4]))}" for style, rows in drawn)
    return picture(width, height, f"{entry.title} over training. {listing}.", body)


Draw = Callable[[ArmResult, Style, list[Markup]], Markup]


def _panels(study: StudyResults, draw: Draw, width: float = PANEL_WIDTH) -> list[Markup]:
    """One panel an arm, where ``draw`` (given arm, style and title) makes one."""
    styles = arm_styles(study)
    names = short_names(styles, (width - 26) / 1.14, 12.5)
    drawn: list[Markup] = []
    for arm, style, name in zip(study.arms, styles, names, strict=True):
        title = [style.mark(7, 10, 5), el("text", name, x=20, y=14.5, class_="panel-title")]
        drawn.append(draw(arm, style, title))
    return [panel for panel in drawn if panel]


def target_margins(study: StudyResults) -> list[Markup]:
    """Target margin (mean ± std) and clipped share over training, for the arms whose target is not constant 0."""
    means = {arm.name: _rows(arm.training.get("target_margin_mean", ()), 2) for arm in study.arms}
    used = {name: rows for name, rows in means.items() if len(rows) > 1 and any(row[1] for row in rows)}
    stds = {arm.name: {row[0]: row[1] for row in _rows(arm.training.get("target_margin_std", ()), 2)}
            for arm in study.arms}  # fmt: skip
    bands = {name: [(step, mean - stds[name].get(step, math.nan), mean + stds[name].get(step, math.nan))
                    for step, mean in rows] for name, rows in used.items()}  # fmt: skip
    values = [v for rows in used.values() for row in rows for v in row[1:]]
    values += [v for rows in bands.values() for row in rows for v in row[1:]]
    y = span([0.0, *values]).on(126, 28)
    x = span((row[0] for rows in used.values() for row in rows), pad=0).on(38, PANEL_WIDTH - 8)

    def draw(arm: ArmResult, style: Style, title: list[Markup]) -> Markup:
        rows = used.get(arm.name)
        if not rows:
            return Markup("")
        body = [*title, *y_axis(y, x.start, x.end, count=3)]
        body.append(band(bands[arm.name], x, y, class_=f"area {style.colour}"))
        body.append(path([(row[0], row[1]) for row in rows], x, y, class_=f"line {style.colour}"))
        clipped = _rows(arm.training.get("target_margin_clipped", ()), 2)
        strip = Scale(0, 1, 182, 148)
        body.append(el("text", "clipped", x=x.start + 2, y=143, class_="tick"))
        for share in (0.0, 1.0):
            body.append(el("line", x1=x.start, x2=x.end, y1=strip(share), y2=strip(share), class_="grid"))
            body.append(el("text", f"{share:.0%}", x=x.start - 6, y=strip(share) + 4, class_="tick end"))
        body.append(band([(row[0], 0.0, row[1]) for row in clipped], x, strip, class_=f"area {style.colour}"))
        body.append(path([(row[0], row[1]) for row in clipped], x, strip, class_=f"line thin {style.colour}"))
        body += x_axis(x, 182, 182, count=4, grid=False)
        end = f", clipped share {clipped[-1][1]:.0%}" if clipped else ""
        label = f"Target margin of {style.label} over training: from {rows[0][1]:.2f} to {rows[-1][1]:.2f}{end}."
        return picture(PANEL_WIDTH, PANEL_HEIGHT, label, body)

    return _panels(study, draw)


def tau_histograms(study: StudyResults) -> list[Markup]:
    """Shares of training preferences by their scale τ, over the last tenth of what was logged; one panel an arm."""
    names = sorted({key for arm in study.arms for key in arm.training if key.startswith("tau_bin_")})
    x, y = Scale(0, max(len(names), 1), 38, PANEL_WIDTH - 8), Scale(0, 1, 126, 28)

    def draw(arm: ArmResult, style: Style, title: list[Markup]) -> Markup:
        series = [_rows(arm.training.get(name, ()), 2) for name in names]
        if not series or not all(series):
            return Markup("")
        lasts = [rows[-max(1, len(rows) // 10) :] for rows in series]
        shares = [sum(row[1] for row in rows) / len(rows) for rows in lasts]
        body = [*title, *y_axis(y, x.start, x.end, share=True, count=4)]
        for place, share in enumerate(shares):
            hint = el("title", f"bin {place + 1} of {len(shares)}: {share:.0%}")
            body.append(el("rect", hint, x=x(place) + 1.5, y=y(share), width=x(1) - x(0) - 3, height=y(0) - y(share),
                           class_=f"dot {style.colour}"))  # fmt: skip
        body.append(el("text", "τ₀", x=x.start, y=143, class_="tick"))
        body.append(el("text", "τ max", x=x.end, y=143, class_="tick end"))
        label = (
            f"Scales of {style.label} at the end: {shares[0]:.0%} in the lowest bin, {shares[-1]:.0%} in the highest."
        )
        return picture(PANEL_WIDTH, 148, label, body)

    return _panels(study, draw)


def log_ratios(study: StudyResults) -> list[Markup]:
    """Mean log-ratio of chosen and rejected responses over training (nats), one panel an arm on one scale."""
    keys = ("chosen_logratio", "rejected_logratio")
    lines = {arm.name: [_rows(arm.training.get(key, ()), 2) for key in keys] for arm in study.arms}
    lines = {name: pair for name, pair in lines.items() if all(len(rows) > 1 for rows in pair)}
    y = span([0.0, *(row[1] for pair in lines.values() for rows in pair for row in rows)]).on(170, 28)
    x = span((row[0] for pair in lines.values() for rows in pair for row in rows), pad=0).on(38, PANEL_WIDTH - 58)

    def draw(arm: ArmResult, style: Style, title: list[Markup]) -> Markup:
        if arm.name not in lines:
            return Markup("")
        chosen, rejected = lines[arm.name]
        lower = {row[0]: row[1] for row in rejected}
        body = [*title, *y_axis(y, x.start, x.end)]
        between = [(step, lower.get(step, math.nan), value) for step, value in chosen]
        body.append(band(between, x, y, class_=f"area {style.colour}"))
        body.append(el("line", x1=x.start, x2=x.end, y1=y(0), y2=y(0), class_="zero"))
        body.append(path([(row[0], row[1]) for row in chosen], x, y, class_=f"line {style.colour}"))
        body.append(path([(row[0], row[1]) for row in rejected], x, y, class_=f"line {style.colour}",
                         stroke_dasharray="4 3"))  # fmt: skip
        up, down = y(chosen[-1][1]), y(rejected[-1][1])
        middle, apart = (up + down) / 2, max(abs(up - down), 14) / 2
        sign = 1 if up <= down else -1
        for text, at in (("chosen", middle - sign * apart), ("rejected", middle + sign * apart)):
            body.append(el("text", text, x=x.end + 5, y=min(max(at, 34), 168) + 4, class_="name"))
        body += x_axis(x, 170, 170, count=4, grid=False)
        label = (f"Log-ratios of {style.label} over training: chosen ends at {chosen[-1][1]:.2f}, rejected at "
                 f"{rejected[-1][1]:.2f} nats.")  # fmt: skip
        return picture(PANEL_WIDTH, 194, label, body)

    return _panels(study, draw)


# --- calibration ----------------------------------------------------------------------------------------------------


def _is_filled(one: dict[str, float]) -> bool:
    numbers = (one.get(key) for key in ("count", "predicted", "observed"))
    return all(value is not None and math.isfinite(value) for value in numbers) and one["count"] > 0


def reliability(study: StudyResults) -> list[Markup]:
    """Predicted probability against observed share, one panel an arm; the marks' area is the number of preferences."""
    bins = {arm.name: [one for one in arm.reliability if _is_filled(one)] for arm in study.arms}
    low = min((min(b["predicted"], b["observed"]) for rows in bins.values() for b in rows), default=0.0)
    start = max(0.0, math.floor((low - 0.02) * 10) / 10)
    x, y = Scale(start, 1, 42, 222), Scale(start, 1, 202, 28)

    def draw(arm: ArmResult, style: Style, title: list[Markup]) -> Markup:
        rows = sorted(bins[arm.name], key=lambda one: one["predicted"])
        if not rows:
            return Markup("")
        body = [*title, *y_axis(y, x.start, x.end, share=True, count=4)]
        body += x_axis(x, y.end, y.start, share=True, count=4)
        body.append(el("line", x1=x(start), y1=y(start), x2=x(1), y2=y(1), class_="base"))
        points = [(b["predicted"], b["observed"]) for b in rows]
        body.append(path(points, x, y, class_=f"line thin {style.colour}", stroke_dasharray=None))
        most = max(b["count"] for b in rows)
        for b in rows:
            hint = f"{b['predicted']:.0%} sure, {b['observed']:.0%} right, {b['count']:g} preferences"
            dot = el("circle", el("title", hint), cx=x(b["predicted"]), cy=y(b["observed"]),
                     r=2 + 5 * math.sqrt(b["count"] / most), class_="dot")  # fmt: skip
            body.append(el("g", dot, class_=style.colour))
        ece = f"ECE {shown('ece', arm.metrics.get('ece'))}" if is_known(arm.metrics.get("ece")) else "ECE –"
        body.append(el("text", ece, x=x.end - 4, y=y.start - 8, class_="tick end halo"))
        body.append(el("text", "↑ right", x=x.start + 4, y=y.end + 12, class_="tick halo"))
        body.append(el("text", "how sure →", x=x.end, y=236, class_="tick end"))
        return picture(PANEL_WIDTH - 38, 240, f"Reliability of {style.label}: {ece}, {len(rows)} bins.", body)

    return _panels(study, draw, PANEL_WIDTH - 38)
