"""popmargin label rank: a judge finds the best and the worst of several responses, two at a time."""

import argparse
import json
from pathlib import Path
from typing import Any

from popmargin.bounds import Count, NotNegative
from popmargin.cli.data_options import SOURCE_HELP, column, seed
from popmargin.cli.judge_options import add_judge_options, judge_options
from popmargin.cli.numbers import number
from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.data.saving import SAVE_SUFFIXES
from popmargin.errors import ConfigError
from popmargin.label.ranking.schemes import SCHEMES
from popmargin.rewards.naming import FORMS


def add_parser(subparsers: Any) -> None:
    """Add `label rank` to the command line."""
    parser = subparsers.add_parser("rank", help="best and worst of several responses, by pairwise comparisons")
    parser.add_argument("responses", help=f"several responses to each prompt: {SOURCE_HELP}")
    parser.add_argument("--judge", required=True, metavar="SPEC", help=f"what compares: {FORMS}")
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
    add_judge_options(parser)
    parser.set_defaults(func=_rank)


def _rank(args: argparse.Namespace) -> int:
    from popmargin.data.responses import Responses
    from popmargin.label.ranking.comparers import load_comparer
    from popmargin.label.ranking.contests import plan_ranking
    from popmargin.label.ranking.rank import rank_responses
    from popmargin.label.ranking.ranking_report import ranking_report

    every = args.comparisons or _beside(args.out)
    check_outputs(args, {"--out": args.out, "--comparisons": every}, SAVE_SUFFIXES, [args.responses])
    comparer = load_comparer(args.judge, prompt=args.prompt, progress=not args.json, **judge_options(args))
    if args.limit is not None and comparer.pays == "response":
        raise ConfigError(
            f"--limit counts the calls of a judge, but {args.judge} is a reward, called once for each response. Remove "
            "it, or give fewer prompts."
        )
    responses = Responses.load(args.responses, split=args.split, columns=dict(args.column))
    settings = {"scheme": args.scheme, "seed": args.seed, "orders": args.orders, "limit": args.limit}
    plan = plan_ranking(responses, **settings)
    said = [*plan.step().lines(), plan.cost(args.price, scored=comparer.pays == "response")]
    if not args.json or args.dry_run:
        print("\n".join(said), flush=True)
    if args.dry_run:
        return 0
    ranking = rank_responses(responses, comparer.compare, again=comparer.again, **settings)
    report = ranking_report(ranking)
    ranking.save_comparisons(every)
    if args.json:
        print(json.dumps(report.to_dict(), ensure_ascii=False, indent=2))
    else:
        print("\n".join([*report.lines(), *comparer.account.usage()]))
    preferences = ranking.preferences()
    preferences.save(args.out)
    if not args.json:
        print(f"wrote {len(preferences)} preferences to {args.out}, every comparison to {every}")
    return 0


def _beside(out: Path) -> Path:
    suffix = next((suffix for suffix in SAVE_SUFFIXES if out.name.endswith(suffix)), out.suffix)
    return out.with_name(f"{out.name.removesuffix(suffix)}.comparisons{suffix}")
