"""popmargin label backup: a copy of a label store in use."""

import argparse
from pathlib import Path
from typing import Any

from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.cli.store_options import add_store_arguments
from popmargin.errors import counted
from popmargin.label.store.address import refuse_missing


def add_parser(subparsers: Any) -> None:
    """Add `label backup` to the command line."""
    parser = subparsers.add_parser("backup")
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write")
    add_store_arguments(parser, project=False)
    add_overwrite(parser)
    parser.set_defaults(func=_backup)


def _backup(args: argparse.Namespace) -> int:
    from popmargin.label.store.backup import back_up

    refuse_missing(args.db)
    check_outputs(args, {"OUT": args.out}, (), [args.db.removeprefix("sqlite:///")])
    projects, labels = back_up(args.db, args.out)
    revisions = counted(labels, "revision of labels", "revisions of labels")
    print(f"wrote {args.out}: {counted(projects, 'project')}, {revisions}")
    return 0
