"""The drivers of the studies, each with a tiny model: they run, keep what is finished, and print their tables."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from popmargin.yaml_file import parse_yaml

STUDIES = Path(__file__).parents[2] / "docs" / "studies"
Drive = Callable[..., str]

pytestmark = pytest.mark.slow


@pytest.fixture
def drive(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_path: str, tmp_path: Path
) -> Drive:
    """Runs a driver with its design in fp32 on the tiny model, and gives what it prints."""
    monkeypatch.syspath_prepend(str(STUDIES))
    monkeypatch.chdir(STUDIES.parents[1])

    def drive(name: str, *changes: str) -> str:
        words = [f"{name}.yaml", "--output", str(tmp_path / name), "--seeds", "[0]"]
        words += ["--base.model", f"{{path: {model_path}, lora_rank: 2}}", "--base.train.max_steps", "2"]
        words += ["--base.evaluation.max_new_tokens", "4", "--base.train.frozen_cache_gb", "0"]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", str(STUDIES / words[0]), *words[1:], *changes])
        runpy.run_path(str(STUDIES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return drive


def test_goals(drive: Drive, tmp_path: Path) -> None:
    """Five arms; the one without goals is asked for none; a second call trains nothing and says the same."""
    changes = ["--data.train_prompts", "8", "--data.test_prompts", "4", "--goals", "[1.0, 10.0]"]
    changes += ["--base.data.max_length", "640"]
    said = drive("goals", *changes)
    lines = said.splitlines()
    assert lines[0] == "Seeds: 0" and len(lines) == 2 + 2 + 5
    assert "asked for none" in lines[4] and lines[4].endswith("baseline |") and lines[5].startswith("| DPO on goals |")
    runs = list((tmp_path / "goals/study/runs").glob("*/seed-*/run.json"))
    assert len(runs) == 5
    before = {run: run.stat().st_mtime_ns for run in runs}
    assert drive("goals", *changes, "--table-only") == said
    assert drive("goals", *changes) == said and before == {run: run.stat().st_mtime_ns for run in runs}
    assert 'id="goals"' in (tmp_path / "goals/study/report.html").read_text(encoding="utf-8")


def test_ipr(drive: Drive, model_path: str, reward_path: str, tmp_path: Path) -> None:
    """The exact judge always chooses the best and the worst, whatever the scheme, and pays what each scheme costs."""
    changes = ["--ranking.prompts", "6", "--ranking.samples", "3", "--ranking.reward_prompts", "8"]
    changes += [
        "--ranking.judge",
        f"model:{model_path}",
        "--ranking.reward_steps",
        "2",
        "--ranking.max_new_tokens",
        "6",
    ]
    changes += ["--base.data.test_size", "4", "--base.evaluation.reward", reward_path]
    (tmp_path / "judge.txt").write_text("{prompt} {first} {second} A or B?")  # the tiny model takes few tokens
    changes += ["--ranking.judge_prompt", str(tmp_path / "judge.txt")]
    said = drive("ipr", *changes)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line.startswith("|")]
    exact = {row[1]: row for row in rows if row[0] == "exact" and len(row) == 10}
    assert len(exact) == 6
    for scheme, row in exact.items():
        assert row[7].startswith("100.0%") and row[8].startswith("1.00"), scheme
    assert [row[0] for row in rows[-5:]] == ["nothing", "exact", "noisy", "model", "pointwise"]
    assert drive("ipr", *changes, "--table-only") == said


def test_recommend_tune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One arm on a ring of items: a row for each learning rate, a best among all, and nothing trained twice."""
    lines = [json.dumps({"items": [(start + step) % 12 + 1 for step in range(4)]}) for start in range(40)]
    (tmp_path / "ring.jsonl").write_text("\n".join(lines))
    words = [str(STUDIES / "recommend-beauty.yaml"), "--output", str(tmp_path / "tune"), "--arms", "regression"]
    words += ["--rates", "0.003", "0.01", "--data.path", str(tmp_path / "ring.jsonl"), "--base.train.max_steps", "6"]
    words += ["--vectors.dimension", "8", "--base.train.batch_size", "16"]
    said: list[str] = []
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["recommend_tune.py", *words])
        runpy.run_path(str(STUDIES / "recommend_tune.py"), run_name="__main__")
        said.append(capsys.readouterr().out)
    table = said[0].splitlines()
    assert [line.split("|")[2].strip() for line in table[2:]] == ["0.003", "0.01"]
    assert said[0].count("*") == 1 and said[1] == said[0]
    assert len(list((tmp_path / "tune" / "runs").glob("regression/*/run.json"))) == 2


def test_paper(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    model_path: str,
    data_path: str,
    tmp_path: Path,
) -> None:
    """Two arms of it with a tiny model: a plan of each, then runs and a report; a second call trains nothing."""
    values = parse_yaml((STUDIES / "paper.yaml").read_text(encoding="utf-8"))
    values["arms"] = {name: values["arms"][name] for name in ("dpo", "pop_random_1")}
    values["base"]["data"] |= {"train": data_path, "test": None, "test_size": 4, "columns": {}}
    values["base"]["train"] |= {"max_steps": 1, "batch_size": 4, "gradient_checkpointing": False}
    values |= {"seeds": [0], "output": str(tmp_path / "paper")}
    values["base"] |= {"model": {"path": model_path}, "evaluation": {}}
    (tmp_path / "paper.yaml").write_text(json.dumps(values))
    words = ["paper.py", str(tmp_path / "paper.yaml"), "--base.train.micro_batch_size", "4"]

    def drive(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", [*words, *more])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(STUDIES / "paper.py"), run_name="__main__")
        assert not end.value.code
        return capfd.readouterr().out

    plan = drive("--plan")
    assert plan.count("--dry-run") == 2 and not (tmp_path / "paper/runs").exists()
    assert drive().count("$ popmargin train") == 2
    runs = list((tmp_path / "paper/runs").glob("*/seed-0/run.json"))
    assert len(runs) == 2 and "DPO-PoP on UltraFeedback" in (tmp_path / "paper/report.html").read_text()
    assert "$ popmargin train" not in drive()
