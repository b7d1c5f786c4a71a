"""Every example in a docstring runs and says what it says, and every public name has one."""

import ast
import doctest
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import popmargin
from popmargin.registry import Registry

SOURCE = Path(popmargin.__file__).parent
ROOT = SOURCE.parents[1]
FILES = [path for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
WITH_OBJECTS = {SOURCE / "api" / name for name in ("preference_trainer.py", "runs.py", "scoring.py")}
"""Their examples need a model at hand: tests/test_public_api.py runs them."""


def docstrings(path: Path) -> list[tuple[str, int, str]]:
    """The docstrings of a file, those beside assignments too: what they are of, their line and text."""
    found: list[tuple[str, int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        before: Any = node
        body = getattr(node, "body", None)  # of a lambda, an expression
        for statement in body if isinstance(body, list) else []:
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                named = before.targets[0] if isinstance(before, ast.Assign) else before
                name = getattr(named, "name", getattr(named, "id", path.stem))
                found.append((name, value.lineno, value.value))
            before = statement
    return found


@pytest.mark.parametrize(
    "path", [path for path in FILES if path not in WITH_OBJECTS], ids=lambda path: str(path.relative_to(SOURCE))
)
def test_examples(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if "kernels" in path.parts and importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    module = importlib.import_module(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts))
    monkeypatch.chdir(tmp_path)
    for value in list(vars(module).values()):
        if isinstance(value, Registry):  # what an example registers is gone after it
            value.names()
            monkeypatch.setattr(value, "_entries", dict(value._entries))
    runner, said, parser = doctest.DocTestRunner(verbose=False), list[str](), doctest.DocTestParser()
    for name, line, text in docstrings(path):
        example = parser.get_doctest(text, vars(module).copy(), name, str(path), line - 1)
        runner.run(example, out=said.append)
    written = len(re.findall(r"^ *>>> ", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert not runner.failures, "".join(said)
    assert runner.tries == written, "an example stands where no docstring is"


def test_every_public_name_has_an_example_that_runs() -> None:
    """In its docstring, in the README's Python, which tests/docs runs, or as a verb of the documentation's commands."""
    shown = {name for path in FILES for name, _, text in docstrings(path) if ">>> " in text}
    methods = {
        node.name
        for path in FILES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and ">>> " in ast.unparse(node)
    }
    readme = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M)
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    commands = re.findall(
        r"^popmargin (\w+)", "\n".join(page.read_text(encoding="utf-8") for page in pages), re.MULTILINE
    )
    imported = ", ".join(re.findall(r"^from popmargin import (.*)$", readme[0] + readme[-1], re.MULTILINE)).split(", ")
    shown |= methods | set(imported) | set(commands)
    assert sorted(set(popmargin.__all__) - shown) == []
