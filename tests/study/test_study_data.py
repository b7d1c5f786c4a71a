"""A study goes on with the data that it was begun with, in a folder of its own."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from popmargin.cli.main import main
from popmargin.errors import RunError
from popmargin.study.compare import compare
from popmargin.study.config import StudyConfig, TuneConfig

MakeStudy = Callable[..., StudyConfig]
ARMS = {"dpo": {"objective": {"name": "dpo"}}}


@pytest.fixture
def small(make_study: MakeStudy, tmp_path: Path, rows: list[dict[str, Any]]) -> MakeStudy:
    """A study of one short run on a file of its own."""
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {
        "data": {"train": str(file)},
        "train": {"max_steps": 1},
        "evaluation": {"reward": None, "curve_points": 0},
    }
    return lambda **fields: make_study(changes, arms=ARMS, seeds=[0], **fields)


def test_changed_data_are_refused_and_trained_on_when_told(
    small: MakeStudy, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    """Done before, on other data: the arms of one table would have been trained and measured on different rows."""
    study, file = small(), tmp_path / "mine.jsonl"
    results, _ = compare(study)
    run = Path(study.output) / "runs" / "dpo" / "seed-0"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    file.write_text(file.read_text() + json.dumps({**rows[0], "id": "new", "prompt": "rain?"}) + "\n")
    for half_done in (False, True):
        if half_done:
            (run / "run.json").unlink()
        with pytest.raises(RunError, match=r"(training|held-out) preferences: .*1 new \(new\)"):
            compare(study)
        (run / "run.json").write_bytes(before[run / "run.json"])
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    again, _ = compare(study, overwrite=True)
    assert again.fingerprint != results.fingerprint
    assert json.loads((run / "run.json").read_text())["account"][0]["rows_in"] == 41


@pytest.mark.slow
def test_a_study_keeps_to_its_folder(small: MakeStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "report.html").write_text("mine")
    with pytest.raises(RunError, match="not empty and not a study folder"):
        compare(small(output=str(folder)))
    assert (folder / "report.html").read_text() == "mine" and len(list(folder.iterdir())) == 1
    study = small()
    compare(study)
    own = Path(study.output) / "study.yaml"
    written = own.read_bytes()
    assert main(["compare", str(own), "--title", "Another"]) == 2
    assert "is also the input" in capsys.readouterr().err and own.read_bytes() == written
    assert main(["compare", str(own)]) == 0


@pytest.mark.slow
def test_a_study_goes_on_from_another_working_directory(
    small: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its own file, with relative paths of where it began."""
    monkeypatch.chdir(tmp_path)
    base = small().base
    base["data"] = {**base["data"], "train": str(Path(base["data"]["train"]).relative_to(tmp_path))}
    compare(replace(small(output="thesis"), base=base))
    runs = {file: file.stat().st_mtime_ns for file in (tmp_path / "thesis").rglob("run.json")}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["compare", "../thesis/study.yaml"]) == 0
    assert main(["report", "../thesis"]) == 0
    assert {file: file.stat().st_mtime_ns for file in runs} == runs
    assert [file.name for file in Path().iterdir()] == ["report.html"]


@pytest.mark.slow
def test_settings_are_tried_again_on_changed_data(small: MakeStudy, tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    study = small(tune=TuneConfig(learning_rates=[1e-3, 1e-2]))
    compare(study)
    file = tmp_path / "mine.jsonl"
    file.write_text(file.read_text() + json.dumps({**rows[0], "id": "new", "prompt": "rain?"}) + "\n")
    compare(study, overwrite=True)
    lines = (Path(study.output) / "tuning.jsonl").read_text().splitlines()
    assert len(lines) == 4 and len({json.loads(line)["data"] for line in lines}) == 2
