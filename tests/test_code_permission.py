"""A stored configuration can name any Python file: nothing in it runs until the user names it in this command."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popmargin.api.runs import evaluate
from popmargin.cli.main import main
from popmargin.code_permission import allow_code, note_named, note_stored
from popmargin.config import RunConfig, apply_overrides, dump_yaml, from_dict, read_saved, read_yaml
from popmargin.errors import ConfigError, RunError
from popmargin.listed_files import LISTED
from popmargin.models.named_policy import find_policy
from popmargin.training.build import Run
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory
from popmargin.user_code import load_object

MARKING = """
from pathlib import Path

with (Path(__file__).parent / "ran").open("a") as marks:
    marks.write("ran\\n")


def score(prompts, completions):
    return [0.0 for _ in completions]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model_path: str, data_path: str, shared_reference: str) -> Path:
    """A run that was trained and evaluated, without code of its own."""
    folder = tmp_path_factory.mktemp("theirs") / "run"
    values = {
        "output": str(folder),
        "model": {"path": model_path},
        "data": {"train": data_path, "test_size": 8, "max_length": 96, "limit": 12},
        "objective": {"name": "dpo"},
        "reference": {"cache": shared_reference},
        "train": {"max_steps": 1},
    }
    train(from_dict(RunConfig, values))
    evaluate(folder)
    return folder


@pytest.fixture
def foreign(finished: Path, tmp_path: Path) -> tuple[RunDirectory, Path]:
    """A finished run of somebody else, and a file that leaves a mark when it is executed."""
    shutil.copytree(finished, tmp_path / "run")
    file = tmp_path / "theirs" / "theirs.py"
    file.parent.mkdir()
    file.write_text(MARKING)
    return RunDirectory(tmp_path / "run"), file


def named_by(run: RunDirectory, field: str, name: str) -> None:
    """Write the name into the run's stored configuration."""
    values = read_saved(run.path / "config.yaml")
    if field == "regularizers":
        values["regularizers"] = [{"name": name}]
    elif field == "evaluation.also":
        values["evaluation"]["also"] = [name]
    else:
        values = apply_overrides(values, [])
        *parents, last = field.split(".")
        node = values
        for parent in parents:
            node[parent] = node = {"name": node[parent]} if isinstance(node.get(parent), str) else node[parent] or {}
        node[last] = name
    (run.path / "config.yaml").write_text(dump_yaml(values))
    (run.path / LISTED).unlink(missing_ok=True)  # whoever made the run made its list of files too


FIELDS = ("task", "objective.name", "margin.source", "tokens.name", "regularizers", "evaluation.reward")
VERBS: dict[str, Callable[[Path], list[str]]] = {
    "eval": lambda run: ["eval", str(run)],
    "report": lambda run: ["report", str(run), "--out", str(run.parent / "report.html")],
    "resume": lambda run: ["train", "--resume", "--output", str(run)],
}


@pytest.mark.parametrize("field", [*FIELDS, "evaluation.also"])
def test_no_verb_runs_code_that_only_a_run_names(
    field: str, foreign: tuple[RunDirectory, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the place of the name: no mark, rc 2, and a message with file, hash and the way to allow it."""
    run, file = foreign
    if field == "evaluation.also":
        named_by(run, "evaluation.reward", f"{file}:score")
    named_by(run, field, f"{file}:score")
    for verb, words in VERBS.items():
        if verb != "eval" and field.startswith("evaluation"):
            continue  # it needs no reward
        if verb == "resume":
            (run.path / "run.json").unlink(missing_ok=True)
        capsys.readouterr()
        assert main(words(run.path)) == 2, verb
        said = capsys.readouterr().err
        assert not (file.parent / "ran").exists(), verb
        assert f"--code {file}" in said and "SHA-256" in said and str(run.path / "config.yaml") in said, (verb, said)
        assert "Traceback" not in said


def test_python_asks_in_the_same_way(foreign: tuple[RunDirectory, Path]) -> None:
    run, file = foreign
    named_by(run, "evaluation.reward", f"{file}:score")
    with pytest.raises(RunError, match="names code that this command does not name"):
        evaluate(run.path)
    with pytest.raises(RunError, match="names code"):
        evaluate(run.path, config={"prompts": 2})
    assert not (file.parent / "ran").exists()
    result = evaluate(run.path, config={"prompts": 2, "max_new_tokens": 2}, allow_code=[file])
    assert "mean_reward" in result["intervals"] and (file.parent / "ran").exists()


@pytest.mark.parametrize("how", ["--code", "--evaluation.reward"])
def test_what_the_command_names_runs(
    how: str, foreign: tuple[RunDirectory, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = foreign
    named_by(run, "evaluation.reward", f"{file}:score")
    few = ["--evaluation.prompts", "2", "--evaluation.max_new_tokens", "2"]
    assert main(["eval", str(run.path), *few]) == 2
    value = str(file) if how == "--code" else f"{file}:score"
    assert main(["eval", str(run.path), *few, how, value]) == 0, capsys.readouterr().err
    assert (file.parent / "ran").exists()


def test_the_copy_in_the_run_is_asked_for_as_well(foreign: tuple[RunDirectory, Path]) -> None:
    """`code/` in a run directory is used where the file is gone; it came with the run."""
    run, file = foreign
    named_by(run, "evaluation.reward", "/gone/reward_of_theirs.py:score")
    copy = run.path / "code" / "reward" / "reward_of_theirs.py"
    copy.parent.mkdir(parents=True)
    file.rename(copy)
    with pytest.raises(RunError, match=rf"--code {copy}"):
        evaluate(run.path)
    assert not (copy.parent / "ran").exists()


def test_a_policy_that_samples_runs_no_code_of_its_run(foreign: tuple[RunDirectory, Path]) -> None:
    """`generate --model RUN`, `implicit:RUN` and rounds take only the model of a run."""
    run, file = foreign
    named_by(run, "objective.name", f"{file}:score")
    assert find_policy(str(run.path)).load() is not None
    assert not (file.parent / "ran").exists()


def test_a_module_needs_permission_too(tmp_path: Path) -> None:
    stored = tmp_path / "config.yaml"
    stored.write_text("evaluation: {reward: 'reward:shutil:rmtree'}\n")
    read_saved(stored)
    with pytest.raises(RunError, match=r"is shutil:rmtree\n.*--code shutil "):
        load_object("shutil:rmtree", "reward")
    allow_code(["shutil"])
    assert load_object("shutil:rmtree", "reward")


def test_one_function_of_a_file_does_not_allow_the_others(tmp_path: Path) -> None:
    file = tmp_path / "several.py"
    file.write_text("import os\n\n\ndef score(prompts, completions):\n    return []\n")
    note_named({"evaluation": {"reward": f"{file}:score"}})
    note_stored({"evaluation": {"reward": f"{file}:score", "also": [f"{file}:os.system"]}}, tmp_path / "config.yaml")
    assert load_object(f"{file}:score", "reward")
    with pytest.raises(RunError, match="names code"):
        load_object(f"{file}:os.system", "reward")


def test_names_are_the_same_however_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link, a relative path or a module of the working directory is no way around."""
    (tmp_path / "plain.py").write_text("raise SystemExit('ran')\n")
    (tmp_path / "link.py").symlink_to(tmp_path / "plain.py")
    monkeypatch.chdir(tmp_path)
    note_stored({"evaluation": {"reward": "plain:score"}}, tmp_path / "config.yaml")
    for name in ("plain:score", "plain.py:score", "./plain.py:score", f"{tmp_path}/plain.py:score", "link.py:score"):
        with pytest.raises(RunError, match="names code"):
            load_object(name, "reward")


def test_a_file_of_this_command_is_named(tmp_path: Path) -> None:
    """A YAML file that the user gives names its code, also where a stored configuration names the same."""
    file = tmp_path / "own.py"
    file.write_text("def score(prompts, completions):\n    return []\n")
    note_stored({"reward": f"{file}:score"}, tmp_path / "config.yaml")
    (tmp_path / "run.yaml").write_text(dump_yaml({"evaluation": {"reward": f"{file}:score"}}))
    read_yaml(tmp_path / "run.yaml")
    assert load_object(f"{file}:score", "reward")
    with pytest.raises(ConfigError, match="--code: No such file"):
        allow_code([tmp_path / "none.py"])


@pytest.mark.slow
def test_in_a_process_of_its_own(
    tmp_path: Path, base_run: dict[str, Any], popmargin: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """A run made by `train` with the user's own reward: named by its YAML, asked for by `eval`, then allowed."""
    file = tmp_path / "liking.py"
    file.write_text(MARKING)
    config = tmp_path / "run.yaml"
    evaluation = {"reward": f"{file}:score", "prompts": 2, "max_new_tokens": 2}
    config.write_text(dump_yaml({**base_run, "train": {**base_run["train"], "max_steps": 1}, "evaluation": evaluation}))

    assert popmargin("train", str(config)).returncode == 0
    refused = popmargin("eval", base_run["output"])
    assert refused.returncode == 2 and f"--code {file}" in refused.stderr
    assert not (file.parent / "ran").exists()
    allowed = popmargin("eval", base_run["output"], "--code", str(file), "--json")
    assert allowed.returncode == 0 and "mean_reward" in json.loads(allowed.stdout)["intervals"]
    assert Run.opened(base_run["output"]).evaluation.reward == f"{file}:score"
