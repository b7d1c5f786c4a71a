"""popmargin label status: how far the projects of a store and their annotators are."""

import argparse
import dataclasses
import json
from typing import Any

from popmargin.cli.store_options import add_store_arguments
from popmargin.errors import counted
from popmargin.label.store.address import open_store


def add_parser(verbs: Any) -> None:
    """Add `label status` to the command line."""
    parser = verbs.add_parser("status")
    add_store_arguments(parser, project=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=_status)


def _status(args: argparse.Namespace) -> int:
    with open_store(args.db) as store:
        from popmargin.label.projects.reach import out_of_reach

        found: list[dict[str, Any]] = []
        for project in store.projects() or [store.project()]:  # which refuses a store without one
            people = [
                {**dataclasses.asdict(who), **dataclasses.asdict(store.progress(project.id, who.id))}
                for who in store.annotators(project.id)
            ]
            progress = dataclasses.asdict(store.progress(project.id))
            found.append(
                {
                    "project": project.name,
                    "preferences": project.preferences,
                    **progress,
                    "annotators": people,
                    "out_of_reach": out_of_reach(store, project),
                }
            )
    if args.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return 0
    for row in found:
        done, wanted = row["labels_done"], row["labels_wanted"]
        share = f" ({done / wanted:.0%})" if wanted else ""
        print(
            f"{row['project']}: {done} of {counted(wanted, 'label')}{share}, {counted(row['items'], 'item')}, "
            f"{row['leased']} open now"
        )
        if row["out_of_reach"]:
            print(f"  {row['out_of_reach']}")
        for who in row["annotators"]:
            state = ("" if who["active"] else ", not active") + (", discarded" if who["discarded"] else "")
            print(f"  {who['name']:<20} {who['kind']}{state}: {who['own_done']} done, {who['own_skipped']} skipped")
    return 0
