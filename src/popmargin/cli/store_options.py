"""Flags of verbs that work on a label store."""

import argparse

NEW_PROJECT = "default"
"""The project created when none is named."""


def add_store_arguments(parser: argparse.ArgumentParser, *, project: bool = True) -> None:
    """Add --db and --project."""
    parser.add_argument(
        "--db", default="labels.db", metavar="URL", help="file, or postgresql:// (default: %(default)s)"
    )
    if project:
        parser.add_argument("--project", help="name of the project (default: the only one)")
