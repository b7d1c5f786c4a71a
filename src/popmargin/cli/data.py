"""popmargin data: look at preference data, check it, convert it, split it, rate it."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from popmargin.cli.data_options import add_pair_arguments, column
from popmargin.cli.rewards import add_reward_arguments, reward_of
from popmargin.data.formats import ALIASES, FORMATS
from popmargin.data.load import load_preferences, scan_preferences
from popmargin.data.schema import LoadReport, Preferences
from popmargin.data.split import check_leak, split_preferences
from popmargin.data.summary import flat_text, summarise
from popmargin.errors import DataError

_SHOWN = 160


def add_parser(subparsers: Any) -> None:
    """Add `data inspect | check | convert | split | rate` to the command line."""
    parser = subparsers.add_parser("data", help="preference data: inspect, check, convert, split, rate")
    verbs = parser.add_subparsers(dest="data_verb", required=True, metavar="{inspect,check,convert,split,rate}")
    inspect = verbs.add_parser("inspect", help="format, counts, lengths, strengths and some examples")
    _add_source(inspect)
    inspect.add_argument("--examples", type=_count, default=3, help="rows to show (default: %(default)s)")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(func=_inspect)
    check = verbs.add_parser("check", help="every problem with its row and remedy; exit status 1 if there is one")
    _add_source(check)
    check.add_argument("--against", metavar="TRAIN", help="also check that no prompt of SOURCE is one of TRAIN's")
    check.add_argument("--limit", type=_count, default=20, help="problems to print (default: %(default)s)")
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(func=_check)
    convert = verbs.add_parser("convert", help="write the canonical columns as .parquet, .jsonl or .jsonl.gz")
    _add_source(convert)
    convert.add_argument("out", type=Path, help="file to write")
    _add_bad_rows(convert)
    convert.set_defaults(func=_convert)
    split = verbs.add_parser("split", help="train and test files without a common prompt")
    _add_source(split)
    split.add_argument("--train", type=Path, required=True, help="file to write: .parquet, .jsonl or .jsonl.gz")
    split.add_argument("--test", type=Path, required=True, help="file to write")
    split.add_argument(
        "--test-size",
        type=_size,
        default=0.1,
        help="share (0.1) or number (100) of prompts to hold out (default: %(default)s)",
    )
    _add_bad_rows(split)
    split.set_defaults(func=_split)
    rate = verbs.add_parser("rate", help="write chosen_rating and rejected_rating as a reward sees them")
    _add_source(rate)
    add_reward_arguments(rate, required=True, purpose="what rates the responses")
    rate.add_argument("--out", type=Path, required=True, help="file to write: .parquet, .jsonl or .jsonl.gz")
    rate.add_argument(
        "--disagree",
        choices=("error", "equal", "swap", "drop"),
        default="error",
        help="where the reward likes the rejected response better: stop, rate both the same, relabel, or leave out "
        "(default: %(default)s)",
    )
    _add_bad_rows(rate)
    rate.set_defaults(func=_rate)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a file, a folder written by Dataset.save_to_disk, or a hub id")
    parser.add_argument("--format", default="auto", metavar="NAME", help=f"auto, {', '.join(FORMATS)} (default: auto)")
    parser.add_argument("--split", help="split of a data set that has several")
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        type=column,
        metavar="FIELD=COLUMN",
        help=f"where a field stands, e.g. prompt=question; fields: {', '.join([*ALIASES, 'text', 'rating'])}",
    )
    add_pair_arguments(parser, "--seed")


def _add_bad_rows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bad-rows",
        choices=("error", "drop"),
        default="error",
        help="stop at unusable rows, or leave them out and report them (default: %(default)s)",
    )


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a number ≥ 0")
    return int(text)


def _size(text: str) -> float | int:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a share like 0.1 nor a number like 100") from None


def _scan(args: argparse.Namespace, source: str) -> tuple[Preferences | None, LoadReport]:
    return scan_preferences(source, **_options(args))


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "format": args.format,
        "split": args.split,
        "pairs": args.pairs,
        "min_gap": args.min_gap,
        "seed": args.seed,
        "columns": dict(args.column),
    }


def _load(args: argparse.Namespace) -> Preferences:
    prefs = load_preferences(args.source, bad_rows=args.bad_rows, **_options(args))
    _print_report(prefs.report, limit=5)
    return prefs


def _inspect(args: argparse.Namespace) -> int:
    prefs, report = _scan(args, args.source)
    summary = summarise(prefs, examples=args.examples) if prefs is not None else None
    if args.json:
        print(json.dumps({"load": report.to_dict(limit=20), "data": summary}, ensure_ascii=False, indent=2))
        return 0
    _print_report(report, limit=5)
    if summary is not None:
        _print_summary(summary)
    return 0


def _check(args: argparse.Namespace) -> int:
    prefs, report = _scan(args, args.source)
    leak = None
    if args.against is not None and prefs is not None:
        train, _ = _scan(args, args.against)
        try:
            if train is not None:
                check_leak(train, prefs)
        except DataError as error:
            leak = str(error)
    good = not report.fatal and leak is None and prefs is not None
    if args.json:
        content = {"ok": good, "leak": leak, **report.to_dict(limit=args.limit)}
        print(json.dumps(content, ensure_ascii=False, indent=2))
    else:
        _print_report(report, limit=args.limit)
        if leak is not None:
            print(leak)
        print("ok" if good else f"{len(report.fatal)} problems" + (", and a leak" if leak is not None else ""))
    return 0 if good else 1


def _convert(args: argparse.Namespace) -> int:
    prefs = _load(args)
    prefs.save(args.out)
    print(f"wrote {len(prefs)} preferences to {args.out}")
    return 0


def _split(args: argparse.Namespace) -> int:
    if args.train.resolve() == args.test.resolve():
        raise DataError(f"--train and --test are both {args.train}. Remedy: name two files.")
    prefs = _load(args)
    train, test = split_preferences(prefs, test_size=args.test_size, seed=args.seed)
    check_leak(train, test)
    for part, path in ((train, args.train), (test, args.test)):
        part.save(path)
        print(f"wrote {len(part)} preferences, {len(set(part.prompt_keys))} prompts, to {path}")
    return 0


def _rate(args: argparse.Namespace) -> int:
    from popmargin.evaluation.rate import response_ratings, with_ratings

    reward = reward_of(args)
    prefs = _load(args)
    ratings = response_ratings(prefs, reward)
    against = int((ratings.gap < 0).sum())
    rated = with_ratings(prefs, ratings, disagree=args.disagree)
    rated.save(args.out)
    print(f"the reward agrees with {len(prefs) - against} of {len(prefs)} labels; the others: {args.disagree}")
    print(f"wrote {len(rated)} preferences, rated by {args.reward}, to {args.out}")
    return 0


def _print_report(report: LoadReport, *, limit: int) -> None:
    print(report)
    used = ", ".join(name if name == column else f"{name} = {column}" for name, column in report.columns_used.items())
    print(f"  columns used: {used or 'none'}; not used: {', '.join(report.columns_unused) or 'none'}")
    # Mistakes first: ties and small gaps can be many, and need no action.
    problems = [*report.fatal, *(problem for problem in report.problems if not problem.fatal)]
    for problem in problems[:limit]:
        print(f"  {problem}")
    if len(problems) > limit:
        print(f"  … and {len(problems) - limit} more")


def _print_summary(summary: dict[str, Any]) -> None:
    kind = "conversations" if summary["conversational"] else "text"
    print(f"{summary['rows']} preferences on {summary['prompts']} prompts, {kind}")
    print(f"  fingerprint {summary['fingerprint'][:16]}, annotators named: {summary['annotators']}")
    print("  characters      min      p10   median      p90      max")
    for name, spread in summary["characters"].items():
        print(f"    {name:<9}{_quantiles(spread)}")
    print(f"  longer completion: chosen {summary['longer_chosen']:.1%}, rejected {summary['longer_rejected']:.1%}")
    strength = summary["strength"]
    if strength is None:
        print("  strength: unknown (no strength column, no ratings)")
    else:
        print("  strength        min      p10   median      p90      max    count")
        for spread in ({"name": "all", **strength}, *strength["thirds"]):
            numbers = _quantiles(spread) if spread["count"] else " " * 45
            print(f"    {spread['name']:<9}{numbers}{spread['count']:>9}")
        print(f"    unknown: {strength['unknown']}, zero (equal ratings): {strength['zero']}")
    for name, spread in (summary["ratings"] or {}).items():
        values = spread["values"]
        shown = ", ".join(f"{value}: {count}" for value, count in values.items()) if values else _quantiles(spread)
        print(f"  {name}: {shown}")
    _print_examples(summary["examples"])


def _quantiles(spread: dict[str, Any]) -> str:
    return "".join(f"{spread[name]:>9.4g}" for name in ("min", "p10", "median", "p90", "max"))


def _print_examples(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        facts = [
            f"{name} {row[name]:g}"
            for name in ("chosen_rating", "rejected_rating", "strength")
            if row[name] is not None
        ]
        print(f"  example {row['id']}" + (f" ({', '.join(facts)})" if facts else ""))
        for name in ("prompt", "chosen", "rejected"):
            text = " ".join(flat_text(row[name]).split())
            print(f"    {name:<9} {text if len(text) <= _SHOWN else text[: _SHOWN - 1] + '…'}")
