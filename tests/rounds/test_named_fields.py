"""Every setting that can name a file, a folder or code counts as an input, or is known to name none."""

import dataclasses
import json
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from popmargin.config import RunConfig
from popmargin.errors import RunError
from popmargin.recipes.base import RECIPES, plan_of
from popmargin.rounds import Plan, Work, run_plan
from popmargin.rounds.named_files import named_files
from popmargin.rounds.rounds_config import RoundsConfig
from popmargin.rounds.runner import states_of
from popmargin.rounds.stages.train_policy import train_stage

MakeRounds = Callable[..., RoundsConfig]

OF_RUNS: dict[str, Any] = {
    "task": "mine.py:thing",
    "model.path": "policy",
    "data.train": "rows.jsonl",
    "data.test": "rows.jsonl",
    "objective": {"name": "mine.py:thing", "table": "given.json"},
    "regularizers": [{"name": "mine.py:thing", "tables": ["given.json"]}],
    "tokens": {"name": "mine.py:thing", "reference": "policy"},
    "margin": {"source": "mine.py:thing", "table": "given.json"},
    "pop.edges": "given.json",
    "pop.scale": "given.json",
    "reference.model": "policy",
    "train.trainer_arguments": {"deepspeed": "given.json"},
    "evaluation.reward": "mine.py:thing",
    "evaluation.also": ["mine.py:thing"],
    "evaluation.reward_options": {"template": "given.json", "reference": "policy"},
}
"""A value of every field of a run that can name a file, a folder or code."""
NAME_NOTHING = {
    "name", "output", "data.cache", "data.split", "data.format", "data.columns", "signals", "reference.cache",
    "train.scheduler", "train.report_to", "train.stop_on", "pop.zero.wrong", "pop.without", "pop.weights",
}  # fmt: skip
OF_RECIPES: dict[str, Any] = {
    "labels": "mine.py:thing",
    "label_options": {"template": "given.json"},
    "objective": {"name": "mine.py:thing", "table": "given.json"},
}
"""The same of the options of recipes."""
NAME_NOTHING_IN_RECIPES = {"store", "project", "known_flips"}  # where answers go, and a column


def holds_text(kind: Any) -> bool:
    """Whether a value of this type can be, or contain, any text."""
    if kind in (str, Any):
        return True
    if get_origin(kind) is Literal:
        return False
    if get_origin(kind) is Annotated:
        return holds_text(get_args(kind)[0])
    return get_origin(kind) in (Union, types.UnionType, list, dict, tuple) and any(map(holds_text, get_args(kind)))


def text_fields(section: Any, prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(section, include_extras=True)
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from text_fields(hints[field.name], f"{prefix}{field.name}.")
        elif holds_text(hints[field.name]):
            yield prefix + field.name


def test_no_field_is_forgotten() -> None:
    """A new setting that can hold a text belongs into one of the tables above, and so into the test below."""
    assert set(text_fields(RunConfig)) == {*OF_RUNS, *NAME_NOTHING}
    options = {name for recipe in RECIPES.names() for name in text_fields(RECIPES.get(recipe).options)}
    assert options == {*OF_RECIPES, *NAME_NOTHING_IN_RECIPES}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("thing = 1\n")
    (tmp_path / "given.json").write_text("{}")
    (tmp_path / "rows.jsonl").write_text("")
    for name in ("policy", "base"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    return tmp_path


def write(work: Work) -> None:
    work.outputs["text"].write_text("done")


def names_in(value: Any) -> set[str]:
    """What a value of the tables names."""
    if isinstance(value, str):
        return {value.partition(":")[0]} if Path(value.partition(":")[0]).exists() else set()
    return {name for one in (value.values() if isinstance(value, dict) else value) for name in names_in(one)}


@pytest.mark.parametrize(("field", "value"), [*OF_RUNS.items(), *OF_RECIPES.items()])
def test_a_changed_file_is_refused_in_a_finished_stage(here: Path, field: str, value: Any) -> None:
    section, _, name = field.partition(".")
    plan = Plan()
    plan.add("stage", write, settings={section: {name: value} if name else value}, outputs={"text": "text.txt"})
    run_plan(plan, "out", say=lambda _: None)
    assert names_in(value)
    for place in names_in(value):
        assert states_of(plan, Path("out"))["stage"].standing == "finished"
        file = here / place / "config.json" if (here / place).is_dir() else here / place
        before = file.read_text()
        file.write_text(before + " ")
        changes = states_of(plan, Path("out"))["stage"].changes
        assert len(changes) == 1 and changes[0].endswith("has changed"), (place, changes)
        with pytest.raises(RunError, match="is not what is planned now"):
            run_plan(plan, "out", say=lambda _: None)
        file.write_text(before)


def test_a_named_file_that_is_gone_is_said(here: Path) -> None:
    plan = Plan()
    plan.add("train", write, settings={"pop": {"edges": "given.json"}}, outputs={"text": "text.txt"})
    run_plan(plan, "out", say=lambda _: None)
    (here / "given.json").unlink()
    with pytest.raises(RunError, match=r"with a file or folder as pop\.edges, and there is no given\.json here"):
        states_of(plan, Path("out"))


def test_what_grows_or_is_written_is_no_input(here: Path) -> None:
    """A label store gets answers and a cache gets entries; a plain word is no name of a file."""
    for name in ("labels.db", "answers.jsonl", "dpo"):
        (here / name).write_text("")
    settings = {
        "pop": {"edges": "labels.db#mine"},
        "store": "labels.db",
        "evaluation": {"reward_options": {"cache": "answers.jsonl"}},
        "objective": {"name": "dpo"},
        "text": "x" * 5000 + "/",
    }
    assert named_files(train_stage, settings) == {}


def test_the_base_of_an_adapter_counts(here: Path) -> None:
    """The adapter's own files stay the same when the model below it changes."""
    (here / "policy/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "base"}))
    plan = Plan()
    outputs = {"text": "text.txt"}
    plan.add("given", write, inputs={"model.path": Path("policy")}, outputs=outputs)
    plan.add("named", write, settings={"by": "model:policy"}, outputs=outputs)
    run_plan(plan, "out", say=lambda _: None)
    (here / "base/config.json").write_text("[]")
    changes = [state.changes for state in states_of(plan, Path("out")).values()]
    assert changes == [("the input 'model.path/base' has changed",), ("the input 'model/policy/base' has changed",)]


def test_what_the_settings_of_all_runs_name_reaches_the_stages(here: Path, make_rounds: MakeRounds) -> None:
    """Through the stages of a recipe, not their settings alone."""
    config = make_rounds(
        {"name": "ropo", "rounds": 1},
        {
            "pop": {"edges": "given.json", "scale": "rows.jsonl"},
            "reference": {"model": "policy"},
            "train": {"trainer_arguments": {"deepspeed": "given.json"}},
        },
    )
    stage = plan_of(config)["round-0/train"]
    assert {name: place.name for name, place in stage.files.items()} == {
        "pop.edges": "given.json",
        "pop.scale": "rows.jsonl",
        "reference.model": "policy",
        "train.trainer_arguments.deepspeed": "given.json",
    }
