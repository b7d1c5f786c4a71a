"""`task` is a name, or a mapping with a name and options: read, refused, merged, stored and compared as such."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from popmargin.bounds import Size
from popmargin.cli.schema import run_schema
from popmargin.config import RunConfig, apply_overrides, from_dict, merge, section, to_dict
from popmargin.config.described import descriptions, fields_of
from popmargin.errors import ConfigError
from popmargin.tasks.base import TASKS, TaskEntry, read_task
from popmargin.tasks.language import LanguageTask
from popmargin.training.inputs import differences, with_absolute_paths


@section("task.noise")
class Noise:
    """Of the pair.

    Attributes:
        source: of it.
        steps: how many.
    """

    source: Literal["shared", "inversion"] = "shared"
    steps: Size = 5


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of a test.

    Attributes:
        size: of something.
        noise: of the pair.
    """

    size: Size = 8
    noise: Noise = field(default_factory=Noise)


@pytest.fixture(autouse=True)
def pictures() -> Any:
    TASKS.names()
    entries = TASKS._entries
    entries["pictures"] = TaskEntry(name="pictures", function=LanguageTask, options=Options)
    yield
    del entries["pictures"]


def config(task: Any) -> RunConfig:
    return from_dict(RunConfig, {"task": task})


def test_a_task_without_options_is_its_name() -> None:
    for task in ("pictures", {"name": "pictures"}):
        read = config(task)
        assert read.task == read.task_name == "pictures" and to_dict(read)["task"] == "pictures"
        assert read_task(read.task)[1] == Options()


def test_options_are_read_and_kept() -> None:
    task = {"name": "pictures", "noise": {"source": "inversion"}, "size": 3}
    read = config(task)
    assert read.task_name == "pictures" and from_dict(RunConfig, to_dict(read)) == read
    assert read_task(read.task)[1] == Options(size=3, noise=Noise(source="inversion"))
    assert config(with_absolute_paths(read).task) == read


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (3, "task must be a name, or a mapping with `name` and options, not 3."),
        ({}, "task.name is missing or not text, e.g. {name: images}."),
        ({"size": 8}, "task.name is missing or not text (it has size), e.g. {name: images}."),
        ({"name": "pictures", 1: 2}, "task.1: a key must be text."),
        ({"name": "pictures", "sise": 8}, "task 'pictures' has no option 'sise'. Did you mean 'size'?"),
        ({"name": "pictures", "size": 0}, "task.size must be at least 1, not 0."),
        ({"name": "pictures", "noise": {"step": 2}}, "Unknown key 'task.noise.step'. Did you mean"),
        ({"name": "pictures", "noise": "inversion"}, "not 'inversion'. Write {source: inversion}."),
        ({"name": "pictures", "noise": {"source": "inversoin"}}, "is 'inversoin'. Did you mean 'inversion'?"),
        ({"name": "policy", "size": 8}, "task 'policy' has no option 'size'."),
        ("polisy", "Unknown task 'polisy'. Did you mean 'policy'?"),
    ],
)
def test_refused(task: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_task(config(task).task)
    assert message in str(error.value)


def test_flags_and_arms_go_over_a_name_alone() -> None:
    assert apply_overrides({"task": "pictures"}, ["--task.size", "4", "--task.noise.steps", "2"]) == {
        "task": {"name": "pictures", "size": 4, "noise": {"steps": 2}}
    }
    base = {"task": "pictures", "seed": 1}
    assert merge(base, {"task": {"size": 4}}) == {"task": {"name": "pictures", "size": 4}, "seed": 1}
    assert merge({"task": {"name": "pictures", "size": 4}}, {"task": "reward"}) == {"task": "reward"}
    assert merge({"task": {"name": "pictures", "size": 4}}, {"task": {"name": "reward"}}) == {
        "task": {"name": "reward"}
    }
    assert base == {"task": "pictures", "seed": 1}


def test_changed_options_are_another_run() -> None:
    plain, four, five = (config(task) for task in ("pictures", {"name": "pictures", "size": 4},
                                                   {"name": "pictures", "size": 5}))  # fmt: skip
    assert differences(plain, plain) == {} and differences(four, four) == {}
    assert differences(four, five) == {"task.size": "4 → 5"}
    assert differences(plain, four) == {"task.size": "not set → 4"}
    assert differences(plain, config("policy")) == {"task": "pictures → policy"}


def test_the_schema_describes_them() -> None:
    import jsonschema_rs

    validator = jsonschema_rs.validator_for(run_schema())
    fine = [
        "pictures",
        "mine.py:Task",
        {"name": "pictures", "size": 3, "noise": {"steps": 2}},
        {"name": "my:T", "x": 1},
    ]
    assert all(validator.is_valid({"task": task}) for task in fine)
    wrong = [3, {"name": "pictures", "sise": 3}, {"name": "pictures", "noise": {"step": 2}}, {"name": "policy", "x": 1}]
    assert not any(validator.is_valid({"task": task}) for task in wrong)


@pytest.mark.parametrize("name", TASKS.names())
def test_every_option_is_described(name: str) -> None:
    options = TASKS.get(name).options
    for kind in [options, *(setting.section for setting in fields_of(options) if setting.section is not None)]:
        assert descriptions(kind).keys() == {setting.name for setting in fields_of(kind)}
