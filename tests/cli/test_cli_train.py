"""train, eval, compare and report as a user types them, and what they say when something is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popmargin.cli.main import main
from popmargin.config import dump_yaml, read_yaml
from popmargin.pop.edges import PopEdges

Popmargin = Callable[..., Any]


@pytest.fixture
def config(tmp_path: Path, base_run: dict[str, Any]) -> str:
    """The short run as a YAML file."""
    path = tmp_path / "run.yaml"
    path.write_text(dump_yaml(base_run))
    return str(path)


@pytest.mark.slow
def test_train_eval_compare_report(tmp_path: Path, config: str, base_run: dict[str, Any], popmargin: Popmargin) -> None:
    (tmp_path / "rewards.py").write_text(
        "def length(prompts, completions):\n    return [len(c) for c in completions]\n"
    )
    reward = ["--evaluation.reward", f"{tmp_path}/rewards.py:length"]
    done = popmargin("train", config, "--objective.name", "pop", "--name", "pop")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("trained pop (pop) on 32 rows in 3 steps") and "popmargin eval" in done.stdout
    done = popmargin("eval", base_run["output"], *reward, "--json")
    assert done.returncode == 0, done.stderr
    assert {"accuracy", "mean_reward"} <= json.loads(done.stdout)["intervals"].keys()
    done = popmargin("train", config, "--output", str(tmp_path / "dpo"), "--name", "dpo")
    assert done.returncode == 0, done.stderr
    done = popmargin("eval", str(tmp_path / "dpo"), *reward, "--against", base_run["output"])
    assert done.returncode == 0 and "win_rate_baseline" in done.stdout, done.stderr
    assert "Completions are sampled at temperature 1 from all tokens." in done.stdout
    page = tmp_path / "two.html"
    done = popmargin("report", str(tmp_path / "dpo"), base_run["output"], "--out", str(page), "--title", "Two runs")
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "Two runs" in text and "dpo" in text and "pop" in text and "http://" not in text.replace("http://www.w3", "")

    words = ["compare", "--data", base_run["data"]["train"], "--model", base_run["model"]["path"], "--output"]
    words += [str(tmp_path / "study"), "--reward", f"{tmp_path}/rewards.py:length", "--base.train.max_steps", "2"]
    words += [
        "--base.evaluation.max_new_tokens",
        "4",
        "--base.data.max_length",
        "96",
    ]
    done = popmargin(*words)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "study" / "report.html").read_text()
    arms = (
        "DPO, fixed margin",
        "DPO, rating margin",
        "Control, stronger sides",
        "DPO-PoP, iterative",
        "DPO-PoP, random",
    )
    assert all(arm in text for arm in (*arms, "pop_rank (two-sided)"))
    again = popmargin(*words)
    assert again.returncode == 0 and again.stderr.count("already done") == 7
    rebuilt = popmargin("report", str(tmp_path / "study"), "--out", str(tmp_path / "again.html"))
    assert rebuilt.returncode == 0 and (tmp_path / "again.html").read_text() == text


@pytest.mark.slow
def test_a_reward_model_from_training_to_its_uses(tmp_path: Path, config: str, popmargin: Popmargin) -> None:
    """Train, evaluate, rate, label PoP edges, train a policy on them, judge it; the model stands for an annotator."""
    data, model = read_yaml(config)["data"]["train"], f"model:{tmp_path}/rm/model"
    words = ["--task", "reward", "--objective.name", "dpo_rating_margin", "--output", str(tmp_path / "rm")]
    center = ["--regularizers", "[{name: center, weight: 0.01}]", "--model.lora_rank", "2"]
    done = popmargin("train", config, *words, *center)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("trained run (dpo_rating_margin) on 32 rows")
    done = popmargin("eval", str(tmp_path / "rm"))
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout and f"Use it as {model}" in done.stdout
    done = popmargin("report", str(tmp_path / "rm"), "--out", str(tmp_path / "rm.html"))
    assert done.returncode == 0, done.stderr
    rated = str(tmp_path / "rated.parquet")
    done = popmargin("data", "rate", data, "--reward", model, "--out", rated, "--disagree", "equal")
    assert done.returncode == 0, done.stderr
    edges = str(tmp_path / "edges.parquet")
    for source in ([rated, "--source", model], [data, "--reward", model]):
        done = popmargin("pop", "sample", *source, "--out", edges, "--overwrite")
        assert done.returncode == 0, done.stderr
        assert set(PopEdges.load(edges).table["source"].to_pylist()) == {model}
    policy = ["--objective.name", "pop", "--data.train", rated, "--output", str(tmp_path / "policy")]
    done = popmargin("train", config, *policy)
    assert done.returncode == 0, done.stderr
    done = popmargin("eval", str(tmp_path / "policy"), "--evaluation.reward", model)
    assert done.returncode == 0 and "win_rate_reference" in done.stdout, done.stderr


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line on stderr of a call that fails as a user's mistake."""
    capsys.readouterr()
    assert main(words) == 2
    captured = capsys.readouterr()
    error = captured.err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "Traceback" not in captured.err and not captured.out
    return error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--trian.epochs", "2"], "Unknown key 'trian'. Did you mean 'train'"),
        (["--train.lerning_rate", "1"], "Did you mean 'learning_rate'"),
        (["--train.epochs", "many"], "train.epochs must be a number (above 0), not 'many'"),
        (["--train.epochs"], "--train.epochs needs a value"),
        (["--objective.name", "dpoo"], "Unknown objective 'dpoo'. Did you mean 'dpo'"),
        (["--objective.betta", "1"], "objective 'dpo' has no option 'betta'. Did you mean 'beta'"),
        (["--objective.beta", "-1"], "beta must be a finite number above 0, not -1"),
        (["--objective.beta", "[1"], "is not YAML"),
        (["--regularizers", "[{name: sft, wieght: 2}]"], "has no option 'wieght'"),
        (["--data.train", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--model.path", "/nowhere/model"], "/nowhere/model"),
        (["--pop.edges", "nowhere.parquet", "--objective.name", "pop"], "nowhere.parquet"),
        (["--train.batch_size", "8", "--train.micro_batch_size", "3"], "is not a multiple of train.micro_batch_size 3"),
        (["--train.scheduler", "cosinus"], "cosinus"),
        (["--train.trainer_arguments", "{learning_rat: 1}"], "learning_rat"),
        (["--data.test_size", "4000"], "test_size"),
        (["--task", "rewards"], "Unknown task 'rewards'. Did you mean 'reward'"),
        (["--task", "reward", "--objective.name", "simpo"], "which a reward model does not have"),
        (["--task", "reward", "--evaluation.reward", "a:b"], "evaluation.reward has no meaning for a reward model"),
    ],
)
def test_mistakes_in_training(
    capsys: pytest.CaptureFixture[str], config: str, flags: list[str], message: str, base_run: dict[str, Any]
) -> None:
    assert message in said(capsys, "train", config, *flags)
    assert not Path(base_run["output"]).exists()


def test_bad_files(capsys: pytest.CaptureFixture[str], tmp_path: Path, config: str) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("train: [1\n")
    assert "No such configuration file: nowhere.yaml" in said(capsys, "train", "nowhere.yaml")
    capsys.readouterr()
    assert main(["train", str(bad)]) == 2
    assert f"error: {bad} is not YAML" in capsys.readouterr().err
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "empty.jsonl" in said(capsys, "train", config, "--data.train", str(empty))


def test_eval_compare_and_report_of_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "is not a run directory" in said(capsys, "eval", str(tmp_path))
    assert "is not a run directory" in said(capsys, "report", str(tmp_path))
    assert "Give a STUDY.yaml, or your preferences with --data" in said(capsys, "compare")
    assert "No such configuration file" in said(capsys, "compare", str(tmp_path / "none.yaml"))
    assert "unknown verb 'trian'. Did you mean 'train'" in said(capsys, "trian")


def test_a_run_that_was_not_trained(
    capsys: pytest.CaptureFixture[str], config: str, base_run: dict[str, Any], tmp_path: Path
) -> None:
    assert main(["train", config]) == 0
    assert "already contains a run: pass --resume" in said(capsys, "train", config)
    run = Path(base_run["output"])
    assert "popmargin eval" in said(capsys, "report", str(run), "--out", str(tmp_path / "r.html"))
    (run / "run.json").unlink()
    assert "has not finished training" in said(capsys, "eval", str(run))
    assert "has not finished training" in said(capsys, "report", str(run))


def test_through_a_process(popmargin: Popmargin, tmp_path: Path) -> None:
    done = popmargin("train", "nowhere.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: No such configuration file: nowhere.yaml\n" and done.stdout == ""
    listed = popmargin("objectives", "--json")
    names = [entry["name"] for entry in json.loads(listed.stdout)]
    assert {"dpo", "ipo", "simpo", "pop", "pop_rank", "pop_lagrangian", "simpo_pop", "dpo_stronger"} <= set(names)
