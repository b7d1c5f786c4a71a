"""popmargin data export: responses as other tools' files of answers."""

import argparse
from pathlib import Path
from typing import Any

from popmargin.cli.data_options import SOURCE_HELP, SPLIT_HELP, column
from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.data.answer_files import ANSWER_FILES, answer_rows, save_answers
from popmargin.data.responses import Responses
from popmargin.errors import counted


def add_parser(verbs: Any) -> None:
    """Add `data export` to the command line."""
    parser = verbs.add_parser(
        "export",
        help="write responses as another tool's answers: alpaca_eval, Arena-Hard, MT-Bench",
        description="Write responses, as `generate` made them from a benchmark's questions, as the file of answers "
        "that the benchmark judges.",
    )
    parser.add_argument("source", metavar="RESPONSES", help=SOURCE_HELP)
    parser.add_argument("--as", dest="layout", choices=tuple(ANSWER_FILES), required=True, help="whose file")
    parser.add_argument("--name", required=True, help="the model's name in the tool's tables")
    parser.add_argument("--best", metavar="SCORE", help="of several responses to a prompt, the one with the most of it")
    parser.add_argument("--out", type=Path, required=True, help="file to write: .json for alpaca_eval, else .jsonl")
    add_overwrite(parser)
    parser.add_argument("--split", help=SPLIT_HELP)
    parser.add_argument(
        "--column", action="append", default=[], type=column, metavar="FIELD=COLUMN", help="e.g. prompt=instruction"
    )
    parser.set_defaults(func=_export)


def _export(args: argparse.Namespace) -> int:
    check_outputs(args, {"--out": args.out}, (ANSWER_FILES[args.layout].suffix,), [args.source])
    responses = Responses.load(args.source, split=args.split, columns=dict(args.column))
    count = len(responses.texts)
    if args.best is not None:
        responses = responses.best(args.best)
    rows = answer_rows(responses, args.layout, args.name)
    save_answers(rows, args.layout, args.out)
    written = len(responses.texts)
    reasons = f" (not the best by {args.best}: {count - written})" if written < count else ""
    print(f"{counted(count, 'response')} in = {written} written + {count - written} left out{reasons}")
    print(f"wrote {counted(len(rows), 'answer')} of {args.name} to {args.out}")
    return 0
