"""Help says each word once."""

import re
import subprocess
from collections.abc import Callable

import pytest

Popmargin = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("verb", [("label",), ("label", "import")])
def test_help_repeats_no_word(popmargin: Popmargin, verb: tuple[str, ...]) -> None:
    """No word stands twice in a row; a search and replace once left four."""
    assert not re.search(r"\b([a-z]+) \1\b", popmargin(*verb, "--help").stdout)


def test_help_keeps_greek_letters_small(popmargin: Popmargin) -> None:
    """β₁ at the start of a sentence stays β₁."""
    assert "β₁ and β₂ of AdamW." in popmargin("train", "--help").stdout
