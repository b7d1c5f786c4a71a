"""`popmargin eval --model PATH --data FILE`: any model on any set of compared responses."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from popmargin.bounds import NotNegative
from popmargin.cli.cost_options import paying
from popmargin.cli.numbers import number
from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.cli.reward_options import parse_options
from popmargin.demo.folder import embedded_data
from popmargin.errors import ConfigError, DataError
from popmargin.safe_reading import read_json

_FLAGS = (
    "data", "use", "reference", "per_token", "layout", "split", "subset", "options", "dry_run", "price", "out",
    "report", "overwrite",
)  # fmt: skip


LAYOUT_NAMES = ("rm_bench", "reward_bench_2", "rated_samples", "reward_bench", "pairs")
"""For the help, which must not import the layouts; a test compares it with them."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to `popmargin eval` that stand in place of a run."""
    group = parser.add_argument_group("a model on a benchmark, without a run")
    group.add_argument("--data", metavar="FILE", help="compared responses: preferences, or a benchmark's rows")
    group.add_argument(
        "--as",
        dest="use",
        choices=("auto", "policy", "reward", "compare"),
        default="auto",
        help="use a folder as a policy or as a reward model (default: what it holds); compare: ask a judge which of "
        "two responses is better",
    )
    group.add_argument(
        "--reference",
        metavar="MODEL",
        help="π_ref of a policy: a run, folder or hub id, or none (default: the run's own, none for a folder)",
    )
    group.add_argument("--per-token", action="store_true", help="divide a policy's score by the number of tokens")
    group.add_argument(
        "--layout", default="auto", metavar="NAME", help=f"auto, {', '.join(LAYOUT_NAMES)} (default: auto)"
    )
    group.add_argument("--split", help="the split of a data set that has several")
    group.add_argument("--subset", metavar="COLUMN", help="column with a question's subset (default: subset, domain …)")
    group.add_argument("--options", metavar="YAML", help="of the reward or judge, e.g. '{batch_size: 4, device: cuda}'")
    group.add_argument("--dry-run", action="store_true", help="with --as compare: show the number of calls and stop")
    group.add_argument("--price", type=number(NotNegative), help="of a call, to show the cost before paying")
    group.add_argument("--out", type=Path, metavar="FILE", help="write the result, with every score, as .json")
    group.add_argument("--report", type=Path, metavar="FILE", help="write the report as .html")
    add_overwrite(parser)


def wanted(args: argparse.Namespace) -> bool:
    """Whether the flags ask for a benchmark instead of a run.

    Raises:
        ConfigError: they are mixed, or one is missing.
    """
    given = [name for name in _FLAGS if getattr(args, name) not in (None, False, "auto")]
    flags = {"use": "as", "per_token": "per-token", "dry_run": "dry-run"}
    if args.run is not None:
        if given:
            raise ConfigError(
                f"--{flags.get(given[0], given[0])} is for a model without a run: popmargin eval --model MODEL --data "
                "FILE. Remove it, or RUN."
            )
        return False
    if args.data is None or args.model is None or args.server is not None or args.answers is not None:
        raise ConfigError(
            "Give RUN, a run directory; or --model MODEL and --data FILE, to evaluate a model on compared responses."
        )
    if args.goals is not None or args.overrides:
        raise ConfigError("--goals and fields of the configuration are for runs. Remove them, or give RUN.")
    of_others = ("reference", "per_token") if args.use == "compare" else ("dry_run", "price")
    wrong = [name for name in of_others if getattr(args, name) not in (None, False)]
    if wrong:
        whose = "models that score responses" if args.use == "compare" else "judges that compare (--as compare)"
        raise ConfigError(f"--{flags.get(wrong[0], wrong[0])} is for {whose}. Remove it.")
    return True


def run(args: argparse.Namespace, say: Callable[[str], None] = print) -> int:
    """Score the responses, print the result, and write it."""
    check_outputs(args, {"--out": args.out}, (".json",), [args.data, args.against])
    check_outputs(args, {"--report": args.report}, (".html",), [args.data, args.against])
    other = None if args.against is None else _result(args.against)
    from popmargin.evaluation.benchmarks.evaluate import evaluate_benchmark, read_benchmark
    from popmargin.evaluation.benchmarks.scorer import find_scorer
    from popmargin.report.benchmark_page import text_lines, write_benchmark_report
    from popmargin.report.results import write_text

    benchmark = read_benchmark(
        embedded_data(args.data) or args.data, layout=args.layout, split=args.split, subset=args.subset
    )
    options: dict[str, Any] = parse_options(args.options or "{}", "--options")
    options |= _paid(args)
    if args.use == "compare":
        result = _judged(args, benchmark, options, say)
        if result is None:
            return 0
    else:
        given: dict[str, Any] = {"reference": args.reference, "per_token": args.per_token, "options": options}
        result = evaluate_benchmark(benchmark, find_scorer(args.model, use=args.use, **given))
    differences = None if other is None else result.minus(other)
    whose = "" if other is None else str(other["model"]["name"])
    plain = result.to_dict()
    if differences is not None:
        plain["against"] = {"model": whose, "differences": {name: one.to_dict() for name, one in differences.items()}}
    if args.out is not None:
        write_text(args.out, json.dumps(plain, indent=1) + "\n", (".json",))
    if args.report is not None:
        write_benchmark_report(result, args.report, against=whose, differences=differences)
    if args.json:
        say(json.dumps({name: value for name, value in plain.items() if name != "questions"}, indent=2))
        return 0
    say(f"{args.model} as a {result.kind} on {benchmark.name} (layout {benchmark.layout.name}): {result.meaning}")
    for line in text_lines(result, differences):
        say(line)
    for path in filter(None, (args.out, args.report)):
        say(f"wrote {path}")
    return 0


def _paid(args: argparse.Namespace) -> dict[str, Any]:
    """Prices and the limit of a judge on a server, counted for its questions about these data."""
    prices = {name: value for name in ("price_in", "price_out") if (value := getattr(args, name)) is not None}
    spec = args.model if ":" in args.model and not Path(args.model).expanduser().exists() else f"model:{args.model}"
    if args.use != "compare" and spec.startswith(("judge:", "openai:")):
        spec = f"reward:{spec}"
    return prices | paying(args, spec, f"eval {Path(args.data).expanduser().resolve()}")


def _judged(args: argparse.Namespace, benchmark: Any, options: dict[str, Any], say: Callable[[str], None]) -> Any:
    """The result of a judge that compares; None after a dry run. The cost is said before anything is asked."""
    from popmargin.evaluation.benchmarks.judged_pairs import judge_benchmark, plan_judging
    from popmargin.label.ranking.comparers import load_comparer

    path = Path(args.model).expanduser()
    here = ":" not in args.model or path.exists()
    spec = f"model:{path / 'model' if (path / 'config.yaml').is_file() else path}" if here else args.model
    comparer = load_comparer(spec, progress=not args.json, **options)
    if comparer.pays == "response":
        raise ConfigError(f"{args.model} gives scores, so there is nothing to compare. Leave out --as compare.")
    plan = plan_judging(benchmark)
    if not args.json or args.dry_run:
        say("\n".join([plan.cost(args.price), *comparer.cost_lines(list(plan.shown.values()))]))
    if args.dry_run:
        return None
    result = judge_benchmark(plan, comparer.compare, args.model, again=comparer.again)
    if not args.json:
        say("\n".join(comparer.account.usage()))
    return result


def _result(path: Path) -> dict[str, Any]:
    """An earlier result, from its file.

    Raises:
        DataError: it is none.
    """
    found = read_json(path)
    if not isinstance(found, dict) or found.get("kind") != "benchmark":
        raise DataError(f"{path} is no result of popmargin eval --model … --out FILE.json. Give such a file.")
    return found
