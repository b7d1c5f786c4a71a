"""Messages count in plain English: never "1 rows"."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import popmargin

SOURCE = Path(popmargin.__file__).parent
NOUNS = (
    "annotators", "answers", "calls", "characters", "clusters", "columns", "comparisons", "completions",
    "edges", "files", "ids", "items", "labels", "messages", "pairs", "preferences", "problems", "prompts",
    "questions", "responses", "rows", "runs", "samples", "seeds", "steps", "strengths", "texts", "tokens",
    "values", "verdicts",
)  # fmt: skip
NEVER_ONE = {
    "study/standard.py": "an arm is only dropped from a study on data with several preferences",
}
"""Files with a count that is never 1, and why."""


def bare_counts(source: str) -> Iterator[tuple[int, str]]:
    """Line and noun of every `{len(…)} nouns` in an f-string that is not made by `errors.counted`.

    `{n} of {len(…)} nouns` is found as well: "1 of 1 rows" is wrong, too.
    """
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, text in zip(node.values, node.values[1:], strict=False):
            counts = isinstance(value, ast.FormattedValue) and ast.unparse(value.value).startswith("len(")
            if counts and isinstance(text, ast.Constant):
                word = re.match(r" (?:[a-z-]+ )?([a-z]+)\b", str(text.value))
                if word and word[1] in NOUNS:
                    yield node.lineno, word[1]


def test_a_bare_count_is_found() -> None:
    source = 'f"{len(rows)} rows"; f"{len(a)} distinct prompts"; f"{counted(len(rows), \'row\')}"; f"{name} rows"'
    assert [noun for _, noun in bare_counts(source)] == ["rows", "prompts"]


def test_no_message_says_one_rows() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line}: {noun}"
        for path in sorted(SOURCE.rglob("*.py"))
        if str(path.relative_to(SOURCE)) not in NEVER_ONE
        for line, noun in bare_counts(path.read_text(encoding="utf-8"))
    ]
    assert not found, f"use popmargin.errors.counted: {found}"
