"""Help says each word once."""

import re

import pytest

from popmargin.cli.main import main


def help_of(capsys: pytest.CaptureFixture[str], *verb: str) -> str:
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*verb, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", [("label",), ("label", "import")])
def test_help_repeats_no_word(capsys: pytest.CaptureFixture[str], verb: tuple[str, ...]) -> None:
    """No word stands twice in a row; a search and replace once left four."""
    text = help_of(capsys, *verb)
    assert "usage: popmargin label" in text and not re.search(r"\b([a-z]+) \1\b", text)


def test_help_keeps_greek_letters_small(capsys: pytest.CaptureFixture[str]) -> None:
    """β₁ at the start of a sentence stays β₁."""
    assert "β₁ and β₂ of AdamW." in help_of(capsys, "train")
