"""The page on data: every layout, column and alias stands there, and every small file is read as the page says."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

from popmargin.data import load_preferences
from popmargin.data.formats import ALIASES, FORMATS
from popmargin.data.formats.responses import RATING_FIELDS, TEXT_FIELDS
from popmargin.data.images import encode_png
from popmargin.data.pairs import PAIRINGS
from popmargin.pop.edges import SCHEMA, PopEdges

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def examples() -> list[tuple[str, str, str]]:
    """(layout, file type, content) of every small file under a layout's heading."""
    found: list[tuple[str, str, str]] = []
    for section in re.split(r"^### ", PAGE, flags=re.M)[1:]:
        name = section.partition("\n")[0].strip("`")
        found += [(name, kind, text) for kind, text in re.findall(r"^```(jsonl|csv)\n(.*?)^```", section, re.S | re.M)]
    return found


def test_every_layout_has_a_heading_and_a_file() -> None:
    assert {name for name, _, _ in examples()} == set(FORMATS)
    assert len(examples()) >= len(FORMATS)


@pytest.mark.parametrize(("name", "kind", "text"), examples())
def test_small_files_are_read_as_the_layout_they_stand_under(tmp_path: Path, name: str, kind: str, text: str) -> None:
    file = tmp_path / f"x.{kind}"
    file.write_text(text, encoding="utf-8")
    for number, image in enumerate(sorted(set(re.findall(r"\w+\.png", text)))):
        (tmp_path / image).write_bytes(encode_png(np.full((2, 2, 3), number, np.uint8)))
    preferences = load_preferences(file)
    assert preferences.report.format == name
    assert not preferences.report.problems
    for row in preferences.dataset:
        assert "Seven" not in str(row["chosen"]) and "Go away" not in str(row["chosen"])


def test_every_field_and_alias_is_in_the_table() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*)", PAGE.partition("## In Python")[0], re.M))
    listed = {name: tuple(re.findall(r"`(\w+)`", cell)) for name, cell in rows.items()}
    assert listed.pop("prompt_input") == ("input", "instruction")
    assert listed == {name: names for name, names in ALIASES.items() if name != "prompt_input"}
    assert all(f"`{name}`" in PAGE for name in (*TEXT_FIELDS, *RATING_FIELDS))


def test_the_python_of_the_page_gives_what_it_shows() -> None:
    text = "".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M))
    test = doctest.DocTestParser().get_doctest(text, {}, "data.md", "data.md", 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test)
    assert (runner.tries, runner.failures) == (len(test.examples), 0) and len(test.examples) >= 12


def test_the_ways_of_pairing_are_on_the_page() -> None:
    section = PAGE.partition("## In Python")[2].partition("## Edges")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \| [^|]*\|$", section, re.M)) == PAIRINGS


def test_the_edges_columns_and_files(tmp_path: Path) -> None:
    section = PAGE.partition("## Edges")[2]
    assert re.findall(r"^\| `(\w+)`", section, re.M) == SCHEMA.names
    table, lines = re.findall(r"^```edges\n(.*?)^```", section, re.S | re.M)
    for name, text, ties in (("x.csv", table, 1), ("x.jsonl", lines, 0)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        edges = PopEdges.load(tmp_path / name)
        assert len(edges) == 2 and sum(edges.table["tie"].to_pylist()) == ties
