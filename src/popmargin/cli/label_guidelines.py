"""popmargin label guidelines: show a project's guidelines, or change them while people label."""

import argparse
from pathlib import Path
from typing import Any

from popmargin.cli.change_store import change_store
from popmargin.cli.store_options import add_store_arguments, user
from popmargin.errors import DataError
from popmargin.safe_reading import read_text


def add_parser(subparsers: Any) -> None:
    """Add `label guidelines` to the command line."""
    parser = subparsers.add_parser("guidelines")
    add_store_arguments(parser)
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--set", dest="file", type=Path, metavar="FILE", help="Markdown file with the new guidelines")
    text.add_argument("--version", type=int, metavar="N", help="show an earlier version")
    parser.set_defaults(func=_guidelines)


def read_guidelines(path: Path) -> str:
    """The text of a file of guidelines.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return read_text(path, DataError)
    except (OSError, DataError) as error:
        raise DataError(f"{path}: guidelines cannot be read ({error}). Give a UTF-8 Markdown file.") from error


def _guidelines(args: argparse.Namespace) -> int:
    text = None if args.file is None else read_guidelines(args.file)
    with change_store(args.db) as store:
        project = store.project(args.project)
        if text is None:
            if args.version is not None:
                print(store.guidelines(project.id, args.version))
                return 0
            print(project.guidelines or f"project '{project.name}' has no guidelines")
            return 0
        changed = store.set_guidelines(project.id, text, who=user())
    if changed.guidelines_version == project.guidelines_version:
        print(f"project '{project.name}' has these guidelines already")
    else:
        version = f"version {changed.guidelines_version} of the guidelines"
        print(f"project '{project.name}': {version}; people acknowledge it before their next task")
    return 0
