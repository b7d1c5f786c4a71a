"""Flags of verbs that use a judge: options of servers and of local models."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from popmargin.bounds import Count, Positive, Size
from popmargin.cli.cost_options import add_cost_options
from popmargin.cli.numbers import number
from popmargin.cli.reward_options import reward_options
from popmargin.config import apply_overrides
from popmargin.errors import ConfigError, counted
from popmargin.rewards.naming import read_name

_OPTIONS = ("cache", "workers", "requests_per_minute", "retries", "timeout", "max_tokens", "api_key_env", "price_in",
            "price_out", "batch_size", "dtype")  # fmt: skip


def add_judge_options(parser: argparse.ArgumentParser, *, panel: bool = False) -> None:
    """Add --reward-options, --cache, and the flags of judges on a server and of local ones.

    Args:
        parser: to add them to.
        panel: several judges are named; what differs between them is given once, or once for each (`of_judge`).
    """
    each: dict[str, Any] = {"action": "append"} if panel else {}
    parser.add_argument(
        "--reward-options",
        metavar="YAML",
        help="arguments of a reward or judge, as in `pop sample`",
        **(each or {"default": "{}"}),
    )
    parser.add_argument("--cache", type=Path, help="file with cached answers (default: in the user's cache folder)")
    server = parser.add_argument_group("judges on a server")
    add_server_options(server, each)
    server.add_argument("--max-tokens", type=number(Size), help="maximum tokens of an answer (default: 8)")
    add_cost_options(server, "these judges" if panel else "this judge", each)
    if panel:
        server.add_argument(
            "--batch",
            action="store_true",
            help="ask by the server's batch endpoint (/v1/batches): often at half the price, within a day; a run that "
            "was stopped finds its batches again",
        )
        server.add_argument(
            "--batch-poll",
            type=number(Positive),
            metavar="SECONDS",
            help="time between two looks at a batch (default: 30)",
        )
    local = parser.add_argument_group("local judges")
    local.add_argument(
        "--batch-size", type=number(Size), help="prompts per batch; does not affect verdicts (default: 8)"
    )
    local.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32)")


def add_server_options(server: Any, each: Mapping[str, Any] | None = None) -> None:
    """Add how a server is reached and what else a request says, to a group of flags; `each` is of its key."""
    server.add_argument("--workers", type=number(Size), help="concurrent requests (default: 8)")
    server.add_argument(
        "--requests-per-minute", type=number(Positive), help="maximum requests per minute (default: no limit)"
    )
    server.add_argument("--retries", type=number(Count), help="retries of a failed request (default: 5)")
    server.add_argument("--timeout", type=number(Positive), help="timeout of a request in seconds (default: 120)")
    server.add_argument("--api-key-env", metavar="NAME", help="environment variable with the API key", **(each or {}))
    server.add_argument("--no-logprobs", action="store_true", help="do not ask for token probabilities")
    server.add_argument(
        "--request",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="another field of the request, e.g. max_completion_tokens=512; null omits a field; may be repeated",
    )


_OF_EACH = ("name", "reward_options", "price_in", "price_out", "api_key_env")


def of_judge(args: argparse.Namespace, number: int) -> argparse.Namespace:
    """The flags of one judge of a panel.

    Raises:
        ConfigError: a flag is given neither once nor once for each judge.
    """
    one = argparse.Namespace(**vars(args))
    one.judge = args.judge[number]
    for flag in _OF_EACH:
        given = getattr(args, flag) or [None]
        name = f"--{flag.replace('_', '-')}"
        if len(given) not in (1, len(args.judge)) or (flag == "name" and given[0] and len(given) < len(args.judge)):
            once = "" if flag == "name" else "once for all, or "
            raise ConfigError(
                f"{name} is given {counted(len(given), 'time')} for {counted(len(args.judge), 'judge')}. Give it "
                f"{once}once for each, in the order of --judge."
            )
        setattr(one, flag, given[number if len(given) > 1 else 0])
    one.reward_options = one.reward_options or "{}"
    return one


def judge_options(args: argparse.Namespace) -> dict[str, Any]:
    """The given options; the labeller refuses flags that do not fit the judge.

    Raises:
        ConfigError: a flag without a value, or --reward-options that are not a mapping.
    """
    given = {name: value for name in _OPTIONS if (value := getattr(args, name)) is not None}
    if getattr(args, "batch", False):
        given["batch"] = True
        if args.batch_poll is not None:
            given["batch_poll"] = args.batch_poll
    elif getattr(args, "batch_poll", None) is not None:
        raise ConfigError("--batch-poll is for --batch. Give both, or neither.")
    if args.no_logprobs:
        given["logprobs"] = False
    if args.request:
        given["request"] = request_values(args.request)
    return given | reward_options(args)


def is_server_judge(spec: str) -> bool:
    """Whether a name is that of a judge behind a server."""
    named = read_name(spec)
    return named.kind == "server" and named.use is None


def request_values(given: Sequence[str]) -> dict[str, Any]:
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
