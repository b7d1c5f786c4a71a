"""popmargin label judge: a model, a reward or the data's ratings label the items of a project."""

import argparse
import sys
from pathlib import Path
from typing import Any

from popmargin.cli.judge_options import add_judge_options, is_server_judge, judge_options
from popmargin.cli.store_options import add_store_arguments
from popmargin.errors import counted
from popmargin.rewards.naming import FORMS, read_name


def add_parser(subparsers: Any) -> None:
    """Add `label judge` to the command line."""
    parser = subparsers.add_parser("judge")
    add_store_arguments(parser)
    parser.add_argument(
        "--judge",
        required=True,
        metavar="SPEC",
        help=f"{FORMS} (as --reward in `pop sample`), or ratings",
    )
    parser.add_argument("--name", help="annotator name (default: from the judge)")
    parser.add_argument("--prompt", type=Path, metavar="FILE", help="judge prompt for PoP items (default: built in)")
    parser.add_argument("--preference-prompt", type=Path, metavar="FILE", help="the same for preference items")
    parser.add_argument(
        "--orders",
        choices=("both", "one"),
        default="both",
        help="orders in which judges are asked; one order costs half but shows no flips",
    )
    parser.add_argument(
        "--again", action="store_true", help="also ask again about unsure items: failed and unparsed answers"
    )
    add_judge_options(parser)
    parser.set_defaults(func=_judge)


def _judge(args: argparse.Namespace) -> int:
    from popmargin.judges.labeller import Account
    from popmargin.label.labellers.labelling import count_unsure, label_store, store_strengths
    from popmargin.label.labellers.load import load_labeller
    from popmargin.label.store.address import open_store

    options = judge_options(args)
    if args.again and is_server_judge(args.judge):
        options["again"] = True
    prompts: Any = {"pop": args.prompt, "preference": args.preference_prompt}
    with open_store(args.db) as store:
        project = store.project(args.project)
        labeller = load_labeller(
            args.judge,
            strengths=store_strengths(store, project.id) if read_name(args.judge).kind == "ratings" else None,
            prompts={kind: path for kind, path in prompts.items() if path is not None},
            orders=args.orders,
            name=args.name,
            images=store.images if project.images else None,
            **options,
        )
        account = Account()
        new = label_store(store, project.id, labeller, account, again=args.again, progress=True)
        labels, unsure = count_unsure(store, project.id, labeller.name)
    print(f"{labeller.name}: {counted(new, 'new label')} in project '{project.name}'")
    print(account)
    if unsure:
        asked_again = " Ask about them again with --again." if labeller.kind == "judge" else ""
        print(
            f"'unsure' for {unsure} of its {counted(labels, 'label')}; the notes say why.{asked_again}",
            file=sys.stderr,
        )
    if labels and unsure == labels:
        remedy = "See the first answer above: another prompt, more --max-tokens or another model may help."
        print(f"error: {labeller.name} gave no verdict on any of {counted(labels, 'item')}. {remedy}", file=sys.stderr)
        return 1
    return 0
