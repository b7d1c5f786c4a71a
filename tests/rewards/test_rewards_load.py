"""Reward specifications: Python code, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from popmargin.errors import ConfigError, RunError
from popmargin.rewards.base import Reward
from popmargin.rewards.load import load_reward

CODE = """
def length(prompts, completions):
    return [len(c) for c in completions]

class Twice:
    def score(self, prompts, completions):
        return [2.0 * len(c) for c in completions]

twice = Twice()
number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_reward_module.py").write_text(CODE)
    (tmp_path / "needy_reward_module.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    return "my_reward_module"


@pytest.mark.parametrize("end", ["", ".py"])
def test_functions_and_objects_are_found_in_the_working_directory(module: str, end: str) -> None:
    assert load_reward(f"{module}{end}:length").score(["p", "p"], ["a", "abc"]) == [1.0, 3.0]
    assert load_reward(f"{module}{end}:twice").score(["p"], ["abc"]) == [6.0]
    assert load_reward(f"{module}{end}:twice.score").score(["p"], ["a"]) == [2.0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("my_reward_module:lenght", "Did you mean 'length'"),
        ("no_such_module_here:f", r"no module 'no_such_module_here'.*path/to/file.py"),
        ("needy_reward_module:f", "needs 'a_module_that_is_not_there'"),
        ("absent.py:f", "No such file for the reward: absent.py"),
        ("my_reward_module:number", "is of type int; it must be a function"),
        ("math:sqrt", r"'math:sqrt' cannot be called with prompts= and completions= \(.*returns one number per"),
        ("builtins:max", r"'builtins:max' cannot be called with prompts= and completions="),
        ("my_reward_module", "is not understood"),
    ],
)
def test_a_specification_that_names_nothing_says_what_to_do(module: str, spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_reward(spec)


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="takes no options"):
        load_reward(lambda prompts, completions: [], model="x")
    with pytest.raises(ConfigError, match=r"no option 'modle'. Did you mean 'model'"):
        load_reward("judge:http://localhost:1/v1", modle="x")
    with pytest.raises(ConfigError, match="Did you mean 'batch_size'"):
        load_reward("model:nowhere", batchsize=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], r"shape \(1,\) for 2 completions"),
        ([1.0, float("nan")], "nan for completion 1"),
        ([[1.0], [2.0]], "one number each"),
        (["a", "b"], "not numbers"),
        (None, "not numbers|one number each"),
    ],
)
def test_answers_that_are_not_one_finite_number_each_are_refused(values: Any, message: str) -> None:
    with pytest.raises(RunError, match=message):
        load_reward(lambda prompts, completions: values).score(["p", "p"], ["a", "b"])


def test_arrays_and_whole_numbers_become_floats() -> None:
    rewards = load_reward(lambda prompts, completions: np.array([1, 2])).score(["p", "p"], ["a", "b"])
    assert rewards == [1.0, 2.0]
    assert all(type(value) is float for value in rewards)


def test_a_reward_object_is_itself_and_rows_must_fit() -> None:
    reward = load_reward(lambda prompts, completions: [0.0 for _ in completions])
    assert isinstance(reward, Reward)
    assert load_reward(reward) is reward
    with pytest.raises(RunError, match="1 prompt but 2 completions"):
        reward.score(["p"], ["a", "b"])
