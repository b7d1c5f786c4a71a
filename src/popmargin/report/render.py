"""Render a study as one self-contained HTML file: no script, no font, no network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from popmargin.files import HTML
from popmargin.report import cost_plot, curves, goal_plot, pictures, plots, tables
from popmargin.report.discoveries import differences, discovery_note, seeds_tell
from popmargin.report.metrics import is_known, metric
from popmargin.report.results import ArmResult, StudyResults, write_text

TEMPLATES = Path(__file__).parent / "templates"
COST = 420.0  # px


def render_report(results: StudyResults) -> str:
    """A study as a complete HTML document; the same study gives the same bytes.

    Args:
        results: the measurements. Missing ones are shown as an en dash, or their section says why it is empty.

    Returns:
        HTML with inline CSS and SVG.

    Example:
        >>> page = render_report(StudyResults("A study", [], {}, baseline="dpo"))
        >>> page.startswith("<!doctype html>")
        True
    """
    return render_page(TEMPLATES / "report.html.j2", **_context(results))


def render_page(template: Path, **context: Any) -> str:
    """A template with its context and the reports' style sheet, as `css`."""
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    css = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    return environment.get_template(template.name).render(css=css, **context)


def write_report(results: StudyResults, path: str | Path) -> Path:
    """Write the HTML file.

    Args:
        results: the study.
        path: file to write; its folder is created if missing.

    Returns:
        The path that was written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_report(StudyResults("A study", [], {}, baseline="dpo"), Path(folder) / "report.html")
        ...     "A study" in page.read_text(encoding="utf-8")
        True
    """
    write_text(path, render_report(results), HTML)
    return Path(path)


def _context(study: StudyResults) -> dict[str, Any]:
    columns = tables.summary_columns(study)
    styles = plots.arm_styles(study)
    key = plots.tradeoff_axis(study)
    others = tables.other_metrics(study)
    blocks, left_out = ([], 0) if study.responses == "images" else tables.sample_blocks(study)
    shown, not_shown = pictures.picture_rows(study)
    return {
        "study": study,
        "styles": {style.name: style for style in styles},
        "key_of": plots.legend_mark,
        "mark_of": plots.arm_mark,
        "lead": lead(study),
        "baseline": label_of(study, study.baseline),
        "columns": columns,
        "rows": tables.summary_rows(study, columns),
        "reference": tables.reference_row(study, columns),
        "others": others,
        "discoveries": discovery_note(differences(study.arms, study.baseline)),
        "one_seed": _of_one_seed(study),
        "tradeoff": [plots.tradeoff(study, width) for width in (plots.WIDE, plots.NARROW)],
        "tradeoff_metric": metric(key) if key else None,
        "not_placed": _without(study, ["accuracy", *([key] if key else [])]),
        "costs": [cost_plot.reward_against(study, key, COST) for key in cost_plot.cost_keys(study)],
        "cost_styles": cost_plot.placed(study) if len(study.arms) > cost_plot.NAMED else [],
        "costs_not_placed": _without(study, [cost_plot.REWARD, *cost_plot.cost_keys(study)]),
        "reward": study.reward.replace("_", " ") or "reward",
        "buckets": [plots.buckets(study, width) for width in (plots.WIDER, plots.NARROW)],
        "curves": [figure for name in curves.curve_names(study) if (figure := curves.curve(study, name))],
        "goals": [figure for width in (plots.WIDE, plots.NARROW) if (figure := goal_plot.reward_by_goal(study, width))],
        "goal_styles": goal_plot.goal_styles(study),
        "without_goals": [style.label for style, _ in goal_plot.arms_without_goals(study)],
        "target_margins": curves.target_margins(study),
        "tau_histograms": curves.tau_histograms(study),
        "log_ratios": curves.log_ratios(study),
        "reliability": curves.reliability(study),
        "overhead": tables.overhead_rows(study),
        "account": tables.account_rows(study),
        "samples": blocks,
        "samples_left_out": left_out,
        "pictures": shown,
        "pictures_left_out": not_shown,
        "reduced": pictures.LARGEST if pictures.any_reduced(study) else 0,
        "definitions": [*columns, *(entry for entry, _ in others if entry.meaning)],
        "text": tables.visible_text,
    }


def label_of(study: StudyResults, name: str) -> str:
    """An arm's label; its name if the study has no such arm."""
    return next((arm.label for arm in study.arms if arm.name == name and arm.label), name)


def lead(study: StudyResults) -> list[str]:
    """Two or three sentences on what was compared and how to read the numbers."""
    count = len(study.arms)
    if not count:
        return ["This study has no finished arm, so there is nothing to compare yet."]
    opening = (
        f"{'One way' if count == 1 else f'{count} ways'} of training on the same preferences, from the same "
        f"reference policy{_seeds(study.arms)}, {'is' if count == 1 else 'are'} evaluated on held-out prompts: by "
        "which of two given responses the policy prefers, and by what it generates."
    )
    if count == 1:
        return [opening]
    return [
        opening,
        (
            f"Every arm is compared with {label_of(study, study.baseline)}; a difference is called better or worse "
            "only if its 95% interval excludes zero and includes the spread over training seeds."
        ),
    ]


def _of_one_seed(study: StudyResults) -> list[str]:
    """Arms whose difference from the baseline is between one run of each."""
    base = next((arm for arm in study.arms if arm.name == study.baseline), None)
    if base is None:
        return []
    return [arm.label or arm.name for arm in study.arms if arm is not base and not seeds_tell(arm, base)]


def _seeds(arms: Sequence[ArmResult]) -> str:
    counts = sorted({len(arm.seeds) for arm in arms})
    if counts == [1]:
        return " with one seed"
    return f" with {counts[0]} seeds each" if len(counts) == 1 else f" with {counts[0]} to {counts[-1]} seeds"


def _without(study: StudyResults, keys: Sequence[str]) -> list[str]:
    return [arm.label or arm.name for arm in study.arms if not all(is_known(arm.metrics.get(key)) for key in keys)]
