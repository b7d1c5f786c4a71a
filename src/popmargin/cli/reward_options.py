"""Flags of verbs that use a reward."""

import argparse
from typing import Any

import yaml

from popmargin.cli.cost_options import add_cost_options
from popmargin.errors import ConfigError
from popmargin.rewards.base import Reward
from popmargin.rewards.image_rewards import ImageReward
from popmargin.rewards.load import loader
from popmargin.rewards.naming import FORMS, read_name
from popmargin.yaml_file import parse_yaml


def add_reward_arguments(parser: argparse.ArgumentParser, *, required: bool, purpose: str) -> None:
    """Add --reward and --reward-options."""
    parser.add_argument(
        "--reward",
        required=required,
        metavar="SPEC",
        help=f"{purpose}: {FORMS}",
    )
    parser.add_argument(
        "--reward-options",
        default="{}",
        metavar="YAML",
        help="more arguments for a reward model or judge, e.g. '{batch_size: 4, device: cuda}'",
    )
    add_cost_options(parser.add_argument_group("judges on a server"))


def parse_options(text: str, flag: str) -> dict[str, Any]:
    """The mapping that a flag gives as YAML.

    Raises:
        ConfigError: it is not a YAML mapping.
    """
    try:
        options = parse_yaml(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or error
        raise ConfigError(f"{flag} is not YAML: {problem}. Write '{{batch_size: 4}}'.") from error
    if not isinstance(options, dict):
        raise ConfigError(f"{flag} must be a mapping such as '{{batch_size: 4}}', not {text}.")
    return {str(name): value for name, value in options.items()}


def reward_options(args: argparse.Namespace) -> dict[str, Any]:
    """The mapping in --reward-options.

    Raises:
        ConfigError: it is not a YAML mapping.
    """
    return parse_options(args.reward_options, "--reward-options")


def reward_of(args: argparse.Namespace, work: str, *, images: bool = False) -> Reward | ImageReward:
    """The reward that the flags name, of texts or of images.

    Args:
        args: the flags.
        work: what payments of earlier runs are counted for.
        images: the responses are images.

    Raises:
        ConfigError: the specification or an option is not understood.
    """
    named = read_name(args.reward)
    paid = {name: value for name in ("price_in", "price_out", "max_cost") if (value := getattr(args, name)) is not None}
    if paid and named.kind != "server":
        flag = f"--{next(iter(paid)).replace('_', '-')}"
        raise ConfigError(f"{flag} is for judges on a server, and {args.reward} is none. Remove one of them.")
    given = ({"account": work} if named.kind == "server" else {}) | reward_options(args) | paid
    return loader(images=images)(args.reward, **given)
