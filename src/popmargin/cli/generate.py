"""popmargin generate: responses to prompts, from a policy, a server or a file."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from popmargin.bounds import Count, NotNegative, PositiveShare, Seed, Size
from popmargin.cli.data_options import SPLIT_HELP, column
from popmargin.cli.numbers import number
from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.data.read_prompts import Prompts, load_prompts
from popmargin.data.saving import SAVE_SUFFIXES

_DESCRIPTION = """Make responses to prompts, a table that `data rate` scores and `data pairs` makes preferences of.
What is finished is kept beside the output (OUT.part) until the table is complete: after an interruption the same
command goes on, and gives the same file."""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "generate", help="sample responses to prompts", description=_DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument(
        "prompts",
        metavar="PROMPTS",
        help="preferences, responses or rows with a prompt (any file that `data` reads), or a .txt file with a prompt "
        "in each line; prompts with the same content are one",
    )
    parser.add_argument("--model", metavar="RUN", help="a run directory, a model's folder, a hub id, or demo")
    parser.add_argument("--out", type=Path, required=True, help=f"file to write: {', '.join(SAVE_SUFFIXES)}")
    add_overwrite(parser)
    parser.add_argument("--n", type=number(Size), default=1, help="responses to each prompt (default: %(default)s)")
    parser.add_argument("--limit", type=number(Size), help="use only the first so many prompts")
    parser.add_argument("--chat", action="store_true", help="give prompts that are texts as the message of a user")
    parser.add_argument("--split", help=SPLIT_HELP)
    parser.add_argument(
        "--column", action="append", default=[], type=column, metavar="FIELD=COLUMN", help="e.g. prompt=question"
    )
    parser.add_argument("--source", metavar="NAME", help="what the responses are said to be from (default: the model)")
    parser.add_argument("--round", type=number(Count), help="number of the iteration, kept with the responses")
    drawn = parser.add_argument_group("sampling")
    drawn.add_argument(
        "--temperature", type=number(NotNegative), default=1.0, help="0 takes the likeliest (default: 1)"
    )
    drawn.add_argument("--top-p", type=number(PositiveShare), default=1.0, help="default: 1, no cut")
    drawn.add_argument("--top-k", type=number(Count), default=0, help="default: 0, no cut")
    drawn.add_argument("--max-new-tokens", type=number(Size), default=256, help="default: %(default)s")
    drawn.add_argument("--seed", type=number(Seed), default=0, help="default: %(default)s")
    local = parser.add_argument_group("a model on this machine")
    local.add_argument("--batch-size", type=number(Size), default=64, help="responses at once (default: %(default)s)")
    local.add_argument("--max-prompt-tokens", type=number(Size), help="cut longer prompts at their start")
    local.add_argument("--precision", choices=("fp32", "bf16"), help="default: the run's own, else fp32")
    local.add_argument(
        "--generation-config",
        choices=("ignore", "model"),
        default="ignore",
        help="model: sample as the model's own generation_config.json says (default: leave its penalties and cuts out)",
    )
    parser.set_defaults(func=_run, standing=_standing)


def _standing(args: argparse.Namespace) -> tuple[str, list[str]]:
    part = args.out.with_name(f"{args.out.name}.part")
    if not part.is_file():
        return "nothing was finished.", []
    lines = part.read_bytes().count(b"\n")
    return f"{max(lines - 1, 0)} responses are kept in {part}.", []


def _run(args: argparse.Namespace) -> int:
    check_outputs(args, {"--out": args.out}, SAVE_SUFFIXES, [args.prompts])
    produce = _policy(args)
    prompts = load_prompts(args.prompts, split=args.split, columns=dict(args.column)).first(args.limit)
    if args.chat:
        prompts = prompts.as_chat()
    for note in prompts.notes:
        print(f"{args.prompts}: {note}", file=sys.stderr)
    from popmargin.generate.part_file import part_beside

    with part_beside(args.out) as part:
        produced = produce(prompts, part)
        produced.responses.save(args.out)
        part.unlink(missing_ok=True)
    for line in produced.lines():
        print(line)
    counts = f"{len(produced.responses.texts)} responses to {len(prompts)} prompts"
    print(f"wrote {counts} to {args.out}")
    return 0


def _policy(args: argparse.Namespace) -> Callable[[Prompts, Path], Any]:
    """The producer that a model's name means; a mistyped name is an error before any work."""
    from popmargin.generate.from_policy import policy_responses
    from popmargin.generate.sample import Sampling
    from popmargin.models.named_policy import find_policy

    policy = find_policy(args.model)
    sampling = Sampling(
        samples=args.n,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        generation_config=args.generation_config,
        batch_size=args.batch_size,
        seed=args.seed,
        precision=args.precision or policy.precision,
    )

    def produce(prompts: Prompts, part: Path) -> Any:
        print(f"sampling from {policy.name} at {sampling.drawn}", file=sys.stderr)
        return policy_responses(
            prompts,
            policy,
            sampling,
            source=args.source,
            round=args.round,
            max_prompt_tokens=args.max_prompt_tokens,
            part=part,
            progress=True,
        )

    return produce
