"""popmargin label rank: a judge or people find the best and the worst of several responses, two at a time."""

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from popmargin.bounds import Count, NotNegative, Positive, Size
from popmargin.cli.cost_options import paying
from popmargin.cli.data_options import SOURCE_HELP, column, seed
from popmargin.cli.judge_options import add_judge_options, judge_options
from popmargin.cli.numbers import number
from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.data.responses import Responses
from popmargin.data.saving import SAVE_SUFFIXES
from popmargin.errors import ConfigError, DataError, counted
from popmargin.label.ranking.contests import BEYOND, Plan, plan_ranking
from popmargin.label.ranking.schemes import SCHEMES
from popmargin.rewards.naming import FORMS

PEOPLE = "people"


def add_parser(subparsers: Any) -> None:
    """Add `label rank` to the command line."""
    parser = subparsers.add_parser("rank")
    parser.add_argument("responses", help=f"several responses to each prompt: {SOURCE_HELP}")
    parser.add_argument(
        "--judge", required=True, metavar="SPEC", help=f"what compares: {FORMS}; people asks in a label store"
    )
    parser.add_argument(
        "--scheme",
        choices=SCHEMES,
        default="champion",
        help="comparisons of M responses: champion 2M-3, pairs 3M/2-2, round_robin M(M-1)/2 (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, help="preferences to write: .parquet, .jsonl or .jsonl.gz")
    parser.add_argument(
        "--comparisons", type=Path, help="file with every comparison (default: OUT with .comparisons before its suffix)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of the order of play (default: 0)")
    parser.add_argument(
        "--orders",
        choices=("both", "one"),
        default="both",
        help="one order costs half, but position bias then counts as wins (default: %(default)s)",
    )
    parser.add_argument("--prompt", type=Path, metavar="FILE", help="the judge's prompt (default: built in)")
    parser.add_argument("--dry-run", action="store_true", help="show the number of calls and stop")
    parser.add_argument("--limit", type=number(Count), help="maximum calls; further prompts are left out")
    parser.add_argument("--price", type=number(NotNegative), help="price of a call, to show the cost before paying")
    parser.add_argument(
        "--column", action="append", default=[], type=column, metavar="FIELD=COLUMN", help="which column holds a field"
    )
    parser.add_argument("--split", help="the split to use, if there are several")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    add_overwrite(parser)
    people = parser.add_argument_group("people (--judge people)")
    people.add_argument("--db", metavar="URL", help="label store: a file, or postgresql:// (default: labels.db)")
    people.add_argument("--project", help="name of the project (default: ranking)")
    people.add_argument("--overlap", type=number(Size), help="people per comparison (default: 1)")
    people.add_argument(
        "--watch",
        type=number(Positive),
        metavar="SECONDS",
        help="look for answers so often, until the end (default: once)",
    )
    add_judge_options(parser)
    parser.set_defaults(func=_rank)


def _rank(args: argparse.Namespace) -> int:
    if args.judge == PEOPLE:
        return _by_people(args)
    given = [name for name in ("db", "project", "overlap", "watch") if getattr(args, name) is not None]
    if given:
        raise ConfigError(f"--{given[0]} is for --judge people, not {args.judge}. Remove it.")
    return _by_judge(args)


def _by_people(args: argparse.Namespace) -> int:
    """One step, or one every few seconds until all is decided."""
    from popmargin.label.ranking.people import open_ranking, people_step
    from popmargin.label.store.address import in_words, open_store
    from popmargin.rewards.rate_responses import holds_images

    flags = {name: getattr(args, name) for name in ("limit", "price", "prompt", "max_cost")} | judge_options(args)
    flags["orders"] = args.orders if args.orders != "both" else None
    given = [name.replace("_", "-") for name, value in flags.items() if value is not None]
    if given:
        raise ConfigError(f"--{given[0]} is for judges, not for --judge people. Remove it.")
    every = _outputs(args)
    responses = _responses(args)
    plan = plan_ranking(responses, scheme=args.scheme, seed=args.seed, orders="one")
    if args.dry_run:
        print("\n".join([*plan.step().lines(), plan.cost()]))
        return 0
    _refuse_nothing(plan, args)
    with open_store(args.db or "labels.db", create=True) as store:
        project = open_ranking(
            store,
            args.project or "ranking",
            overlap=args.overlap,
            scheme=args.scheme,
            seed=args.seed,
            images=holds_images(responses),
        )
        while True:
            step = people_step(store, project, responses, scheme=args.scheme, seed=args.seed)
            print(step, flush=True)
            if step.ranking is not None or args.watch is None:
                break
            time.sleep(args.watch)
    if step.ranking is None:
        where = f"--db {in_words(args.db or 'labels.db')} --project {shlex.quote(project.name)}"
        print(f"answer with: popmargin annotate {where}; then run this again")
        return 0
    return _write(args, step.ranking, every)


def _by_judge(args: argparse.Namespace) -> int:
    from popmargin.label.ranking.comparers import load_comparer
    from popmargin.label.ranking.rank import rank_responses
    from popmargin.rewards.rate_responses import holds_images

    every = _outputs(args)
    responses = _responses(args)
    if holds_images(responses):
        raise DataError(
            f"{args.responses}: these responses are images, and judges and rewards here compare texts. Nothing was "
            "asked. Rank them with --judge people, or score them with data rate and pair them with data pairs."
        )
    options = judge_options(args) | paying(args, args.judge, f"label rank {args.out.resolve()}")
    comparer = load_comparer(args.judge, prompt=args.prompt, progress=not args.json, **options)
    if args.limit is not None and comparer.pays == "response":
        raise ConfigError(
            f"--limit counts the calls of a judge, but {args.judge} is a reward, called once for each response. Remove "
            "it, or give fewer prompts."
        )
    settings: dict[str, Any] = {"scheme": args.scheme, "seed": args.seed, "orders": args.orders, "limit": args.limit}
    plan = plan_ranking(responses, **settings)
    said = [*plan.step().lines(), plan.cost(args.price, scored=comparer.pays == "response")]
    said += comparer.cost_lines(plan.costliest(responses))
    if not args.json or args.dry_run:
        print("\n".join(said), flush=True)
    if args.dry_run:
        return 0
    _refuse_nothing(plan, args)
    ranking = rank_responses(responses, comparer.compare, again=comparer.again, **settings)
    return _write(args, ranking, every, comparer.account.usage())


def _refuse_nothing(plan: Plan, args: argparse.Namespace) -> None:
    """Before anything is asked or written.

    Raises:
        ConfigError: the limit is too low for the first prompt.
        DataError: no prompt has two different responses.
    """
    if plan.contests:
        return
    if BEYOND in plan.left_out.values():
        raise ConfigError(
            f"--limit {args.limit} is too low for the calls of any prompt: {plan.step().arithmetic}. Nothing was asked."
            " See how many are needed with --dry-run and without --limit."
        )
    raise DataError(f"{args.responses}: there is nothing to rank: {plan.step().arithmetic}. Nothing was asked.")


def _outputs(args: argparse.Namespace) -> Path:
    """The file of comparisons; both files are looked at before anything is asked."""
    every = args.comparisons or _beside(args.out)
    check_outputs(args, {"--out": args.out, "--comparisons": every}, SAVE_SUFFIXES, [args.responses])
    return every


def _responses(args: argparse.Namespace) -> Responses:
    return Responses.load(args.responses, split=args.split, columns=dict(args.column))


def _write(args: argparse.Namespace, ranking: Any, every: Path, usage: Sequence[str] = ()) -> int:
    from popmargin.label.ranking.ranking_report import ranking_report

    report = ranking_report(ranking)
    ranking.save_comparisons(every)
    if args.json:
        print(json.dumps(report.to_dict(), ensure_ascii=False, indent=2))
    else:
        print("\n".join([*report.lines(), *usage]))
    preferences = ranking.preferences()
    preferences.save(args.out)
    if not args.json:
        print(f"wrote {counted(len(preferences), 'preference')} to {args.out}, every comparison to {every}")
    return 0


def _beside(out: Path) -> Path:
    suffix = next((suffix for suffix in SAVE_SUFFIXES if out.name.endswith(suffix)), out.suffix)
    return out.with_name(f"{out.name.removesuffix(suffix)}.comparisons{suffix}")
