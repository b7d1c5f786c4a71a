"""Recommenders from the command line on a small generated shop: compared, killed, gone on with, measured."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popmargin import recommend
from popmargin.cli.main import main
from popmargin.config import dump_yaml
from popmargin.files import read_jsonl
from popmargin.recommend.baselines.base import BASELINES
from popmargin.recommend.ranks import rank_cases
from popmargin.recommend.saved_parts import load_parts
from popmargin.report.results import StudyResults
from popmargin.study.recommenders.recommender_job import Job, run_job
from popmargin.study.recommenders.saved_rankings import read_measured
from small_shop import write_shop

Run = Callable[..., subprocess.CompletedProcess[str]]
MODEL = {
    "task": {"schedule": "cosine", "steps": 200, "negatives": "hardest"},
    "train": {"batch_size": 64, "learning_rate": 3e-3, "max_steps": 60, "weight_decay": 0.0, "save_steps": 20},
}


def write_study(folder: Path, **changes: Any) -> Path:
    """A comparison of a popular, a sequential and a neighbourhood baseline, SASRec, and PreferDiff."""
    write_shop(folder / "events.jsonl", users=300)
    study = {
        "output": str(folder / "study"),
        "seeds": [0, 1],
        "data": {"path": str(folder / "events.jsonl"), "split": "leave_one_out"},
        "vectors": {"dimension": 32},
        "base": MODEL,
        "arms": {
            "item_knn": {"recommender": "item_knn", "options": {"decay": 0.7}},
            "popularity": {"recommender": "popularity"},
            "markov": {"recommender": "markov"},
            "sasrec": {"recommender": "sasrec", "options": {"epochs": 1}},
            "preferdiff": {"label": "PreferDiff"},
        },
    }
    file = folder / "study.yaml"
    file.write_text(dump_yaml(study | changes))
    return file


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of finished rankings: when it was written, and what it says."""
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("*.*"))}


@pytest.mark.slow
def test_a_comparison_is_killed_goes_on_and_is_kept(tmp_path: Path, popmargin: Run, popmargin_environment: Any) -> None:
    """Killed in the middle of a training, it leaves no orphan and goes on; a second call changes nothing."""
    file = write_study(tmp_path)
    words = [sys.executable, "-m", "popmargin", "recommend", "compare", str(file)]
    run = tmp_path / "study" / "runs" / "preferdiff" / "seed-0"
    with subprocess.Popen(words, env=popmargin_environment, stderr=subprocess.DEVNULL) as process:
        while not any(run.glob("checkpoints/*/trainer_state.json")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    rankings = tmp_path / "study" / "rankings"
    before = contents(rankings)
    assert {Path(path).parts[-3] for path in before} >= {"item_knn", "popularity", "markov", "sasrec"}
    assert not (run / "run.json").exists()
    time.sleep(1)
    steps = len(read_jsonl(run / "metrics.jsonl"))
    time.sleep(1)
    assert len(read_jsonl(run / "metrics.jsonl")) == steps < 60  # its process has ended too
    went_on = popmargin("recommend", "compare", str(file))
    assert went_on.returncode == 0, went_on.stderr[-2000:]
    assert went_on.stderr.count("already done") >= 5
    after = contents(rankings)
    assert {path: after[path] for path in before} == before
    results = StudyResults.load(tmp_path / "study" / "results.json")
    assert went_on.stdout.startswith(results.reading[0]) and "item-kNN" in results.reading[0]
    assert any("training of PreferDiff was interrupted" in sentence for sentence in results.reading)
    assert results.reading[0] in (tmp_path / "study" / "report.html").read_text().replace("&#39;", "'")
    arms = {arm.name: arm for arm in results.arms}
    assert arms["preferdiff"].seeds == arms["sasrec"].seeds == [0, 1] and arms["markov"].seeds == []
    assert arms["markov"].metrics["ndcg@10"].estimate > arms["popularity"].metrics["ndcg@10"].high
    for arm in results.arms:
        assert {
            f"{name}@{k}" for name in ("recall", "ndcg", "coverage", "popularity", "gini") for k in (5, 10, 20)
        } == set(arm.metrics)
        assert all(arm.overhead[cost] > 0 for cost in ("fit_seconds", "fit_cpu_seconds", "rank_seconds"))
        assert arm.overhead["peak_memory_mb"] > arm.overhead["start_memory_mb"] > 50
    again = popmargin("recommend", "compare", str(file))
    assert again.stderr.count("already done") == 7 and again.stdout == went_on.stdout
    assert contents(rankings) == after
    page = tmp_path / "again.html"
    assert main(["report", str(tmp_path / "study"), "--out", str(page)]) == 0
    assert page.read_bytes() == (tmp_path / "study" / "report.html").read_bytes()
    refused = popmargin("recommend", "compare", str(file), "--base.train.max_steps", "5")
    assert refused.returncode == 2 and "run.train.max_steps: 60 → 5" in refused.stderr
    refused = popmargin("recommend", "compare", str(file), "--arms.item_knn.options.decay", "0.9")
    assert "options.decay: 0.7 → 0.9" in refused.stderr and contents(rankings) == after
    changed = popmargin("recommend", "compare", str(file), "--arms.item_knn.options.decay", "0.9", "--overwrite")
    assert changed.stderr.count("already done") == 6 and changed.returncode == 0


@pytest.mark.slow
def test_one_command_trains_and_one_measures(tmp_path: Path, popmargin: Run) -> None:
    """From events to a run; measured beside baselines; ranked from Python; other data and splits are answered."""
    events = write_shop(tmp_path / "events.jsonl", users=300)
    config = {"output": "runs/shop", "data": {"path": "events.jsonl", "split": "leave_one_out"},
              "vectors": {"dimension": 32}, "run": MODEL}  # fmt: skip
    (tmp_path / "train.yaml").write_text(dump_yaml(config))
    trained = popmargin("recommend", "train", "train.yaml", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr[-2000:]
    assert trained.stdout.splitlines()[-1].startswith("next: popmargin recommend eval runs/shop")
    run = tmp_path / "runs" / "shop"
    weights, metrics = (run / "model" / "model.safetensors").read_bytes(), (run / "metrics.jsonl").read_bytes()
    assert "already contains a run" in popmargin("recommend", "train", "train.yaml", cwd=tmp_path).stderr
    (run / "run.json").unlink()
    for checkpoint in run.glob("checkpoints/*60"):
        checkpoint.rename(tmp_path / "gone")
    assert popmargin("recommend", "train", "train.yaml", "--resume", cwd=tmp_path).returncode == 0
    assert (run / "metrics.jsonl").read_bytes() == metrics
    assert (run / "model" / "model.safetensors").read_bytes() == weights
    measured = popmargin("recommend", "eval", "runs/shop", "--beside", "item_knn,markov", "--json", cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr[-2000:]
    found = StudyResults.from_json(measured.stdout)
    assert [arm.name for arm in found.arms] == ["shop", "item_knn", "markov"] and found.baseline == "item_knn"
    assert "item-kNN" in found.reading[0]
    assert (run / "evaluation" / "recommendations" / "report.html").is_file()
    parts = load_parts(tmp_path / "runs" / "shop-data")
    by_hand = rank_cases(
        BASELINES.get("markov").fit(parts, {}), parts.test, items=len(parts.catalogue), exclude_history=True
    )
    assert found.arms[2].metrics["recall@10"].estimate == pytest.approx((by_hand.ranks < 10).mean())
    shop = recommend.load(run)
    assert len(shop.rank([["i000", "i001"]], k=5)[0]) == 5
    rows = read_jsonl(events)
    for row in rows:
        row["item"] = "new" if row["user"] == "u7" and row["time"] > 4000 else row["item"]
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = popmargin("recommend", "eval", "runs/shop", "--data", "other.jsonl", cwd=tmp_path)
    assert said.returncode == 2 and "other.jsonl: 1 item of" in said.stderr and "(user 'u7' has 'new')" in said.stderr
    dropped = popmargin(
        "recommend", "eval", "runs/shop", "--data", "other.jsonl", "--data.bad_rows", "drop", cwd=tmp_path
    )
    assert dropped.returncode == 0 and "300 in = 299 kept + 1 left out (an unknown item: 1)" in dropped.stderr
    assert "make sure that it has not seen these users" in dropped.stderr
    seen = popmargin("recommend", "eval", "runs/shop", "--data.split", "user", cwd=tmp_path)
    assert seen.returncode == 2 and "was trained on another split" in seen.stderr


def test_mistakes_are_answered_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its place and its remedy; nothing is written."""
    file = write_study(tmp_path)
    (tmp_path / "empty.csv").write_text("user,item,time\n")
    (tmp_path / "bad.csv").write_text("user,item,time\na,1,1\na,,2\n")

    def said(*words: str) -> str:
        capsys.readouterr()
        assert main(["recommend", *words]) == 2
        return capsys.readouterr().err

    assert "Did you mean" in said("compare", str(tmp_path / "studi.yaml"))
    assert "No such file" in said("compare", str(file), "--data.path", str(tmp_path / "event.jsonl"))
    assert "Did you mean 'split'?" in said("compare", str(file), "--data.splt", "time")
    assert "Did you mean --overwrite?" in said("compare", str(file), "--overwrit")
    assert "Did you mean 'cosine'?" in said("compare", str(file), "--base.task.schedule", "cosin")
    assert "bad.csv:3, column 'item'" in said("compare", str(file), "--data.path", str(tmp_path / "bad.csv"))
    assert "it has no rows" in said("compare", str(file), "--data.path", str(tmp_path / "empty.csv"))
    assert "not a study folder" in said("compare", str(file), "--output", str(tmp_path))
    assert "neither a run nor a model" in said("eval", str(tmp_path))
    assert "No such folder" in said("eval", str(tmp_path / "nowhere"))
    assert "Unknown key 'arms'" in said("train", str(file))
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_an_error_of_a_process_is_that_of_the_parent(tmp_path: Path) -> None:
    """Its kind and its words."""
    job = Job(data=str(tmp_path), output=str(tmp_path / "out"), part="test", places=5, exclude_history=True, draws=1,
              record={}, recommender="popularity")  # fmt: skip
    with pytest.raises(Exception, match=r"popularity: .*holds no split that can be read") as raised:
        run_job(job, "popularity")
    assert type(raised.value).__name__ == "RunError"
    assert read_measured(tmp_path / "out") is None and list(tmp_path.iterdir()) == []
