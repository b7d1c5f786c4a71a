"""popmargin label report: how good the labels of a project are, as one HTML page."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add `label report` to the command line."""
    parser = subparsers.add_parser("report", help="agreement, annotators, judges and time as one HTML page")
    parser.add_argument(
        "--db", default="labels.db", metavar="URL", help="file, or postgresql:// (default: %(default)s)"
    )
    parser.add_argument("--project", help="name of the project (default: the only one)")
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write")
    parser.set_defaults(func=_report)


def _report(args: argparse.Namespace) -> int:
    from popmargin.errors import ConfigError
    from popmargin.label.quality import label_quality
    from popmargin.label.report import reading, write_label_report
    from popmargin.label.sources.base import store_strengths
    from popmargin.label.store import LabelStore

    with LabelStore.open(args.db) as store:
        projects = store.projects()
        if args.project is None and len(projects) != 1:
            names = ", ".join(project.name for project in projects) or "none"
            raise ConfigError(f"{args.db} holds {len(projects)} projects ({names}); name one with --project.")
        project = projects[0] if args.project is None else store.project(args.project)
        quality = label_quality(store.labels(project.id), store_strengths(store, project.id))
    write_label_report(quality, args.out, project.name)
    print("\n".join(reading(quality)))
    print(f"wrote {args.out}")
    return 0
