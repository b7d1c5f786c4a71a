"""The `popmargin` command: finds the verb, runs it, and turns errors that a user can act on into one clear message."""

import argparse
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Collection, Sequence
from importlib.metadata import version
from typing import Any

from popmargin.cli.overrides import known_flags, split_overrides
from popmargin.code_permission import allow_code, note_named
from popmargin.engine.memory_pages import use_huge_pages
from popmargin.errors import ConfigError, PopmarginError, did_you_mean
from popmargin.files import near_names

VERBS = {
    "data": "inspect, check, convert and split preference data",
    "pop": "sample preferences over preferences and show their statistics",
    "label": "keep preferences to label in a database: import, annotators, status, export",
    "annotate": "label preferences, or pairs of them, in the browser",
    "objectives": "list the training objectives",
    "train": "train one policy or reward model",
    "eval": "evaluate a trained policy",
    "generate": "sample responses to prompts",
    "compare": "train and evaluate several objectives, and write a report",
    "study": "plan a study; what the next hour of an annotator buys",
    "rounds": "run a recipe of rounds: sample, label, pair, train, and again",
    "recommend": "recommend items: train a model, measure it, compare it with baselines",
    "report": "rebuild a report from finished runs",
    "demo": "run the controlled-sentiment study on the embedded model and data",
    "schema": "write the JSON schema of a configuration, for editors",
    "completion": "write a script that completes commands in a shell",
}


class _Parser(argparse.ArgumentParser):
    """argparse, with the nearest choice named for a misspelt one, and no flag cut short: that of today may be two."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            near = did_you_mean(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"'{value}' is unknown. {near}")


def build_parser(verbs: Collection[str | None]) -> argparse.ArgumentParser:
    """The parser; only the wanted verbs' modules are imported, so that help is quick."""
    parser = _Parser(
        prog="popmargin",
        description="Adaptive-margin preference optimization from preferences over preferences.",
    )
    parser.add_argument("--version", action="version", version=f"popmargin {version('popmargin')}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, summary in VERBS.items():
        if name in verbs:
            importlib.import_module(f"popmargin.cli.{name}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def _refuse_unknown_flags(arguments: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """A misspelt flag is said before argparse misses the right one."""
    flags = {flag for flag in known_flags(parser, arguments) if flag.startswith("--")}
    for argument in arguments[: arguments.index("--") if "--" in arguments else None]:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and flag not in flags:
            raise ConfigError(f"Unknown argument '{flag}'. {did_you_mean(flag, flags)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 (problems found) or 2 (error)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = next((argument for argument in arguments if not argument.startswith("-")), None)
    if verb is not None and verb not in VERBS:
        print(f"error: unknown verb '{verb}'. {did_you_mean(verb, VERBS)}", file=sys.stderr)
        return 2
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    use_huge_pages()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.|peft\.")
    args: argparse.Namespace | None = None
    try:
        parser = build_parser([verb])
        own, overrides = split_overrides(arguments, parser, verb)
        _refuse_unknown_flags(own, parser)
        args, unknown = parser.parse_known_args(own)
        if unknown:
            kind = "Unknown" if unknown[0].startswith("-") else "Unexpected"
            raise ConfigError(f"{kind} argument '{unknown[0]}'. popmargin {verb} --help lists what it takes.")
        args.overrides, args.arguments = overrides, arguments
        note_named([part for word in arguments for part in (word, word.partition("=")[2])])
        allow_code(getattr(args, "code", ()))
        return int(args.func(args))
    except PopmarginError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        from popmargin.cli.interrupted import say_where_it_stands

        print(f"\n{say_where_it_stands(arguments, args)}", file=sys.stderr)
        return 128 + getattr(stop, "signal", signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None:  # not about a file the user named: a traceback is more useful
            raise
        near = f" {hint}" if isinstance(error, FileNotFoundError) and (hint := near_names(error.filename)) else ""
        said = f"{error.filename}: {error.strerror}.{near} Check the path and its permissions."
        print(f"error: {said}", file=sys.stderr)
        return 2
