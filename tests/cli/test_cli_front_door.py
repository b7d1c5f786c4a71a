"""The first things that go wrong for a new user: mistyped paths and names, files that are none, and Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popmargin.cli.main import main
from popmargin.config import dump_yaml, merge
from popmargin.files import read_jsonl
from popmargin.training.run_directory import RunDirectory

SIGNAL_AT = """
import os, signal
calls = 0

def length(prompts, completions):
    global calls
    calls += 1
    if calls == {call} and not os.path.exists({once!r}):
        open({once!r}, "w").close()
        signal.raise_signal(signal.SIGINT)
    return [len(text) for text in completions]
"""


@pytest.fixture
def config(tmp_path: Path, base_run: dict[str, Any]) -> Callable[..., str]:
    """The short run, with changes, as a YAML file."""

    def write(changes: dict[str, Any] | None = None) -> str:
        path = tmp_path / "run.yaml"
        path.write_text(dump_yaml(merge(base_run, changes or {})))
        return str(path)

    return write


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line on stderr of a call that fails as a user's mistake."""
    capsys.readouterr()
    assert main(words) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error
    return error


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nomodel", "No such folder or model: ./nomodel."),
        ("/nowhere/model", "No such folder or model: /nowhere/model (there is no folder /nowhere)."),
        (
            "models/foo",
            (
                "models/foo (there is no folder models). Give a model folder, a hub id, demo, demo-digits or "
                "demo-emoji. (For a model on"
            ),
        ),
        ("~/nomodel-of-mine", "No such folder or model: ~/nomodel-of-mine"),
        ("a/b/c", "No such folder or model: a/b/c"),
        ("tiny.safetensors", "No such folder or model: tiny.safetensors"),
        ("weights.gguf", "No such folder or model: weights.gguf"),
        ("my_model/", "No such folder or model: my_model/"),
        ("./tinny", "Did you mean tiny?"),
        ("tiny/config.json", "tiny/config.json is a file. Give the folder that contains the model: tiny"),
        ("run", "run does not contain a model: it has no config.json or model_index.json. Did you mean run/model?"),
        ("empty", "it has no config.json or model_index.json. Give the folder that save_pretrained wrote."),
        ("''", "The model is empty"),
        ("demoo", "There is no model 'demoo'. Did you mean 'demo'?"),
        ("demo-digit", "There is no model 'demo-digit'. Did you mean 'demo-digits'?"),
    ],
)
def test_what_looks_like_a_path_is_not_asked_of_the_hub(
    capsys: pytest.CaptureFixture[str],
    config: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    message: str,
) -> None:
    """Said before the data is read: there is none."""
    monkeypatch.chdir(tmp_path)
    for folder in ("tiny", "run/model", "empty"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("tiny/config.json", "run/model/config.json"):
        (tmp_path / file).write_text("{}")
    path = config({"data": {"train": "absent.jsonl"}, "output": "out"})
    for flag in ("--model.path", "--reference.model"):
        assert message in said(capsys, "train", path, flag, name)
    if name[0] not in "'":
        assert message in said(capsys, "train", path, "--evaluation.reward", f"model:{name}")


def test_a_name_of_the_hub_is_asked_of_the_hub(capsys: pytest.CaptureFixture[str], config: Callable[..., str]) -> None:
    for name in ("nobody/Qwen2.5-0.5B", "https://huggingface.co/nobody/Qwen2.5-0.5B"):
        assert "Cannot load a" in said(capsys, "train", config(), "--model.path", name)


def test_names_near_a_file_that_is_not_there(
    capsys: pytest.CaptureFixture[str], config: Callable[..., str], tmp_path: Path
) -> None:
    path = config()
    assert f"Did you mean {path}?" in said(capsys, "train", path.replace("run.yaml", "runn.yaml"))
    assert f"Did you mean {path}?" in said(capsys, "compare", path.replace(".yaml", ".yml"))
    assert "is a folder, not a YAML file" in said(capsys, "train", str(tmp_path))
    (tmp_path / "first-run").mkdir()
    assert f"Did you mean {tmp_path}/first-run?" in said(capsys, "eval", str(tmp_path / "frist-run"))
    assert "Did you mean 'train.learning_rate'?" in said(capsys, "train", path, "--train.lr", "1e-4")
    assert "Did you mean 'train.learning_rate'?" in said(capsys, "train", path, "--lr", "1e-4")
    assert "Did you mean 'base.train'?" in said(capsys, "compare", "--data", path, "--train.lr", "1e-4")


def interrupted(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, list[str]]:
    """What stands on the screen after Ctrl-C, and the arguments of the command that goes on."""
    import shlex

    capsys.readouterr()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us to ignore it
    try:
        assert main(words) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    where, command = error.strip().splitlines()[-2:]
    assert where.startswith("interrupted: ") and command.startswith("continue with: popmargin ")
    return where, shlex.split(command.partition(": popmargin ")[2])


def test_ctrl_c_in_evaluation_and_before_training(
    capsys: pytest.CaptureFixture[str], config: Callable[..., str], tmp_path: Path, base_run: dict[str, Any]
) -> None:
    """The signal comes from a reward, or from the file of an objective; the command goes on."""
    once = str(tmp_path / "once")
    (tmp_path / "r.py").write_text(SIGNAL_AT.format(call=1, once=once))
    path = config({"train": {"max_steps": 1}})
    run = base_run["output"]
    (tmp_path / "o.py").write_text(SIGNAL_AT.format(call=1, once=once) + "length([], [])\n")
    where, words = interrupted(capsys, "train", path, "--overwrite", "--objective.name", f"{tmp_path}/o.py:x")
    assert "Training had not started." in where and words == ["train", path, "--objective.name", f"{tmp_path}/o.py:x"]
    Path(once).unlink()
    assert main(["train", path]) == 0
    reward = ["--evaluation.reward", f"{tmp_path}/r.py:length"]
    where, words = interrupted(capsys, "eval", run, *reward)
    assert f"the evaluation of {run} was not written" in where and words == ["eval", run, *reward]
    assert main(words) == 0


@pytest.mark.slow
def test_ctrl_c_in_a_study(capsys: pytest.CaptureFixture[str], tmp_path: Path, base_run: dict[str, Any]) -> None:
    """The signal comes while a curve is measured in training; the same command ends the study."""
    (tmp_path / "r.py").write_text(SIGNAL_AT.format(call=3, once=str(tmp_path / "once")))
    measured = {"reward": f"{tmp_path}/r.py:length", "curve_points": 3, "curve_prompts": 4}
    base = merge(base_run, {"evaluation": measured, "train": {"save_steps": 1}})
    arms = {"dpo": {}, "ipo": {"objective": {"name": "ipo"}}}
    study = tmp_path / "study.yaml"
    study.write_text(dump_yaml({"output": str(tmp_path / "study"), "base": base, "arms": arms}))
    where, words = interrupted(capsys, "compare", str(study))
    assert f"0 of 2 runs of {tmp_path / 'study'} are trained and evaluated" in where
    assert words == ["compare", str(study)] and main(words) == 0


@pytest.mark.slow
def test_ctrl_c_in_a_process(
    config: Callable[..., str], base_run: dict[str, Any], popmargin_environment: dict[str, str], tmp_path: Path
) -> None:
    path = config({"train": {"max_steps": 4000, "save_steps": 2}})
    directory = RunDirectory(Path(base_run["output"]))
    with (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "popmargin", "train", path],
            env=popmargin_environment,
            stderr=err,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # it may be ignored here
        )
        deadline = time.monotonic() + 120
        while len(read_jsonl(directory.path / "timing.jsonl")) < 5:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    error = (tmp_path / "err").read_text()
    where, command = error.strip().splitlines()[-2:]
    assert "Traceback" not in error
    assert f"interrupted: {directory.path} reached step" in where
    assert "its last checkpoint is at step" in where
    assert command == f"continue with: popmargin train {path} --resume"
