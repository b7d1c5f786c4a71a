"""popmargin label report: how good the labels of one or several projects are, as one HTML page."""

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popmargin.bounds import RightShare
from popmargin.cli.numbers import number
from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.cli.store_options import add_store_arguments
from popmargin.files import HTML
from popmargin.label.store.address import is_store, open_store

if TYPE_CHECKING:
    from popmargin.label.store.label_store import LabelStore
    from popmargin.label.store.records import Project


def add_parser(subparsers: Any) -> None:
    """Add `label report` to the command line."""
    parser = subparsers.add_parser("report")
    add_store_arguments(parser)
    parser.add_argument(
        "--with",
        dest="others",
        nargs="+",
        default=[],
        metavar="PROJECT",
        help="other projects on the same preferences, such as one with ratings: NAME, or STORE#NAME for another store",
    )
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="NAME",
        help="annotators without whose labels agreement is given too, as without those that were discarded",
    )
    parser.add_argument(
        "--target",
        type=number(RightShare),
        default=0.9,
        help="rank correlation of the scale with the true strengths that is good enough (default: 0.9)",
    )
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write")
    add_overwrite(parser)
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON instead of sentences")
    parser.set_defaults(func=_report)


def _report(args: argparse.Namespace) -> int:
    from popmargin.label.quality.projects_quality import projects_quality
    from popmargin.label.quality.report_page import quality_json, reading, write_label_report

    check_outputs(args, {"--out": args.out}, HTML)
    projects: list[tuple[LabelStore, Project]] = []
    with ExitStack() as opened:
        store = opened.enter_context(open_store(args.db))
        for source in (None, *args.others):
            named, place = source, store
            if source is not None and is_store(source):
                url, _, named = source.partition("#")
                place = opened.enter_context(open_store(url))
            projects.append((place, place.project(args.project if source is None else named or None)))
        quality, shared = projects_quality(projects, without=args.without, target=args.target)
    write_label_report(quality, args.out, " and ".join(project.name for _, project in projects))
    if shared:
        print(shared, file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(quality_json(quality), ensure_ascii=False, indent=2))
    else:
        print("\n".join([*reading(quality), f"wrote {args.out}"]))
    return 0
