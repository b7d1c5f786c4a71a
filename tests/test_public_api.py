"""The public names and signatures: a change here is a change that users must be told of (CHANGELOG)."""

import doctest
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import popmargin
from few_fast import few_fast

NAMES = [
    "ConfigError",
    "DataError",
    "Golden",
    "Margin",
    "MissingExtraError",
    "Needs",
    "PopEdges",
    "PopmarginError",
    "PreferenceTrainer",
    "Preferences",
    "Responses",
    "Rows",
    "RunConfig",
    "RunError",
    "StudyConfig",
    "Table",
    "TrainedRun",
    "compare",
    "edge_statistics",
    "evaluate",
    "load_preferences",
    "load_study",
    "log_probs",
    "losses",
    "margin_source",
    "margins",
    "objective",
    "rate_preferences",
    "recommend",
    "regularizer",
    "response_features",
    "sample_edges",
    "split_preferences",
    "target_margins",
    "token_selector",
    "train",
    "write_report",
]
PARAMETERS = {
    "compare": "study, *, overwrite=False",
    "edge_statistics": "edges, ids, strength",
    "evaluate": "run, *, reward=None, config=None, allow_code=()",
    "load_preferences": "source, *, format='auto', split=None, pairs='best_vs_worst', min_gap=0.0, seed=0, "
    "bad_rows='error', columns=None, ties='drop', contradictions='error', "
    "unlabelled=None, per_prompt=1, max_image_pixels=33554432",
    "load_study": "path, overrides=(), changes=None",
    "log_probs": "model, tokenizer, preferences, *, per_token=False, max_length=1024, truncation='keep_prompt_end', "
    "precision='fp32', tokens_per_batch=4096",
    "margin_source": "name, *, options, needs=<factory>, known=<factory>, diagnostics=None",
    "margins": "model, reference, preferences, *, tokenizer=None, beta=None, max_length=1024, "
    "truncation='keep_prompt_end', precision='fp32', tokens_per_batch=4096",
    "objective": "name, *, options, score, origin, needs=<factory>, golden=(), diagnostics=None, init_state=None, "
    "update_state=None, every_row=(), decoupling=None, batch_statistics=None, supervised=None, token_counts=None, "
    "figure=<factory>, takes_margin='no'",
    "rate_preferences": "preferences, reward, *, disagree='error'",
    "regularizer": "name, *, options, reference, diagnostics=None, supervised=False, of='policy', needs=<factory>",
    "response_features": "preferences, *, model='demo', pool='last', layers=None, max_length=1024, cache=None, "
    "tokens_per_batch=4096, progress=False",
    "sample_edges": "ids, strength, *, sampling='chain', k=1, seed=0, flip=0.0, temperature=0.0, budget=None, "
    "unmatched='keep', source='ratings'",
    "split_preferences": "prefs, *, test_size, seed",
    "target_margins": "edges, gaps, *, margin_min=0.0, margin_max=10.0",
    "token_selector": "name, *, options",
    "train": "data, *, model, tokenizer=None, objective='pop', edges=None, test=None, output='runs/run', "
    "overwrite=False, resume=False, config=None",
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


@pytest.mark.parametrize("before", few_fast(["pass", "import popmargin.training.run, popmargin.evaluation.run"], (1,)))
def test_functions_are_not_hidden_by_packages_of_the_same_name(before: str) -> None:
    """Importing the package popmargin.x sets popmargin.x: a function x of the front door would be replaced."""
    code = f"{before}\nfrom popmargin import {', '.join(PARAMETERS)}\n"
    code += f"assert all(type(f).__name__ == 'function' for f in ({', '.join(PARAMETERS)}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_trainer_is_called_as_trls_with_three_keywords_more() -> None:
    from trl import DPOTrainer

    theirs, ours = (list(inspect.signature(kind).parameters) for kind in (DPOTrainer, popmargin.PreferenceTrainer))
    assert ours == [*theirs, "edges", "objective", "config"]


@pytest.mark.parametrize("name", ["chosen", "rejected", "reduction"])
def test_every_loss_takes_scores_and_a_reduction(name: str) -> None:
    for loss in dir(popmargin.losses):
        assert name in inspect.signature(getattr(popmargin.losses, loss)).parameters


def test_examples_of_the_front_door(
    tmp_path: Path, tiny_model: Any, tiny_tokenizer: Any, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples in docstrings, with a model, a tokenizer and preferences at hand."""
    monkeypatch.setenv("POPMARGIN_CACHE", str(tmp_path / "cache"))
    known = {"model": tiny_model, "tokenizer": tiny_tokenizer, "rows": rows, "output": str(tmp_path / "run")}
    items = [
        getattr(popmargin, name)
        for name in ("Table", "log_probs", "margins", "target_margins", "train", "TrainedRun", "evaluate")
    ]
    failed: list[str] = []
    for item in [*items, popmargin.PreferenceTrainer, popmargin.losses]:
        own = inspect.unwrap(item) if inspect.isfunction(item) else item
        scope = known if inspect.ismodule(item) else {**vars(sys.modules[item.__module__]), **known}
        test = doctest.DocTestParser().get_doctest(inspect.getdoc(own) or "", scope, item.__name__, None, None)
        assert test.examples, item
        result = doctest.DocTestRunner(verbose=False).run(test, clear_globs=False, out=failed.append)
        assert result.failed == 0, "".join(failed)
        known |= {"run": test.globs["run"]} if "run" in test.globs else {}


def test_every_error_is_caught_by_one() -> None:
    for name in ("ConfigError", "DataError", "RunError", "MissingExtraError"):
        assert issubclass(getattr(popmargin, name), popmargin.PopmarginError)
