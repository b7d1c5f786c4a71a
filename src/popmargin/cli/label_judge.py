"""popmargin label judge: a model, a reward or the data's ratings label the items of a project."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from popmargin.bounds import Count, NotNegative, Positive, Size
from popmargin.cli.numbers import number
from popmargin.cli.store_options import add_store_arguments
from popmargin.config import apply_overrides
from popmargin.errors import ConfigError, counted
from popmargin.rewards.naming import FORMS, read_name

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
        "--reward-options",
        default="{}",
        metavar="YAML",
        help="arguments of a reward or judge, as in `pop sample`",
    )
    parser.add_argument(
        "--again", action="store_true", help="also ask again about unsure items: failed and unparsed answers"
    )
    parser.add_argument("--cache", type=Path, help="file with cached answers (default: in the user's cache folder)")
    server = parser.add_argument_group("judges on a server")
    server.add_argument("--workers", type=number(Size), help="concurrent requests (default: 8)")
    server.add_argument(
        "--requests-per-minute", type=number(Positive), help="maximum requests per minute (default: no limit)"
    )
    server.add_argument("--retries", type=number(Count), help="retries of a failed request (default: 5)")
    server.add_argument("--timeout", type=number(Positive), help="timeout of a request in seconds (default: 120)")
    server.add_argument("--max-tokens", type=number(Size), help="maximum tokens of an answer (default: 8)")
    server.add_argument("--api-key-env", metavar="NAME", help="environment variable with the API key")
    server.add_argument("--no-logprobs", action="store_true", help="do not ask for token probabilities")
    server.add_argument("--price-in", type=number(NotNegative), help="price per million prompt tokens")
    server.add_argument("--price-out", type=number(NotNegative), help="price per million completion tokens")
    server.add_argument(
        "--request",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="another field of the request, e.g. max_completion_tokens=512; null omits a field; may be repeated",
    )
    local = parser.add_argument_group("local judges")
    local.add_argument(
        "--batch-size", type=number(Size), help="prompts per batch; does not affect verdicts (default: 8)"
    )
    local.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32)")
    parser.set_defaults(func=_judge)


def _judge(args: argparse.Namespace) -> int:
    from popmargin.judges.labeller import Account
    from popmargin.label.labellers.labelling import count_unsure, label_store, store_strengths
    from popmargin.label.labellers.load import load_labeller
    from popmargin.label.store.address import open_store

    prompts: Any = {"pop": args.prompt, "preference": args.preference_prompt}
    with open_store(args.db) as store:
        project = store.project(args.project)
        labeller = load_labeller(
            args.judge,
            strengths=store_strengths(store, project.id) if read_name(args.judge).kind == "ratings" else None,
            prompts={kind: path for kind, path in prompts.items() if path is not None},
            orders=args.orders,
            name=args.name,
            **_options(args),
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


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """The given options; the labeller refuses flags that do not fit the judge."""
    from popmargin.cli.reward_options import reward_options

    given = {name: value for name in _OPTIONS if (value := getattr(args, name)) is not None}
    if args.no_logprobs:
        given["logprobs"] = False
    if args.again and _is_server_judge(args.judge):
        given["again"] = True
    if args.request:
        given["request"] = _fields(args.request)
    return given | reward_options(args)


def _is_server_judge(spec: str) -> bool:
    named = read_name(spec)
    return named.kind == "server" and named.use is None


def _fields(given: Sequence[str]) -> dict[str, Any]:
    """FIELD=VALUE flags as a mapping; values are YAML.

    Raises:
        ConfigError: one without a value.
    """
    fields: dict[str, Any] = {}
    for field in given:
        if "=" not in field:
            raise ConfigError(f"--request {field}: give a field and its value, e.g. max_completion_tokens=512.")
        fields = apply_overrides(fields, [f"--{field}"])
    return fields
