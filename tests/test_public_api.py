"""The public names and signatures: a change here is a change that users must be told of (CHANGELOG)."""

import inspect
import subprocess
import sys

import pytest

import popmargin

NAMES = [
    "ConfigError",
    "DataError",
    "Golden",
    "Margin",
    "MissingExtraError",
    "Needs",
    "PopEdges",
    "PopmarginError",
    "Preferences",
    "Rows",
    "RunConfig",
    "RunError",
    "StudyConfig",
    "compare",
    "edge_statistics",
    "evaluate",
    "load_preferences",
    "load_study",
    "margin_source",
    "objective",
    "rate_preferences",
    "regularizer",
    "sample_edges",
    "split_preferences",
    "token_selector",
    "train",
    "write_report",
]
PARAMETERS = {
    "compare": "study, *, overwrite=False",
    "edge_statistics": "edges, ids, strength",
    "evaluate": "run, *, reward=None, config=None",
    "load_preferences": "source, *, format='auto', split=None, pairs='best_vs_worst', min_gap=0.0, seed=0, "
    "bad_rows='error', columns=None, ties='drop'",
    "load_study": "path, overrides=(), changes=None",
    "margin_source": "name, *, options, needs=<factory>, known=<factory>, diagnostics=None",
    "objective": "name, *, options, score, origin, needs=<factory>, golden=(), diagnostics=None, init_state=None, "
    "update_state=None, batch_statistics=None, supervised=None, figure=<factory>, takes_margin='no'",
    "rate_preferences": "preferences, reward, *, disagree='error'",
    "regularizer": "name, *, options, reference, diagnostics=None, supervised=False, of='policy', needs=<factory>",
    "sample_edges": "ids, strength, *, sampling='iterative', k=1, seed=0, flip=0.0, temperature=0.0, budget=None, "
    "unmatched='keep', source='ratings'",
    "split_preferences": "prefs, *, test_size, seed",
    "token_selector": "name, *, options, needs=<factory>",
    "train": "data, *, model, objective='pop', edges=None, test=None, output='runs/run', overwrite=False, "
    "resume=False, config=None",
    "write_report": "results, path",
}


def written(function: object) -> str:
    parts: list[str] = []
    for parameter in inspect.signature(function).parameters.values():  # pyright: ignore[reportArgumentType]
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        parts.append(f"{parameter.name}{default}")
    return ", ".join(parts)


def test_names() -> None:
    assert sorted(popmargin.__all__) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_signatures(name: str) -> None:
    item = getattr(popmargin, name)
    assert item.__doc__, f"{name} has no docstring"
    if inspect.isfunction(item):
        assert written(item) == PARAMETERS[name]


@pytest.mark.parametrize("before", ["pass", "import popmargin.training.run, popmargin.evaluation.run"])
def test_functions_are_not_hidden_by_packages_of_the_same_name(before: str) -> None:
    """Importing the package popmargin.x sets popmargin.x: a function x of the front door would be replaced."""
    code = f"{before}\nfrom popmargin import {', '.join(PARAMETERS)}\n"
    code += f"assert all(type(f).__name__ == 'function' for f in ({', '.join(PARAMETERS)}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_error_is_caught_by_one() -> None:
    for name in ("ConfigError", "DataError", "RunError", "MissingExtraError"):
        assert issubclass(getattr(popmargin, name), popmargin.PopmarginError)
