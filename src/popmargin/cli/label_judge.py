"""popmargin label judge: a model, a reward or the data's ratings label the items of a project."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popmargin.cli.change_store import change_store
from popmargin.cli.judge_options import add_judge_options, is_server_judge, judge_options, of_judge
from popmargin.cli.store_options import add_store_arguments
from popmargin.errors import ConfigError, counted
from popmargin.rewards.naming import FORMS, read_name

if TYPE_CHECKING:
    from popmargin.generate.spending import Budget, Forecast
    from popmargin.judges.labeller import Labeller
    from popmargin.label.store.label_store import LabelStore
    from popmargin.label.store.records import Project

_IN_BATCHES = 20_000
"""Questions between two writes to the store, where they are asked in batches."""


def add_parser(subparsers: Any) -> None:
    """Add `label judge` to the command line."""
    parser = subparsers.add_parser("judge")
    add_store_arguments(parser)
    parser.add_argument(
        "--judge",
        required=True,
        action="append",
        metavar="SPEC",
        help=f"{FORMS} (as --reward in `pop sample`), or ratings; several make a panel, in which --name, --price-in, "
        "--price-out, --api-key-env and --reward-options are given once for each, or (but --name) once for all",
    )
    parser.add_argument("--name", action="append", help="annotator name (default: from the judge)")
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
    parser.add_argument("--dry-run", action="store_true", help="say how many calls and what cost, and stop")
    add_judge_options(parser, panel=True)
    parser.set_defaults(func=_judge)


def _judge(args: argparse.Namespace) -> int:
    from popmargin.generate.spending import Budget
    from popmargin.label.labellers.labelling import forecast_store

    budget = Budget(args.max_cost)
    with change_store(args.db) as store:
        project = store.project(args.project)
        panel = [_labeller(of_judge(args, place), store, project, budget) for place in range(len(args.judge))]
        _refuse_same_names(panel)
        forecasts = [forecast_store(store, project.id, labeller, again=args.again) for labeller in panel]
        for line in _before(panel, forecasts, budget):
            print(line, flush=True)
        if args.dry_run:
            return 0
        found = [_label(args, store, project, one, forecast) for one, forecast in zip(panel, forecasts, strict=True)]
    unasked = sum(left for left, _ in found)
    if unasked:
        print(
            f"Stopped at --max-cost {budget.limit:g}: {budget.paid:.4g} is paid, and the next call might go past it. "
            f"{counted(unasked, 'question')} {'is' if unasked == 1 else 'are'} left; raise it to go on there.",
            file=sys.stderr,
        )
    return max(code for _, code in found)


def _labeller(args: argparse.Namespace, store: "LabelStore", project: "Project", budget: "Budget") -> "Labeller":
    """One judge, from its flags."""
    from popmargin.label.labellers.labelling import store_strengths
    from popmargin.label.labellers.load import load_labeller

    options = judge_options(args)
    if is_server_judge(args.judge):
        options |= {"budget": budget, "scope": f"{project.name} {project.created_at.isoformat()}"}
        if args.again:
            options["again"] = True
    elif args.max_cost is not None:
        raise ConfigError(f"--max-cost is for judges on a server, and {args.judge} is none. Remove one of them.")
    prompts: Any = {"pop": args.prompt, "preference": args.preference_prompt}
    return load_labeller(
        args.judge,
        strengths=store_strengths(store, project.id) if read_name(args.judge).kind == "ratings" else None,
        prompts={kind: path for kind, path in prompts.items() if path is not None},
        orders=args.orders,
        name=args.name,
        images=store.images if project.images else None,
        **options,
    )


def _refuse_same_names(panel: "list[Labeller]") -> None:
    names = [labeller.name for labeller in panel]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(
            f"Two judges of the panel are named '{twice[0]}'. Tell them apart with --name, once for each."
        )


def _before(panel: "list[Labeller]", forecasts: "list[Forecast | None]", budget: "Budget") -> list[str]:
    """What will be asked and what it costs, before anything is."""
    from popmargin.generate.spending import Forecast

    lines = [
        f"{labeller.name}: {'no calls to a server' if forecast is None else forecast}"
        for labeller, forecast in zip(panel, forecasts, strict=True)
    ]
    total = Forecast()
    for forecast in forecasts:
        total += forecast or Forecast()
    return [*lines, *budget.lines(total)]


def _label(
    args: argparse.Namespace, store: "LabelStore", project: "Project", labeller: "Labeller", forecast: "Forecast | None"
) -> tuple[int, int]:
    """Label with one judge: how many questions the budget left out, and the exit code."""
    from popmargin.judges.labeller import Account
    from popmargin.label.labellers.labelling import BATCH, count_unsure, label_store

    account = Account()
    at_once = _IN_BATCHES if args.batch else BATCH
    new = label_store(store, project.id, labeller, account, again=args.again, at_once=at_once, progress=True)
    labels, unsure = count_unsure(store, project.id, labeller.name)
    print(f"{labeller.name}: {counted(new, 'new label')} in project '{project.name}'")
    print(account, flush=True)
    unasked = forecast.questions - account.questions if account.unasked and forecast is not None else 0
    if unsure:
        asked_again = " Ask about them again with --again." if labeller.kind == "judge" else ""
        print(
            f"'unsure' for {unsure} of its {counted(labels, 'label')}; the notes say why.{asked_again}",
            file=sys.stderr,
        )
    if labels and unsure == labels:
        remedy = "See the first answer above: another prompt, more --max-tokens or another model may help."
        print(f"error: {labeller.name} gave no verdict on any of {counted(labels, 'item')}. {remedy}", file=sys.stderr)
        return unasked, 1
    return unasked, 0
