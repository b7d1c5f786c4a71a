"""`popmargin objectives`."""

import argparse
import dataclasses
import json
from typing import Any

from popmargin.objectives.base import OBJECTIVES, Objective


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("objectives", help="list the training objectives")
    parser.add_argument("names", nargs="*", help="show only these; module:function or file.py:function also work")
    parser.add_argument("--json", action="store_true", help="as JSON, with options and their defaults")
    parser.set_defaults(func=run)


def describe(objective: Objective) -> dict[str, Any]:
    """The registry's facts about an objective, as plain values."""
    options = objective.options()
    needs = [name for name, value in dataclasses.asdict(objective.needs).items() if value is True]
    if objective.uses_reference(options) and "reference" not in needs:
        needs.append("reference")
    if objective.needs.weaker != "none":
        needs.append(f"weaker side ({objective.needs.weaker})")
    if objective.uses_batch_statistics(options):
        needs.append("batch statistics")
    if objective.decoupling_of(options):
        needs.append("live reference")
    return {
        "name": objective.name,
        "summary": objective.summary,
        "origin": objective.origin,
        "score": objective.score_kind(options),
        "needs": needs,
        "takes_margin": objective.takes_margin,
        "options": dataclasses.asdict(options),
        "use": objective.section("Use"),
        "watch": objective.section("Watch"),
        "noise": objective.section("Noise"),
    }


def run(args: argparse.Namespace) -> int:
    """Print the list."""
    entries = [describe(OBJECTIVES.get(name)) for name in (args.names or OBJECTIVES.names())]
    if args.json:
        print(json.dumps(entries, indent=2))
        return 0
    width = max(len(entry["name"]) for entry in entries)
    for entry in entries:
        options = ", ".join(f"{name}={value}" for name, value in entry["options"].items())
        taken = "takes a margin; " if entry["takes_margin"] == "yes" else ""
        print(f"{entry['name']:{width}}  {entry['summary']}")
        print(f"{'':{width}}  {entry['origin']}; needs {', '.join(entry['needs']) or 'nothing more'}; {taken}{options}")
    return 0
