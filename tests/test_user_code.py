"""A user's own code: the same rules for every kind of it, and errors in words."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import popmargin.registry
from popmargin.errors import ConfigError, RunError
from popmargin.objectives.base import OBJECTIVES
from popmargin.registry import Registry, make_options
from popmargin.regularizers.base import REGULARIZERS
from popmargin.rewards.load import load_reward
from popmargin.tokens.base import TOKEN_SELECTORS
from popmargin.user_code import load_object

HEAD = """
from __future__ import annotations
from dataclasses import dataclass
from popmargin import objective, regularizer, token_selector


@dataclass(frozen=True, kw_only=True)
class Options:
    size: float | None = 1.0

"""
DECORATORS = {
    "objective": '@objective("{name}", options=Options, score="log_ratio", origin="ours")',
    "regularizer": '@regularizer("{name}", options=Options, reference=False)',
    "token_selector": '@token_selector("{name}", options=Options)',
    "reward": "",
}
REGISTRIES: dict[str, Registry[Any]] = {
    "objective": OBJECTIVES,
    "regularizer": REGULARIZERS,
    "token_selector": TOKEN_SELECTORS,
}
BUILT_IN = {"objective": "dpo", "regularizer": "sft", "token_selector": "selective"}
KINDS = list(DECORATORS)


def text(kind: str, function: str, value: float, name: str = "") -> str:
    decorator = DECORATORS[kind].format(name=name or f"own_{function}")
    return f"{HEAD}\n{decorator}\ndef {function}(prompts, completions):\n    return {value}\n"


def function_of(kind: str, spec: str) -> Callable[..., Any]:
    """What training or evaluation would call."""
    if kind == "reward":
        reward: Any = load_reward(spec)
        return reward._function
    component = REGISTRIES[kind].get(spec)
    assert make_options(component.options, {"size": 2}, "x").size == 2.0
    return component.function


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory is the user's; what is registered here is forgotten."""
    monkeypatch.chdir(tmp_path)
    before = {kind: {name: registry.get(name) for name in registry.names()} for kind, registry in REGISTRIES.items()}
    yield tmp_path
    for kind, registry in REGISTRIES.items():
        registry._entries = before[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["{name}.py", "./{name}.py", "{folder}/{name}.py", "{name}"])
def test_a_file_by_every_way_to_name_it(kind: str, place: str, here: Path) -> None:
    """Also a module of the working directory, which the installed command does not have on its path."""
    name = f"way_{kind}_{abs(hash(place)) % 10**6}"
    (here / f"{name}.py").write_text(text(kind, "f", 4, name))
    assert function_of(kind, place.format(name=name, folder=here) + ":f")(None, None) == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["edited_{kind}.py", "edited_module_{kind}"])
def test_an_edited_file_is_read_again(kind: str, place: str, here: Path) -> None:
    """At once, at the same length and time: Python's own cache would give the old one."""
    place = place.format(kind=kind)
    file = here / f"{place.removesuffix('.py')}.py"
    for value in (4, 5, 4):
        file.write_text(text(kind, "f", value, f"edited_{kind}"))
        os.utime(file, (1e9, 1e9))
        assert function_of(kind, f"{place}:f")(None, None) == value
    assert function_of(kind, f"{place}:f") is function_of(kind, f"{place}:f")
    file.write_text(text(kind, "renamed", 7, f"edited_{kind}"))
    assert function_of(kind, f"{place}:renamed")(None, None) == 7


def test_a_module_beside_the_file_is_found_and_read_again(here: Path) -> None:
    """And is not that of another folder, whose module has the same name."""
    for folder, value in (("one", 1), ("two", 2)):
        (here / folder).mkdir()
        (here / folder / "same_helper.py").write_text(f"VALUE = {value}\n")
        (here / folder / "mine.py").write_text("from same_helper import VALUE\n")
    assert [load_object(f"{folder}/mine.py:VALUE", "reward") for folder in ("one", "two", "one")] == [1, 2, 1]
    (here / "one" / "same_helper.py").write_text("VALUE = 3\n")
    assert load_object("one/mine.py:VALUE", "reward") == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("x = 1\ndef f(:\n", "f", r"is not Python \(.*mine_{kind}.py, line 2: .*Fix this line"),
        ("import no_such_thing_here\n", "f", r"needs 'no_such_thing_here', which is not installed \(.*py, line 1\)"),
        ("\n\n1 / 0\n", "f", r"line 3: ZeroDivisionError: division by zero\. Fix"),
        ("import sys\nsys.exit(0)\n", "f", r"line 2: SystemExit: 0.*__main__"),
        ("from json import nothing\n", "f", r"line 1: ImportError"),
        ("def hinge(prompts, completions): ...\n", "hing", r"has no 'hing'\. Did you mean 'hinge'"),
        ("value = 3\n", "value", r"is an int, not a registered function|is of type int; it must be a function"),
        ("\xff", "f", r"is not Python|cannot be imported"),
    ],
)
def test_mistakes_are_told_in_the_same_words(kind: str, content: str, name: str, message: str, here: Path) -> None:
    (here / f"mine_{kind}.py").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=message.replace("{kind}", kind)):
        function_of(kind, f"mine_{kind}.py:{name}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere/mine.py:f", r"No such file.*nowhere/mine.py \(looked in"),
        ("no_such_module_here:f", r"no module 'no_such_module_here'.*PYTHONPATH.*path/to/file.py"),
        ("folder/mine:f", r"File names end in .py: 'folder/mine.py:NAME'"),
        ("there.py", r"'there.py:NAME'"),
    ],
)
def test_places_that_hold_nothing(kind: str, spec: str, message: str, here: Path) -> None:
    (here / "there.py").write_text("")
    with pytest.raises(ConfigError, match=message):
        function_of(kind, spec)


@pytest.mark.parametrize("kind", ["model", "judge"])
def test_a_file_that_is_called_as_a_kind_of_reward(kind: str, here: Path) -> None:
    (here / f"{kind}.py").write_text(text("reward", "score", 4))
    with pytest.raises(ConfigError, match=rf"{kind}\.py here.*'{kind}.py:score'"):
        load_reward(f"{kind}:score")
    assert function_of("reward", f"{kind}.py:score")(None, None) == 4


@pytest.mark.parametrize("kind", list(BUILT_IN))
@pytest.mark.parametrize("function", ["same", "other"])
def test_a_built_in_name_is_not_taken(kind: str, function: str, here: Path) -> None:
    """A function of the same name as the built-in one replaced it without a word."""
    name = BUILT_IN[kind]
    built_in = REGISTRIES[kind].get(name).function
    function = built_in.__name__ if function == "same" else function
    (here / "taking.py").write_text(text(kind, function, 4, name))
    with pytest.raises(ConfigError, match=rf"taking.py, line \d+: .*'{name}' is built in.*another name.*my_{name}"):
        REGISTRIES[kind].get(f"taking.py:{function}")
    assert REGISTRIES[kind].get(name).function is built_in


def test_a_built_in_name_is_not_taken_before_the_built_in_ones_are_read() -> None:
    fresh: Registry[Any] = Registry("objective", "popmargin.objectives")
    fresh._load_builtin = lambda: fresh._entries.update(OBJECTIVES._entries)  # modules are imported only once
    OBJECTIVES.get("dpo")

    def dpo(rows: Any, options: Any) -> Any: ...

    with pytest.raises(ConfigError, match="'dpo' is built in"):
        fresh.add(dataclasses.replace(OBJECTIVES.get("dpo"), function=dpo))


@pytest.mark.parametrize("kind", list(BUILT_IN))
def test_two_files_cannot_give_the_same_name(kind: str, here: Path) -> None:
    for file, value in (("first.py", 1), ("second.py", 2)):
        (here / file).write_text(text(kind, "f", value, "twice"))
    assert function_of(kind, "first.py:f")(None, None) == 1
    with pytest.raises(ConfigError, match=r"'twice' is already taken, by 'f' in .*first.py.*another name"):
        function_of(kind, "second.py:f")
    assert function_of(kind, "twice")(None, None) == 1


class Entry:
    """What importlib.metadata tells of an entry point."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value


def test_entry_points_follow_the_same_rules(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "plug_fine.py").write_text(text("objective", "f", 1, "plugged"))
    (here / "plug_taking.py").write_text(text("objective", "dpo", 1, "dpo"))
    entries = [
        Entry("plugged", "plug_fine:f"),
        Entry("taking", "plug_taking:dpo"),
        Entry("gone", "plug_nowhere:f"),
        Entry("both", "plug_fine:f"),
        Entry("both", "plug_taking:dpo"),
    ]
    monkeypatch.setattr(popmargin.registry, "entry_points", lambda group: entries)
    assert OBJECTIVES.get("plugged").function(None, None) == 1
    for name, message in (
        ("taking", "'dpo' is built in"),
        ("gone", "no module 'plug_nowhere'"),
        ("both", "Several installed packages offer the objective 'both'.*plug_fine:f or plug_taking:dpo"),
    ):
        with pytest.raises(ConfigError, match=message):
            OBJECTIVES.get(name)


def test_a_reward_that_fails_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rewards.py"
    path.write_text("def score(prompts, completions):\n    return [1 / len(text) for text in completions]\n")
    reward = load_reward(f"{path}:score")
    with pytest.raises(RunError, match=r"rewards\.py, line 2: ZeroDivisionError: division by zero"):
        reward.score(["p"], [""])
