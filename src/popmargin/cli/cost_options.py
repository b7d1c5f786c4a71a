"""Flags of verbs that pay a server: its prices, and the most that may be paid."""

import argparse
from collections.abc import Mapping
from typing import Any

from popmargin.bounds import NotNegative
from popmargin.cli.numbers import number
from popmargin.errors import ConfigError
from popmargin.rewards.naming import read_name


def add_cost_options(group: Any, whom: str = "this judge", each: Mapping[str, Any] | None = None) -> None:
    """Add the prices of a server and the limit of what is paid; `each` is of the prices."""
    of_each: dict[str, Any] = dict(each or {})
    group.add_argument("--price-in", type=number(NotNegative), help="price per million prompt tokens", **of_each)
    group.add_argument("--price-out", type=number(NotNegative), help="price per million completion tokens", **of_each)
    group.add_argument(
        "--max-cost",
        type=number(NotNegative),
        metavar="COST",
        help=f"most that {whom} may cost for this work, earlier runs included, in the currency of the prices; a call "
        "that might go past it is not made (default: no limit)",
    )


def paying(args: argparse.Namespace, spec: str, work: str) -> dict[str, Any]:
    """Options of a judge that pay its calls within --max-cost.

    Args:
        args: the flags of `add_cost_options`.
        spec: names the judge or reward.
        work: what payments of earlier runs are counted for.

    Raises:
        ConfigError: --max-cost for something that is not paid.
    """
    named = read_name(spec)
    if named.kind != "server":
        if args.max_cost is not None:
            raise ConfigError(f"--max-cost is for judges on a server, and {spec} is none. Remove one of them.")
        return {}
    if named.use == "reward":
        return {"account": work} | ({} if args.max_cost is None else {"max_cost": args.max_cost})
    from popmargin.generate.spending import Budget

    return {"budget": Budget(args.max_cost), "scope": work}
