"""`--resume`, with and without `auto`, and where the configuration may stand."""

from pathlib import Path
from typing import Any

import pytest

from popmargin.cli import train as verb
from popmargin.cli.main import main
from popmargin.config import RunConfig, dump_yaml, from_dict, to_dict
from popmargin.training import run as training
from popmargin.training.run_directory import RunDirectory


@pytest.fixture
def config(tmp_path: Path, base_run: dict[str, Any]) -> str:
    (tmp_path / "run.yaml").write_text(dump_yaml(base_run))
    return str(tmp_path / "run.yaml")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, base_run: dict[str, Any]) -> list[tuple[RunConfig, bool]]:
    """What is asked of the training, which is not done."""
    asked: list[tuple[RunConfig, bool]] = []

    def train(config: RunConfig, *, resume: bool, overwrite: bool) -> tuple[RunDirectory, None]:
        asked.append((config, resume))
        directory = RunDirectory(Path(config.output))
        if not directory.started:
            directory.path.mkdir(parents=True)
            (directory.path / "config.yaml").write_text(dump_yaml(to_dict(config)))
        directory.finish({"rows": 1, "steps": 1, "train_seconds": 0.0})
        return directory, None

    monkeypatch.setattr(training, "train", train)
    return asked


@pytest.mark.parametrize("words", [["FILE"], ["FILE", "--resume"], ["--resume", "FILE"], ["FILE", "--resume", "auto"],
                                   ["--resume", "auto", "FILE"]])  # fmt: skip
def test_the_file_stands_before_or_after(config: str, trained: Any, words: list[str]) -> None:
    assert main(["train", *(config if word == "FILE" else word for word in words), "--train.max_steps", "7"]) == 0
    ((found, resume),) = trained
    assert found.name == "run" and found.train.max_steps == 7 and resume == ("--resume" in words)


def test_auto_begins_and_then_goes_on(
    config: str, trained: Any, base_run: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a file the run's own settings are used, once there are some; `--resume` alone wants a run."""
    output = ["--output", base_run["output"]]
    assert main(["train", "--resume", *output]) == 2
    assert "No such run directory" in capsys.readouterr().err
    assert main(["train", config, "--resume", "auto"]) == 0
    assert f"There is no run in {base_run['output']} yet: it begins." in capsys.readouterr().err
    assert main(["train", "--resume", "auto", *output]) == 0
    assert "it begins" not in capsys.readouterr().err
    assert main(["train", "--resume", *output]) == 0
    assert len(trained) == 3 and all(resume for _, resume in trained)
    assert {found.model.path for found, _ in trained} == {base_run["model"]["path"]}


def test_two_files_are_refused(config: str, trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", config, "--resume", "other.yaml"]) == 2
    assert "'other.yaml' after --resume is neither auto nor the configuration" in capsys.readouterr().err
    assert not trained


def test_an_interrupted_auto_is_continued_by_the_same_words(config: str, base_run: dict[str, Any]) -> None:
    from argparse import Namespace

    def more(resume: Any) -> list[str]:
        directory = RunDirectory(Path(base_run["output"]))
        directory.path.mkdir(exist_ok=True)
        (directory.path / "config.yaml").write_text(dump_yaml(to_dict(from_dict(RunConfig, base_run))))
        return verb.standing(Namespace(config=Path(config), overrides=[], resume=resume))[1]

    assert more("auto") == [] and more(True) == ["--resume"] == more(False)
