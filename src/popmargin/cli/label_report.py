"""popmargin label report: how good the labels of one or several projects are, as one HTML page."""

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from popmargin.cli.store_options import add_store_arguments
from popmargin.label.edges import is_store, open_store


def add_parser(subparsers: Any) -> None:
    """Add `label report` to the command line."""
    parser = subparsers.add_parser("report", help="agreement, annotators, judges and time as one HTML page")
    add_store_arguments(parser)
    parser.add_argument(
        "--with",
        dest="others",
        nargs="+",
        default=[],
        metavar="PROJECT",
        help="more projects of the same preferences, such as one of ratings: NAME, or STORE#NAME of another store",
    )
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON instead of sentences")
    parser.set_defaults(func=_report)


def _report(args: argparse.Namespace) -> int:
    from popmargin.label.quality import label_quality, together
    from popmargin.label.rated import strengths_of
    from popmargin.label.report import quality_json, reading, write_label_report
    from popmargin.label.sources.base import store_strengths

    names: list[str] = []
    tables: list[Any] = []
    of_data: dict[str, float] = {}
    of_people: dict[str, float] = {}
    with ExitStack() as opened:
        store = opened.enter_context(open_store(args.db))
        for source in (None, *args.others):
            named, place = source, store
            if source is not None and is_store(source):
                url, _, named = source.partition("#")
                place = opened.enter_context(open_store(url))
            project = place.project(args.project if source is None else named or None)
            labels = place.labels(project.id)
            names.append(project.name)
            tables.append(labels)
            of_data |= store_strengths(place, project.id)
            of_people |= strengths_of(labels, place.preference_columns(project.id))
    quality = label_quality(together(tables), of_people or of_data, rated_by_people=bool(of_people))
    write_label_report(quality, args.out, " and ".join(names))
    if args.json:
        print(json.dumps(quality_json(quality), ensure_ascii=False, indent=2))
    else:
        print("\n".join([*reading(quality), f"wrote {args.out}"]))
    return 0
