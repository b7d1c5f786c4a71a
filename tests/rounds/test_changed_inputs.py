"""What stages are made of: code and files that settings name count, and mistakes are found before any work."""

from collections.abc import Callable
from pathlib import Path

import pytest

from popmargin.config import RunConfig
from popmargin.data.load import load_preferences
from popmargin.errors import ConfigError, DataError, RunError
from popmargin.recipes.base import plan_of
from popmargin.rounds import Plan, Work, run_plan
from popmargin.rounds.manifest import where
from popmargin.rounds.rounds_config import RoundsConfig
from popmargin.rounds.runner import states_of
from popmargin.rounds.stages.split_data import add_split
from popmargin.rounds.stages.train_policy import run_of
from popmargin.rounds.stages.trained_models import start_inputs
from popmargin.training.sides import load_split
from popmargin.user_code import load_object

MakeRounds = Callable[..., RoundsConfig]


def write(work: Work) -> None:
    work.outputs["text"].write_text("done")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def quiet(_: str) -> None:
    pass


def changes_of(plan: Plan, folder: Path, stage: str) -> tuple[str, ...]:
    return states_of(plan, folder)[stage].changes


def test_code_and_models_that_settings_name_are_inputs(here: Path) -> None:
    (here / "rewards.py").write_text("from words import better\n\ndef score(prompts, completions): ...\n")
    (here / "words.py").write_text("better = 'good'\n")
    (here / "rm").mkdir()
    (here / "rm/weights").write_text("1")
    plan = Plan()
    settings = {"by": "reward:rewards.py:score", "trusted": {"options": ["model:rm"]}}
    plan.add("label", write, settings=settings, outputs={"text": "text.txt"})
    run_plan(plan, "out", say=quiet)
    assert changes_of(plan, Path("out"), "label") == ()
    (here / "words.py").write_text("better = 'fine'\n")
    (here / "rm/weights").write_text("2")
    assert changes_of(plan, Path("out"), "label") == (
        "the input 'code/words.py' has changed",
        "the input 'model/rm' has changed",
    )


def test_stages_of_a_file_know_it_by_its_content_wherever_it_lies(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "def stage(work):\n    work.outputs['text'].write_text('hi')\n"

    def plan() -> Plan:
        made = Plan()
        made.add("own", load_object("mine.py:stage", "stage"), outputs={"text": "text.txt"})
        return made

    (here / "old").mkdir()
    (here / "old/mine.py").write_text(code)
    monkeypatch.chdir(here / "old")
    run_plan(plan(), "out", say=quiet)
    monkeypatch.chdir(here)
    moved = (here / "old").rename(here / "new")
    monkeypatch.chdir(moved)
    assert changes_of(plan(), Path("out"), "own") == ()
    (moved / "mine.py").write_text(code.replace("hi", "hello"))
    assert changes_of(plan(), Path("out"), "own") == ("the input 'code/mine.py' has changed",)


def test_every_file_of_the_data_is_an_input(here: Path) -> None:
    for name in ("a", "b"):
        (here / f"{name}.jsonl").write_text("".join(f'{{"prompt": "{name}{n}?", "chosen": "y", "rejected": "n"}}\n'
                                                    for n in range(4)))  # fmt: skip

    def plan(train: str) -> Plan:
        made = Plan()
        config = RunConfig(data={"train": train, "test_size": 2})  # pyright: ignore
        add_split(made, config, seed_prompts=None, rounds=0, prompts_per_round=None, seed=0)
        return made

    for number, train in enumerate(("a.jsonl,b.jsonl", "?.jsonl", "a.jsonl")):
        folder = here / f"out{number}"
        run_plan(plan(train), folder, say=quiet)
        before = (here / "a.jsonl").read_text()
        (here / "a.jsonl").write_text(before.replace('"y"', '"yes"'))
        assert "has changed" in " ".join(changes_of(plan(train), folder, "data")), train
        (here / "a.jsonl").write_text(before)
    with pytest.raises(DataError, match=r"c\.jsonl: no such file"):
        plan("a.jsonl,c.jsonl")


def test_what_was_read_is_not_read_as_before(here: Path, make_rounds: MakeRounds) -> None:
    """How the user's data are read and changed counts once: a training takes the rows of its stage as they are.

    Flipping the same rows twice gave back the clean labels.
    """
    rows = [f'{{"question": "{n}?", "chosen": "y{n}", "rejected": "n{n}"}}\n' for n in range(40)]
    (here / "rows.jsonl").write_text("".join(rows))
    data = {"train": "rows.jsonl", "columns": {"prompt": "question"}, "flip": 0.3, "limit": 30, "test_size": 4}
    config = make_rounds(
        {"name": "ropo", "rounds": 0}, {"data": {**data, "format": "preference", "validation_size": 3}}
    )
    plan, folder = plan_of(config), here / "out"
    run_plan(plan, folder, until="data", say=quiet)
    stage = plan["round-0/train"]
    inputs = {name: where(value, folder) for name, value in stage.inputs.items()}
    train, test = load_split(run_of(Work(folder / stage.name, inputs, stage.settings, {}, quiet)).data)
    given = load_preferences(folder / "data/seed.parquet")
    assert [train[row] for row in range(len(train))] == [given[row] for row in range(len(given))]
    wrong = given.column("known_flip")
    assert [train[row]["chosen"][0] for row in range(len(train))] == ["n" if one else "y" for one in wrong]
    assert len(train) == 30 and 0 < wrong.sum() < 30 and len(test) == 3


def test_a_model_folder_that_is_gone_is_not_taken_for_a_name(here: Path) -> None:
    (here / "policy").mkdir()

    def plan() -> Plan:
        config, made = RunConfig(model={"path": "policy"}), Plan()  # pyright: ignore
        given = start_inputs(config)
        settings = {"model": {} if given else {"path": "policy"}}
        made.add("train", write, inputs=given, settings=settings, outputs={"text": "text.txt"})
        return made

    run_plan(plan(), "out", say=quiet)
    (here / "policy").rename(here / "elsewhere")
    for overwrite in (False, True):  # nothing is deleted
        with pytest.raises(RunError, match=r"file or folder as model\.path, and there is no policy here"):
            run_plan(plan(), "out", overwrite=overwrite, say=quiet)
    assert (here / "out/train/text.txt").is_file()


@pytest.mark.parametrize(
    ("recipe", "base", "sentence"),
    [
        ({}, {"objective": {"name": "simpo"}}, r"base\.objective has no effect.*set recipe\.objective instead"),
        ({}, {"train": {"epochs": 2}}, r"base\.train\.epochs has no effect.*recipe\.epochs"),
        ({}, {"output": "runs/x"}, r"base\.output has no effect"),
        ({"labels": "lenght"}, {}, "'lenght' is not understood"),
        ({"labels": "rewards.py:nothing"}, {}, "No such file for the reward: rewards.py"),
        ({"labels": "model:./nowhere"}, {}, "No such folder or model: ./nowhere"),
        ({}, {"evaluation": {"reward": "nowhere.py:score"}}, "No such file for the reward: nowhere.py"),
        ({"objective": {"name": "dbo"}}, {}, "Unknown objective 'dbo'.*'dpo'"),
        ({"objective": {"name": "dpo", "bta": 1}}, {}, "'bta'"),
        ({"max_new_tokens": 96}, {}, r"recipe\.max_new_tokens 96 leaves no room for a prompt"),
    ],
)
def test_mistakes_are_found_before_any_stage(
    make_rounds: MakeRounds, recipe: dict[str, object], base: dict[str, object], sentence: str
) -> None:
    with pytest.raises((ConfigError, RunError), match=sentence):
        plan_of(make_rounds({"name": "iterate", "labels": "random", **recipe}, base))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("1 / 0", r"stage 'own': The function failed: .*mine\.py, line 2: ZeroDivisionError"),
        ("return {'all': {1, 2}}", "stage 'own': it returned facts that are not JSON"),
    ],
)
def test_stages_of_a_user_fail_with_file_and_line(here: Path, body: str, sentence: str) -> None:
    (here / "mine.py").write_text(f"def stage(work):\n    {body}\n")
    plan = Plan()
    plan.add("own", load_object("mine.py:stage", "stage"))
    with pytest.raises(RunError, match=sentence):
        run_plan(plan, "out", say=quiet)


@pytest.mark.slow
def test_a_folder_that_was_moved_in_the_middle_of_a_training(tmp_path: Path, make_rounds: MakeRounds) -> None:
    """The paths in the run are those of before; its inputs are the same, so that it starts over."""
    config = make_rounds({"name": "ropo", "rounds": 0}, {"train": {"max_steps": 2}, "evaluation": {"reward": None}})
    run_plan(plan_of(config), tmp_path / "old", until="round-0/train", say=quiet)
    stage = (tmp_path / "old").rename(tmp_path / "new") / "round-0/train"
    before = (stage / "run/metrics.jsonl").read_text()
    (stage / "manifest.json").rename(stage / "begun.json")
    (stage / "run/run.json").unlink()
    run_plan(plan_of(config), tmp_path / "new", until="round-0/train", say=quiet)
    assert (stage / "run/metrics.jsonl").read_text() == before
