"""popmargin label assign: give items to a person, who gets them first, or alone; move them, or take them back."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from popmargin.cli.data_options import column
from popmargin.cli.store_options import add_store_arguments
from popmargin.errors import DataError, counted, did_you_mean
from popmargin.label.store.address import open_store


def add_parser(verbs: Any) -> None:
    """Add `label assign` to the command line."""
    parser = verbs.add_parser("assign")
    parser.add_argument("name", metavar="NAME", help="the annotator who gets them")
    add_store_arguments(parser)
    parser.add_argument(
        "--items", nargs="+", default=[], metavar="ID", help="items about one of these preferences (default: all)"
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        type=column,
        metavar="COLUMN=VALUE",
        help="items whose preferences have this value; may be repeated",
    )
    parser.add_argument("--share", type=float, help="a share of them, drawn among those that nobody was given")
    parser.add_argument("--exclusive", action="store_true", help="nobody else gets them")
    moved = parser.add_mutually_exclusive_group()
    moved.add_argument("--from", dest="source", metavar="OTHER", help="move what OTHER was given and has not answered")
    moved.add_argument("--take-back", action="store_true", help="take back what NAME was given and has not answered")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=_assign)


def _assign(args: argparse.Namespace) -> int:
    from popmargin.label.projects.assign_items import assign_items

    with open_store(args.db) as store:
        project = store.project(args.project)
        who = _named(store, project, args.name)
        done = assign_items(
            store,
            project,
            who,
            ids=args.items,
            where=dict(args.where),
            share=args.share,
            exclusive=args.exclusive,
            source=None if args.source is None else _named(store, project, args.source),
            take_back=args.take_back,
        )
    if args.json:
        counts = {"taken_back": done.taken_back} if done.given is None else asdict(done.given)
        print(json.dumps({**counts, "waiting": done.waiting}))
    elif done.given is None:
        print(f"{counted(done.taken_back, 'item')} taken back from {who.name}")
    else:
        print("\n".join(_said(who.name, done.given, done.waiting)))
    return 0


def _said(name: str, given: Any, waiting: int) -> list[str]:
    """What became of the items, in sentences."""
    total = given.given + given.had + given.full
    parts = f"{given.given} given to {name} + {given.had} that {name} has or had + {given.full} with all their labels"
    lines = [
        f"{counted(total, 'item')} = {parts}",
        f"{name} gets {counted(waiting, 'given item')} before all others",
    ]
    if given.short:
        lines.append(
            f"{counted(given.short, 'item wants', 'items want')} more labels than the people they are reserved for: "
            "give them to others too, or lower --overlap"
        )
    return lines


def _named(store: Any, project: Any, name: str) -> Any:
    known = {who.name: who for who in store.annotators(project.id)}
    if name not in known:
        raise DataError(f"Project '{project.name}' has no annotator '{name}'. {did_you_mean(name, known)}")
    return known[name]
