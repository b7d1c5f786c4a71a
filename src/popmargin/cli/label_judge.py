"""popmargin label judge: a model, a reward or the data's ratings label the items of a project."""

import argparse
from pathlib import Path
from typing import Any

from popmargin.cli.store_options import add_store_arguments

_OPTIONS = ("cache", "workers", "requests_per_minute", "retries", "timeout", "max_tokens", "api_key_env", "price_in",
            "price_out", "batch_size", "dtype")  # fmt: skip


def add_parser(subparsers: Any) -> None:
    """Add `label judge` to the command line."""
    parser = subparsers.add_parser("judge", help="let a judge, a reward model or the data's ratings label all items")
    add_store_arguments(parser)
    parser.add_argument(
        "--judge",
        required=True,
        metavar="SPEC",
        help="openai:MODEL@URL, local:PATH, reward:SPEC (as in `pop sample`) or ratings",
    )
    parser.add_argument("--name", help="name of the annotator (default: from the judge)")
    parser.add_argument("--prompt", type=Path, metavar="FILE", help="judges' prompt for PoP items (default: built in)")
    parser.add_argument("--preference-prompt", type=Path, metavar="FILE", help="the same for preference items")
    parser.add_argument(
        "--orders", choices=("both", "one"), default="both", help="of judges; one order costs half, and shows no flips"
    )
    parser.add_argument(
        "--reward-options", default="{}", metavar="YAML", help="arguments of a reward, as in `pop sample`"
    )
    parser.add_argument("--cache", type=Path, help="file of answers (default: in the user's cache folder)")
    server = parser.add_argument_group("judges behind a server")
    server.add_argument("--workers", type=int, help="requests at a time (default: 8)")
    server.add_argument("--requests-per-minute", type=float, help="most requests in a minute (default: no limit)")
    server.add_argument("--retries", type=int, help="further attempts of a failed request (default: 5)")
    server.add_argument("--timeout", type=float, help="seconds for one request (default: 120)")
    server.add_argument("--max-tokens", type=int, help="of an answer (default: 8)")
    server.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the key")
    server.add_argument("--no-logprobs", action="store_true", help="do not ask for token probabilities")
    server.add_argument("--price-in", type=float, help="price of a million prompt tokens")
    server.add_argument("--price-out", type=float, help="price of a million completion tokens")
    local = parser.add_argument_group("local judges")
    local.add_argument("--batch-size", type=int, help="prompts at once; changes no verdict (default: 8)")
    local.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32)")
    parser.set_defaults(func=_judge)


def _judge(args: argparse.Namespace) -> int:
    from popmargin.label.edges import open_store
    from popmargin.label.sources.base import Account, label_store, store_strengths
    from popmargin.label.sources.load import load_labeller

    prompts: Any = {"pop": args.prompt, "preference": args.preference_prompt}
    with open_store(args.db) as store:
        project = store.project(args.project)
        labeller = load_labeller(
            args.judge,
            strengths=store_strengths(store, project.id) if args.judge == "ratings" else None,
            prompts={kind: path for kind, path in prompts.items() if path is not None},
            orders=args.orders,
            name=args.name,
            **_options(args),
        )
        account = Account()
        new = label_store(store, project.id, labeller, account, progress=True)
    print(f"{labeller.name}: {new} new labels in project '{project.name}'")
    print(account)
    return 0


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """What was given; a flag that does not fit the judge is refused by the labeller."""
    from popmargin.cli.rewards import reward_options

    given = {name: value for name in _OPTIONS if (value := getattr(args, name)) is not None}
    if args.no_logprobs:
        given["logprobs"] = False
    return given | reward_options(args)
