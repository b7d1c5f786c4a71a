"""One self-contained HTML report that compares training objectives."""

from popmargin.report.render import render_report, write_report
from popmargin.report.results import ArmResult, StudyResults

__all__ = ["ArmResult", "StudyResults", "render_report", "write_report"]
