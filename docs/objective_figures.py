"""Figures of the objectives' pages: loss and gradient against the reward margin, as SVG files that stand alone."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from markupsafe import Markup

from popmargin.margin import Margin
from popmargin.objectives.base import Logps, Objective, Rows
from popmargin.objectives.rows import COLUMN_KINDS
from popmargin.report.svg import Plot, Scale, el, span, svg_file, text_width

WIDTH, HEIGHT, TOP, BOTTOM = 720.0, 296.0, 30.0, 222.0
PANELS = (("loss", 52.0, 344.0), ("pull: −∂ loss / ∂ reward margin", 416.0, 708.0))
STYLES = (("s1", None), ("s5", "7 3"), ("s3", "2 3"), ("s2", "7 3 2 3"))
POINTS = 161


def figure(objective: Objective) -> str:
    """The SVG file of an objective."""
    drawn = objective.figure
    curves = [_curve(objective, value) for value in drawn.values or (None,)]
    steps = np.linspace(-drawn.reach, drawn.reach, POINTS).tolist()
    body: list[Markup] = []
    for place, (title, left, right) in enumerate(PANELS):
        y = span([*(value for curve in curves for value in curve[place]), 0.0]).on(BOTTOM, TOP)
        plot = Plot(Scale(-drawn.reach, drawn.reach, left, right), y, body)
        plot.text(title, left, 16, "panel-title")
        plot.y_axis()
        plot.x_axis(grid=False)
        plot.upright(0, "zero")
        plot.across(0, "zero")
        plot.text("reward margin", (left + right) / 2, BOTTOM + 34, "tick mid")
        for curve, (colour, dash) in zip(curves, STYLES, strict=False):
            plot.line(zip(steps, curve[place], strict=True), f"line {colour}", dash)
    body += _legend([f"{drawn.vary} = {value:g}" if isinstance(value, float) else f"{drawn.vary} = {value}"
                     for value in drawn.values])  # fmt: skip
    varied = f", one curve for each {drawn.vary}" if drawn.vary else ""
    label = f"Loss and gradient of {objective.name} against the reward margin{varied}."
    return svg_file(WIDTH, HEIGHT, label, body)


def _curve(objective: Objective, value: Any) -> tuple[list[float], list[float]]:
    """Losses and pulls (their negative gradients) at reward margins from −reach to reach."""
    drawn = objective.figure
    own = {field.name for field in fields(objective.options)}
    rows, options, state = dict(drawn.rows), dict(drawn.options), dict(drawn.state)
    if drawn.vary:
        (options if drawn.vary in own else rows if drawn.vary in _ROWS else state)[drawn.vary] = value
    made = objective.make_options(options)
    beta = float(getattr(made, "beta", 1.0))
    margins = torch.linspace(-drawn.reach, drawn.reach, POINTS, dtype=torch.float64, requires_grad=True)
    loss = objective.function(_rows(margins / beta, drawn.score, rows, state), made)
    (gradient,) = torch.autograd.grad(loss.sum(), margins)
    values, pulls = loss.tolist(), (-gradient).tolist()
    if not all(map(math.isfinite, values + pulls)):
        raise ValueError(f"The figure of '{objective.name}' is not finite everywhere: lower figure.reach.")
    return values, pulls


_ROWS = {*(field.name for field in fields(Rows)), *COLUMN_KINDS}


def _rows(gap: torch.Tensor, score: float, values: Mapping[str, float], state: Mapping[str, float]) -> Rows:
    """Rows of these gaps; everything else is the same in all of them."""

    def same(name: str, default: float = 0.0) -> torch.Tensor:
        return torch.full_like(gap, values.get(name, default)).detach()

    chosen, rejected = score + gap / 2, score - gap / 2
    return Rows(
        chosen=chosen,
        rejected=rejected,
        has_weaker=same("has_weaker").bool(),
        weaker_chosen=same("weaker_chosen"),
        weaker_rejected=same("weaker_rejected"),
        target=Margin(values=same("target"), unit="nats"),
        columns={"margin": same("margin"), "soft_label": same("soft_label", 1.0), "scale": same("scale")},
        stronger_share=same("stronger_share", 1.0),
        weaker_share=same("weaker_share"),
        logps=Logps(
            chosen=chosen,
            rejected=rejected,
            chosen_reference=torch.zeros_like(gap),
            rejected_reference=torch.zeros_like(gap),
            chosen_tokens=same("chosen_tokens", 1.0),
            rejected_tokens=same("rejected_tokens", 1.0),
        ),
        state={name: torch.tensor(entry, dtype=torch.float64) for name, entry in state.items()},
    )


def _legend(labels: list[str]) -> list[Markup]:
    body: list[Markup] = []
    at = PANELS[0][1]
    for label, (colour, dash) in zip(labels, STYLES, strict=False):
        body.append(el("line", x1=at, x2=at + 28, y1=HEIGHT - 14, y2=HEIGHT - 14, class_=f"line {colour}",
                       stroke_dasharray=dash))  # fmt: skip
        body.append(el("text", label.replace("-", "−"), x=at + 36, y=HEIGHT - 10))
        at += 36 + text_width(label) + 24
    return body
