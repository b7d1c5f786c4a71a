"""`--any.field value` flags of verbs that take a configuration."""

import argparse
from collections.abc import Sequence

CONFIGURED = ("train", "eval", "compare", "demo")


def split_overrides(
    arguments: Sequence[str], parser: argparse.ArgumentParser, verb: str | None
) -> tuple[list[str], list[str]]:
    """Take the flags that override configuration fields out of the arguments.

    Args:
        arguments: everything after `popmargin`.
        parser: its parser, with the verb's own flags.
        verb: the verb; others than those with a configuration have no overrides.

    Returns:
        The arguments for the parser, and the override flags with their values.
    """
    if verb not in CONFIGURED:
        return list(arguments), []
    actions = _verb_parser(parser, verb)._actions  # pyright: ignore[reportPrivateUsage]
    own_flags = {flag for action in actions for flag in action.option_strings}
    own, overrides = list[str](), list[str]()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, equals, _ = argument.partition("=")
        if not argument.startswith("--") or flag in own_flags:
            own.append(argument)
            continue
        overrides.append(argument)
        if not equals and rest:
            overrides.append(rest.pop(0))
    return own, overrides


def _verb_parser(parser: argparse.ArgumentParser, verb: str) -> argparse.ArgumentParser:
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            return action.choices[verb]
    raise AssertionError("the parser has no verbs")


def known_flags(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """The flags of a parser and of the verbs that the arguments name."""
    flags: list[str] = []
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]
        flags += action.option_strings
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            verbs = [argument for argument in arguments if argument in action.choices]
            flags += [flag for verb in verbs[:1] for flag in known_flags(action.choices[verb], arguments)]
    return flags
