"""The report of recommenders: the verdict first, then how well they rank, what they recommend and what they cost."""

import math
from pathlib import Path

from popmargin.files import HTML
from popmargin.report.discoveries import differences, discovery_note, seeds_tell
from popmargin.report.interval_rows import interval_rows
from popmargin.report.metrics import DASH, Metric, is_ranking, metric
from popmargin.report.plots import NARROW, WIDER, arm_mark, arm_styles
from popmargin.report.render import TEMPLATES, label_of, render_page
from popmargin.report.results import ArmResult, StudyResults, write_text
from popmargin.report.tables import Cell, account_rows, cell, duration, megabytes, summary_rows, visible_text

_RANKS = ("recall", "ndcg")
_SHOWN = ("coverage", "popularity", "gini")


def ranking_columns(study: StudyResults, names: tuple[str, ...] = _RANKS) -> list[Metric]:
    """The metrics of these names that any arm has, each at all its cutoffs."""
    keys = dict.fromkeys(key for arm in study.arms for key in arm.metrics if is_ranking(key))
    ordered = sorted(keys, key=lambda key: int(key.partition("@")[2]))
    return [metric(key) for name in names for key in ordered if key.startswith(f"{name}@")]


def cost_rows(study: StudyResults) -> list[tuple[ArmResult, dict[str, str]]]:
    """What every arm cost, as text by column."""

    def row(arm: ArmResult) -> dict[str, str]:
        cost = arm.overhead
        cpu = cost.get("fit_cpu_seconds", math.nan) + cost.get("rank_cpu_seconds", math.nan)
        peak, start = (cost.get(name, math.nan) for name in ("peak_memory_mb", "start_memory_mb"))
        made = cost.get("vector_seconds", 0.0)
        return {
            "Fit": _seconds(cost.get("fit_seconds", math.nan)),
            "Vectors": _seconds(made) if made else DASH,
            "Rank": _seconds(cost.get("rank_seconds", math.nan)),
            "Processor time": _seconds(cpu),
            "Peak memory": megabytes(peak),
            "Above the start": megabytes(peak - start),
        }

    return [(arm, row(arm)) for arm in study.arms]


def render_recommendation(study: StudyResults) -> str:
    """The page as HTML; the same study gives the same bytes.

    Args:
        study: arms with metrics such as `recall@10`.
    """
    columns, shown = ranking_columns(study), ranking_columns(study, _SHOWN)
    styles = arm_styles(study)
    base = next((arm for arm in study.arms if arm.name == study.baseline), None)
    one_seed = [arm.label for arm in study.arms if base is not None and arm is not base and not seeds_tell(arm, base)]
    pictured = [entry.key for entry in columns if entry.key.endswith(f"@{_pictured(columns)}")]
    return render_page(
        TEMPLATES / "recommendation.html.j2",
        study=study,
        styles={style.name: style for style in styles},
        mark_of=arm_mark,
        verdict=study.reading[0] if study.reading else "",
        opening=_opening(study),
        reading=study.reading[1:],
        baseline=label_of(study, study.baseline),
        columns=columns,
        rows=summary_rows(study, columns),
        figures=[interval_rows(study, pictured, width) for width in (WIDER, NARROW)] if pictured else [],
        pictured=" and ".join(metric(key).title for key in pictured),
        shown=shown,
        shown_rows=[(arm, _plain_cells(arm, shown)) for arm in study.arms],
        costs=cost_rows(study),
        account=account_rows(study),
        discoveries=discovery_note(differences(study.arms, study.baseline)),
        one_seed=one_seed,
        definitions=[*columns, *shown],
        text=visible_text,
    )


def write_recommendation_report(study: StudyResults, path: str | Path) -> Path:
    """Write the HTML file, and return its path."""
    write_text(path, render_recommendation(study), HTML)
    return Path(path)


def _seconds(seconds: float) -> str:
    """As `duration`; some baselines take milliseconds."""
    return f"{1000 * seconds:.2g} ms" if seconds < 0.095 else duration(seconds)


def _pictured(columns: list[Metric]) -> int:
    """The cutoff of the figure: 10, or the largest."""
    cutoffs = {int(entry.key.partition("@")[2]) for entry in columns}
    return 10 if 10 in cutoffs else max(cutoffs, default=0)


def _plain_cells(arm: ArmResult, entries: list[Metric]) -> list[Cell]:
    return [cell(arm.metrics.get(entry.key), None, entry, 1 if entry.is_share else 2) for entry in entries]


def _opening(study: StudyResults) -> str:
    count = len(study.arms)
    if not count:
        return "This comparison has no finished arm, so there is nothing to compare yet."
    measured = study.data.get("Measured on", "")
    ways = "One recommender is" if count == 1 else f"{count} recommenders are"
    users = f"the same users ({measured})" if measured else "the same users"
    return f"{ways} fitted on the same training sequences and rank the whole catalogue for {users}."


def text_table(study: StudyResults) -> str:
    """The numbers for a terminal: one block of lines for each group of columns, arms below each other."""
    columns, shown = ranking_columns(study), ranking_columns(study, _SHOWN)
    ranks = [[one for one in columns if one.key.startswith(f"{name}@")] for name in _RANKS]
    rows = {arm.name: cells for arm, cells in summary_rows(study, columns)}
    blocks: list[list[list[str]]] = []
    for group in ranks:
        places = [columns.index(entry) for entry in group]
        lines = [[_label(arm), *(_in_line(rows[arm.name][place]) for place in places)] for arm in study.arms]
        blocks.append([["", *(entry.title for entry in group)], *lines])
    blocks.append(
        [["", *(entry.title for entry in shown)]]
        + [[_label(arm), *(one.estimate for one in _plain_cells(arm, shown))] for arm in study.arms]
    )
    costs = cost_rows(study)
    if any(text != DASH for _, row in costs for text in row.values()):
        blocks.append([["", *costs[0][1]]] + [[_label(arm), *row.values()] for arm, row in costs])
    widest = [max(len(row[0]) for block in blocks for row in block)]
    return "\n\n".join(_aligned(block, widest) for block in blocks if len(block[0]) > 1)


def _label(arm: ArmResult) -> str:
    return visible_text(arm.label or arm.name)


def _in_line(one: Cell) -> str:
    """A cell in one line: estimate, interval, and the sign of a clear difference from the baseline."""
    return " ".join(part for part in (one.estimate, one.interval, one.symbol) if part)


def _aligned(rows: list[list[str]], first: list[int]) -> str:
    widths = [*first, *(max(len(row[place]) for row in rows) for place in range(1, len(rows[0])))]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join("  ".join(line) for line in lines)
