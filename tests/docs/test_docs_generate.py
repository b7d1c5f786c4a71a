"""The Python of the page on generating runs and says what it says."""

import doctest
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "generate.md"


def test_the_python_of_the_page_works(tiny_model: Any, tiny_tokenizer: Any) -> None:
    names = {"model": tiny_model, "tokenizer": tiny_tokenizer}
    result = doctest.testfile(str(PAGE), module_relative=False, globs=names)
    assert result.attempted > 5 and not result.failed
