"""The report of a budget study: what to take, the frontier, every arm, and what the study could see."""

import re
from pathlib import Path

from popmargin.files import HTML
from popmargin.report.budget_plot import frontier, frontier_styles
from popmargin.report.budget_results import Advice, BudgetResults, Cell
from popmargin.report.metrics import DASH, has_bounds, is_known, number
from popmargin.report.plots import NARROW, WIDER, legend_mark
from popmargin.report.render import TEMPLATES, render_page
from popmargin.report.results import write_text
from popmargin.report.tables import visible_text
from popmargin.statistics.intervals import Interval

_INTERVAL = re.compile(r"\[([^,\[\]]+), ([^,\[\]]+)\]")


def render_budget(study: BudgetResults) -> str:
    """The page as HTML; the same study gives the same bytes."""
    budgets = list(dict.fromkeys(cell.budget for cell in study.cells))
    return render_page(
        TEMPLATES / "budget.html.j2",
        study=study,
        opening=_opening(study),
        advice=advice_rows(study),
        figures=[frontier(study, width) for width in (WIDER, NARROW)],
        styles=frontier_styles(study),
        key_of=legend_mark,
        tables=[(budget, *_gains(study, budget)) for budget in budgets],
        controls=_controls(study),
        power=power_rows(study),
        left_out=_left_out(study),
        prices=[(name, f"{seconds:.1f} s") for name, seconds in study.prices.items()],
        points=points,
        text=unbroken,
    )


def unbroken(value: object) -> str:
    """Text for the page, in which no line breaks inside an interval.

    Example:
        >>> unbroken("+3.7 [+2.1, +5.4], 1 more") == "+3.7 [+2.1,\u00a0+5.4], 1 more"
        True
    """
    return _INTERVAL.sub("[\\1,\u00a0\\2]", visible_text(value))


def write_budget_report(study: BudgetResults, path: str | Path) -> Path:
    """Write the HTML file, and return its path."""
    write_text(path, render_budget(study), HTML)
    return Path(path)


def points(value: Interval | None) -> str:
    """A difference in points with its interval."""
    if value is None or not is_known(value):
        return DASH
    text = number(100 * value.estimate, 1, sign=True)
    if not has_bounds(value):
        return text
    return f"{text} [{number(100 * value.low, 1, sign=True)}, {number(100 * value.high, 1, sign=True)}]"


def share(value: Interval) -> str:
    ends = f" [{100 * value.low:.1f}, {100 * value.high:.1f}]" if has_bounds(value) else ""
    return number(value.estimate, 1, share=True) + ends


def _opening(study: BudgetResults) -> str:
    arms = sum(not kind.control for kind in study.kinds)
    when = (
        "This is a rehearsal: the held-out groups were left alone."
        if study.held_out_used is None
        else f"The held-out groups were first used on {study.held_out_used}."
    )
    return (
        f"A simulated annotator with the strengths of real people labels preferences; {arms} ways of spending the same "
        f"minutes are compared, each {study.draws} times with other preferences, labels, comparisons and noise. "
        f"Rewards are fitted on features that stay as they are, and measured on {study.preferences:,} held-out "
        f"preferences of {study.clusters} clusters. {when}"
    )


def advice_rows(study: BudgetResults) -> list[dict[str, str]]:
    """What to take, a row for each size and budget, as text by column."""

    def row(cell: Cell) -> dict[str, str]:
        return {
            "First labels": str(cell.size),
            "Minutes": f"{cell.minutes / (1 + cell.budget):.0f} + {cell.minutes * cell.budget / (1 + cell.budget):.0f}",
            "Accuracy": share(cell.arms["base"].accuracy),
            "Take": _said(study, cell, cell.advice),
            "Without new preferences": _said(study, cell, cell.advice_old),
        }

    return [row(cell) for cell in study.cells]


def _said(study: BudgetResults, cell: Cell, advice: Advice) -> str:
    gain = points(cell.arms[advice.take].gain)
    others = [study.label(name) for name in advice.ties if name != advice.take]
    first = study.label(advice.take) + (f" {gain}" if advice.take != "base" else ": no gain was found")
    if not others:
        return first
    best = "" if advice.best == advice.take else (
        f"; highest: {study.label(advice.best)} {points(cell.arms[advice.best].gain)}"
    )  # fmt: skip
    return f"{first}{best}; not told apart: {len(others)} more"


def _gains(study: BudgetResults, budget: float) -> tuple[list[int], list[tuple[str, list[str]]]]:
    """Sizes, and for each arm that learns its gains over nothing more."""
    cells = [cell for cell in study.cells if cell.budget == budget]
    rows: list[tuple[str, list[str]]] = []
    for kind in study.kinds:
        if kind.control or kind.name == "base" or not any(kind.name in cell.arms for cell in cells):
            continue
        found = [cell.arms.get(kind.name) for cell in cells]
        rows.append((kind.label, [DASH if one is None else points(one.gain) for one in found]))
    return [cell.size for cell in cells], rows


def _controls(study: BudgetResults) -> list[tuple[str, list[str]]]:
    """Accuracy of what learns nothing, and of the first labels, by size."""
    cells = [cell for cell in study.cells if cell.budget == study.cells[0].budget]
    names = ["base", *(kind.name for kind in study.kinds if kind.control)]
    return [
        (study.label(name), [share(cell.arms[name].accuracy) if name in cell.arms else DASH for cell in cells])
        for name in names
    ]


def power_rows(study: BudgetResults) -> list[dict[str, str]]:
    """The main comparisons and their power, as text by column."""
    return [
        {
            "First labels": str(cell.size),
            "Budget": f"{cell.budget:g}",
            "Arm": study.label(one.name),
            "Against": study.label(one.against),
            "Difference": points(one.difference),
            f"Power for {100 * study.difference:g} points": f"{one.power:.0%}",
            "Found in 80% of studies": f"{100 * one.detectable:.1f}",
        }
        for cell in study.cells
        for one in cell.main
    ]


def _left_out(study: BudgetResults) -> list[str]:
    said: dict[str, list[str]] = {}
    for cell in study.cells:
        for name, reason in cell.left_out.items():
            said.setdefault(f"{study.label(name)}: {reason}", []).append(f"{cell.size} × {cell.budget:g}")
    return [f"{reason} ({', '.join(where)})" for reason, where in said.items()]


def budget_table(study: BudgetResults) -> str:
    """What to take, for a terminal: a block of lines for each size and budget."""
    lines: list[str] = []
    for row in advice_rows(study):
        lines += [
            f"{row['First labels']} preferences, {row['Minutes']} minutes: {row['Accuracy']} with nothing more",
            f"  take {row['Take']}",
            f"  without new preferences: {row['Without new preferences']}",
        ]
    return "\n".join(lines)
