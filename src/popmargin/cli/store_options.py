"""Flags of verbs that work on a label store."""

import argparse
import getpass

NEW_PROJECT = "default"
"""The project created when none is named."""


def add_store_arguments(parser: argparse.ArgumentParser, *, project: bool = True) -> None:
    """Add --db and --project."""
    parser.add_argument(
        "--db", default="labels.db", metavar="URL", help="file, or postgresql:// (default: %(default)s)"
    )
    if project:
        parser.add_argument("--project", help="name of the project (default: the only one)")


def user() -> str:
    """Who runs the command, for the log of a project; empty if the system has no name for them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # which of them depends on the version of Python
        return ""
