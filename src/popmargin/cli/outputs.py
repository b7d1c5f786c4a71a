"""The --overwrite and --code flags, and the check of output files before any work."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from popmargin.errors import ConfigError
from popmargin.files import check_output


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add --overwrite."""
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist (default: refuse)")


def add_code(parser: argparse.ArgumentParser) -> None:
    """Add --code, which `main` reads."""
    parser.add_argument(
        "--code",
        metavar="FILE",
        action="append",
        default=[],
        help="Python file (or module) that may run although only the run's own configuration names it; can be given "
        "several times",
    )


def check_outputs(
    args: argparse.Namespace,
    paths: dict[str, Path | None],
    suffixes: Sequence[str],
    inputs: Iterable[str | Path | None] = (),
) -> None:
    """Check a verb's output files (see `check_output`).

    Args:
        args: with --overwrite.
        paths: flag -> the file it names, None if not given.
        suffixes: allowed suffixes.
        inputs: what the verb reads.

    Raises:
        ConfigError: a file that cannot be written, or two flags that name one file.
    """
    sources, seen = list(inputs), dict[Path, str]()
    for flag, path in paths.items():
        if path is None:
            continue
        check_output(path, suffixes, overwrite=args.overwrite, inputs=sources)
        if path.resolve() in seen:
            raise ConfigError(f"{seen[path.resolve()]} and {flag} are both {path}. Name two files.")
        seen[path.resolve()] = flag
