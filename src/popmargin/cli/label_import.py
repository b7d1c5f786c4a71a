"""popmargin label import: make a project of preferences, or append rows to one."""

import argparse
import shlex
from typing import Any

from popmargin.cli.change_store import change_store
from popmargin.cli.data_options import SOURCE_HELP, add_data_arguments, load_unlabelled
from popmargin.cli.project_options import add_project_arguments, load_new_data, project_settings
from popmargin.cli.store_options import NEW_PROJECT, add_store_arguments
from popmargin.errors import ConfigError
from popmargin.label.store.address import in_words


def add_parser(verbs: Any) -> None:
    """Add `label import` to the command line."""
    parser = verbs.add_parser("import")
    parser.add_argument("data", help=f"preferences: {SOURCE_HELP}")
    add_store_arguments(parser)
    add_project_arguments(parser)
    add_data_arguments(parser, rated=True)
    parser.add_argument(
        "--append",
        action="store_true",
        help="add the rows that the project does not have, also while people label; changed rows are refused, or with "
        "--bad-rows drop left out",
    )
    parser.set_defaults(func=_import)


def _import(args: argparse.Namespace) -> int:
    settings = project_settings(args)
    if args.append:
        return _append(args, settings)
    data = load_new_data(args, settings)
    with change_store(args.db, create=True) as store:
        from popmargin.label.projects.open_project import open_project

        project = open_project(store, data, args.project or NEW_PROJECT, **settings)
    where = f"--db {in_words(args.db)} --project {shlex.quote(project.name)}"
    print(f"next: popmargin label annotators add NAME {where}")
    return 0


def _append(args: argparse.Namespace, settings: dict[str, Any]) -> int:
    for option in ("edges", "gold", "rank"):
        if settings.pop(option) is not None:
            raise ConfigError(f"--{option} chooses the items of a new project. Omit it, or import without --append.")
    with change_store(args.db) as store:
        from popmargin.label.projects.append import append_rows

        project = store.project(args.project)
        pairs = "best_vs_rest" if project.scale is not None else "best_vs_worst"
        data = load_unlabelled(args, args.data, rated_pairs=pairs)
        append_rows(store, project, data, drop_changed=args.bad_rows == "drop", **settings)
    return 0
