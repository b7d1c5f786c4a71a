"""popmargin label report: how good the labels of a project are, as one HTML page."""

import argparse
from pathlib import Path
from typing import Any

from popmargin.cli.store_options import add_store_arguments
from popmargin.label.edges import open_store


def add_parser(subparsers: Any) -> None:
    """Add `label report` to the command line."""
    parser = subparsers.add_parser("report", help="agreement, annotators, judges and time as one HTML page")
    add_store_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write")
    parser.set_defaults(func=_report)


def _report(args: argparse.Namespace) -> int:
    from popmargin.label.quality import label_quality
    from popmargin.label.report import reading, write_label_report
    from popmargin.label.sources.base import store_strengths

    with open_store(args.db) as store:
        project = store.project(args.project)
        quality = label_quality(store.labels(project.id), store_strengths(store, project.id))
    write_label_report(quality, args.out, project.name)
    print("\n".join(reading(quality)))
    print(f"wrote {args.out}")
    return 0
