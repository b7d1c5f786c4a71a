"""`popmargin completion`."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "completion",
        help="write a script that completes commands in a shell",
        description="Write a script with which a shell completes verbs, flags, fields and their choices. For bash: "
        "popmargin completion bash > ~/.local/share/bash-completion/completions/popmargin",
    )
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from popmargin.cli.main import VERBS, build_parser

    parser = build_parser(VERBS)
    for action in _actions(parser):
        if action.type is Path:
            action.complete = shtab.FILE  # pyright: ignore[reportAttributeAccessIssue]  # as shtab wants it
    print(shtab.complete(parser, args.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments of a parser and of its verbs."""
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]
        yield action
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            for verb in action.choices.values():
                yield from _actions(verb)
