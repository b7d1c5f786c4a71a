"""popmargin label: fill a label store, show progress, give people access, export and back up labels."""

from typing import Any

from popmargin.cli.lazy_verbs import LazyVerbs

VERBS = {
    "import": "create a project from preferences",
    "import-labels": "add labels that people gave elsewhere, with name and time",
    "ask": "choose the next comparisons from the labels so far and add them",
    "assign": "give items to a person, move them to another, or take them back",
    "status": "show the progress of projects and annotators",
    "annotators": "manage annotators",
    "language": "print the texts of the annotators' pages, or check a translation",
    "guidelines": "show a project's guidelines, or change them",
    "set": "change a project's settings while people label, or show them",
    "export": "write PoP edges, preferences or labels to files",
    "backup": "copy a store in use to one file, safely",
    "token": "tokens of the lead's API",
    "judge": "let a judge, a reward model or the data's ratings label all items",
    "next": "say what the next hour is best spent on: new preferences, votes, comparisons, grades or ratings",
    "rank": "best and worst of several responses, by pairwise comparisons",
    "report": "write agreement, annotators, judges and time as one HTML page",
}


def add_parser(subparsers: Any) -> None:
    """Add `label` and its verbs, each of which is a module of its own, to the command line."""
    parser = subparsers.add_parser("label", help=f"the label store: {', '.join(VERBS)}")
    verbs = parser.add_subparsers(dest="label_verb", required=True, metavar="VERB", action=LazyVerbs)
    verbs.promise(VERBS, "popmargin.cli.label_{}")
