"""Flags of every verb: none can be cut short, and a misspelt one is named before anything else is missed."""

import argparse
from collections.abc import Iterator

import pytest

from popmargin.cli.main import VERBS, build_parser, main


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser and those of all verbs below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from parsers(inner)


def test_no_verb_takes_a_flag_that_is_cut_short() -> None:
    """Else a script that says --jso breaks when a second flag begins so."""
    all_parsers = list(parsers(build_parser(VERBS)))
    assert len(all_parsers) > 40
    assert [parser.prog for parser in all_parsers if parser.allow_abbrev] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("label judge --jugde x", "Unknown argument '--jugde'. Did you mean '--judge'?"),
        ("label judge --judge=x --orderz=one", "Unknown argument '--orderz'. Did you mean '--orders'?"),
        ("label status --jso", "Unknown argument '--jso'. Did you mean '--json'?"),
        ("data split --sede 3", "Unknown argument '--sede'. Did you mean '--seed'?"),
        ("label status -x", "Unknown argument '-x'."),
        ("label status extra", "Unexpected argument 'extra'."),
    ],
)
def test_a_misspelt_flag_is_named(capsys: pytest.CaptureFixture[str], words: str, message: str) -> None:
    """What is wrong comes before what is missing."""
    assert main(words.split()) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
