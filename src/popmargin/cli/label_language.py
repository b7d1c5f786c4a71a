"""popmargin label language: print or write the texts of the annotators' pages, or check a translation of them."""

import argparse
from pathlib import Path
from typing import Any

from popmargin.errors import ConfigError, counted
from popmargin.files import whole_file
from popmargin.label.language.page_texts import ENGLISH, SHIPPED, check, shipped, shipped_file
from popmargin.yaml_file import read_mapping


def add_parser(subparsers: Any) -> None:
    """Add `label language` to the command line."""
    parser = subparsers.add_parser("language")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", type=Path, metavar="FILE", help="write the texts there, to be translated")
    action.add_argument("--check", type=Path, metavar="FILE", help="say what is missing or wrong in a translation")
    parser.add_argument(
        "--of", choices=SHIPPED, default=ENGLISH, help="which of the shipped languages (default: %(default)s)"
    )
    parser.set_defaults(func=_language)


def _language(args: argparse.Namespace) -> int:
    if args.check is not None:
        found = read_mapping(args.check)
        check(found, str(args.check))
        english = shipped(ENGLISH).by_key
        same = [key for key in english if found[key] == english[key] and found["lang"] != ENGLISH]
        print(f"{args.check}: language {found['lang']}, {counted(len(found), 'text')}, complete")
        if same:
            print(f"as in English: {', '.join(same)}")
        return 0
    text = shipped_file(args.of)
    if args.write is None:
        print(text, end="")
        return 0
    if args.write.exists():
        raise ConfigError(f"{args.write} exists already. Give another name, or remove it first.")
    with whole_file(args.write) as file:
        file.write_text(text, encoding="utf-8")
    print(
        f"wrote {counted(len(shipped(args.of).by_key), 'text')} to {args.write}; translate them, and give the file with"
    )
    print(f"popmargin label set --language {args.write}")
    return 0
