"""popmargin label import-labels: labels that people gave in other tools, into a project."""

import argparse
from pathlib import Path
from typing import Any

from popmargin.cli.change_store import change_store
from popmargin.cli.data_options import column
from popmargin.cli.store_options import add_store_arguments
from popmargin.errors import ConfigError

FORMATS = ("argilla", "label-studio", "potato", "csv", "jsonl")
_BY_SUFFIX = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".parquet": "jsonl"}


def add_parser(subparsers: Any) -> None:
    """Add `label import-labels` to the command line."""
    parser = subparsers.add_parser("import-labels")
    parser.add_argument("labels", type=Path, help="the file; of Potato also its folder of annotations")
    add_store_arguments(parser)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="whose export it is; csv and jsonl have one label a row, as `label export --as labels` writes them "
        "(default: by file name, csv or jsonl)",
    )
    parser.add_argument(
        "--kind", choices=("pop", "preference", "rating", "rank"), help="of the items (default: the only one)"
    )
    parser.add_argument("--question", metavar="NAME", help="the question to import, if there are several")
    parser.add_argument("--annotator", metavar="NAME", help="who gave labels of which the file does not say it")
    parser.add_argument(
        "--name", action="append", default=[], type=column, metavar="THEIRS=OURS", help="rename an annotator"
    )
    parser.add_argument(
        "--answer",
        action="append",
        default=[],
        type=column,
        metavar="WORD=VERDICT",
        help="what a word means: first, second, tie, unsure, or a rating",
    )
    parser.add_argument(
        "--column", action="append", default=[], type=column, metavar="FIELD=COLUMN", help="which column holds a field"
    )
    parser.set_defaults(func=_import)


def _import(args: argparse.Namespace) -> int:
    format = args.format or _BY_SUFFIX.get(args.labels.suffix.lower())
    if format is None:
        raise ConfigError(
            f"{args.labels}: this name does not say whose export it is. Choose --format {', '.join(FORMATS)}."
        )
    with change_store(args.db) as store:
        from popmargin.label.outside.import_labels import import_labels, told

        imported = import_labels(
            store,
            store.project(args.project),
            args.labels,
            format=format,
            kind=args.kind,
            question=args.question,
            annotator=args.annotator,
            names=dict(args.name),
            answers=dict(args.answer),
            named=dict(args.column),
        )
    print("\n".join(told(imported)))
    known = sum(one.reason == "already there" for one in imported.left_out)
    return 0 if imported.annotators or known or not imported.left_out else 1
