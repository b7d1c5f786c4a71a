"""Means weighted by rows, and what a run directory holds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from popmargin.config import RunConfig, read_yaml, to_dict
from popmargin.errors import RunError
from popmargin.files import append_jsonl, read_jsonl
from popmargin.pop.edges import PopEdges
from popmargin.tasks.log_probs import kl_estimate
from popmargin.training.checkpoints import publish
from popmargin.training.fingerprints import Record, Rows
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory
from popmargin.training.step_metrics import MeanMetrics, finish_means


def test_means_are_weighted_by_rows_and_start_anew() -> None:
    metrics = MeanMetrics()
    metrics.add({"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([1.0])})
    metrics.add({"a": torch.tensor([10.0])})
    assert metrics.read() == {"a": 4.0, "b": 1.0}
    assert metrics.read() == {}


def test_rows_without_a_value_are_left_out() -> None:
    metrics, nan = MeanMetrics(), float("nan")
    metrics.add({"a": torch.tensor([nan, 2.0, 4.0]), "b": torch.tensor([nan])})
    metrics.add({"a": torch.tensor([nan, 9.0])})
    assert metrics.read() == {"a": 5.0}
    assert metrics.read() == {}


def test_squares_become_standard_deviations() -> None:
    values = torch.tensor([1.0, 3.0, 5.0])
    metrics = MeanMetrics()
    metrics.add({"x_mean": values, "x_square": values.square(), "loss": values})
    finished = finish_means(metrics.read())
    assert finished.keys() == {"x_mean", "x_std", "loss"}
    assert finished["x_std"] == pytest.approx(float(values.std(correction=0)))
    assert finish_means({"x_mean": 1.0, "x_square": 1.0 - 1e-12})["x_std"] == 0.0
    assert finish_means({"x_square": 2.0}) == {"x_square": 2.0}


def test_what_a_run_directory_holds(configure: Callable[..., RunConfig]) -> None:
    config = configure({"objective": {"name": "pop"}, "train": {"max_steps": 2, "save_steps": 1}})
    run, _ = train(config)
    names = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    assert {"config.yaml", "run.json", "metrics.jsonl", "timing.jsonl", "edges.parquet"} <= names
    assert {"model/model.safetensors", "model/tokenizer.json", "model/config.json"} <= names
    assert not any(name.endswith((".bin", ".pkl")) and name.startswith("model/") for name in names)
    assert read_yaml(run.path / "config.yaml") == to_dict(config) and run.config() == config
    facts = run.facts()
    assert facts["versions"].keys() >= {"python", "torch", "transformers", "popmargin"}
    assert (facts["seed"], facts["steps"], facts["name"]) == (0, 2, "run")
    assert (facts["train_preferences"], facts["test_preferences"]) == (32, 8)
    kept, dropped = facts["train_tokenization"]["rows_kept"], facts["train_tokenization"]["dropped"]
    assert facts["train_tokenization"]["rows_in"] == kept + len(dropped) == 32
    assert len(facts["train_fingerprint"]) == 64 and facts["edges_fingerprint"] and facts["edge_comparisons"] > 0
    assert facts["tokens"] > 0 and facts["tokens_per_second"] > 0 and facts["peak_memory_mb"] > 0
    wanted = {"loss", "accuracy", "reward_margin", "chosen_logratio", "rejected_logratio", "target_margin_mean"}
    wanted |= {"target_margin_std", "target_margin_clipped", "target_distance", "grad_norm", "learning_rate", "step"}
    assert all(line.keys() >= wanted for line in read_jsonl(run.path / "metrics.jsonl"))


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "none")
    with pytest.raises(RunError, match="No such run directory"):
        run.config()
    with pytest.raises(RunError, match=r"is not a run directory: it has no config\.yaml"):
        RunDirectory(tmp_path).config()
    with pytest.raises(RunError, match="has not finished training"):
        run.facts()
    assert run.checkpoint() is None and read_jsonl(tmp_path / "none.jsonl") == []


def test_a_torn_line_of_a_log_is_left_out_and_cut_off_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "metrics.jsonl"
    for step in (1, 2):
        append_jsonl(log, {"step": step, "loss": 1.0})
    whole = log.read_bytes()
    for torn in (b'{"loss": 1.0, "st', b'{"loss": 1.0, "step": 3}', '{"ü'.encode()[:3]):
        log.write_bytes(whole + torn)
        caplog.clear()
        assert [line["step"] for line in read_jsonl(log)] == [1, 2] and "is skipped" in caplog.text
        assert log.read_bytes() == whole + torn  # to read changes nothing
        caplog.clear()
        append_jsonl(log, {"step": 3, "loss": 1.0})
        assert [line["step"] for line in read_jsonl(log)] == [1, 2, 3] and "are cut off" in caplog.text
    log.write_bytes(b'{"step": 1\n' + whole)
    with pytest.raises(RunError, match=r"metrics\.jsonl:1: not JSON"):
        read_jsonl(log)


@pytest.mark.parametrize("name", ["metrics.jsonl", "timing.jsonl"])
def test_a_run_with_a_torn_log_is_read_and_goes_on(
    configure: Callable[..., RunConfig], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure({"train": {"max_steps": 4, "save_steps": 2}})
    run, _ = train(config)
    (run.path / "run.json").unlink()
    before = (run.path / "metrics.jsonl").read_bytes()
    with (run.path / name).open("ab") as file:
        file.write(b'{"step": 5, "lo')
    run, _ = train(config, resume=True)
    assert (run.path / "metrics.jsonl").read_bytes() == before
    assert ("is skipped" in caplog.text) == (name == "timing.jsonl")  # metrics come from the checkpoint
    assert [line["step"] for line in read_jsonl(run.path / "timing.jsonl")] == [1, 2, 3, 4]


def test_a_new_start_drops_lines_after_the_checkpoint(tmp_path: Path, configure: Callable[..., Any]) -> None:
    run, config, record = (
        RunDirectory(tmp_path / "run"),
        configure(),
        Record({side: Rows([], [], []) for side in ("train", "test")}, {}),
    )
    run.start(config, record, resume=False, overwrite=False)
    (run.checkpoints / ".unfinished" / "checkpoint-2").mkdir(parents=True)
    publish(run.checkpoints / ".unfinished" / "checkpoint-2", run.checkpoints / "checkpoint-2")
    lines = [{"step": step, "loss": 1.0} for step in (1, 2, 3)]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.start(config, record, resume=True, overwrite=False)
    assert [line["step"] for line in read_jsonl(run.path / "metrics.jsonl")] == [1, 2]


def test_the_kl_estimate_is_unbiased_and_never_negative() -> None:
    reference, policy = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.3, 0.5]).double()
    per_token = kl_estimate(policy.log(), reference.log())
    assert bool((per_token >= 0).all())
    exact = float((reference * (reference / policy).log()).sum())
    assert float((reference * per_token).sum()) == pytest.approx(exact)
    assert kl_estimate(policy.log(), policy.log()).tolist() == [0.0] * 3


def test_what_is_logged(configure: Callable[..., RunConfig]) -> None:
    config = configure({"objective": {"name": "pop"}, "train": {"max_steps": 2, "learning_rate": 0.01}})
    run, _ = train(config)
    lines = read_jsonl(run.path / "metrics.jsonl")
    wanted = {"loss", "accuracy", "reward_margin", "chosen_logratio", "rejected_logratio", "kl_estimate"}
    wanted |= {"target_margin_mean", "target_margin_std", "target_margin_clipped", "target_distance", "grad_norm"}
    assert all(wanted <= line.keys() for line in lines)
    assert abs(lines[0]["kl_estimate"]) < 1e-6 < lines[1]["kl_estimate"] and lines[1]["target_distance"] > 0
    timing = read_jsonl(run.path / "timing.jsonl")
    assert [line["step"] for line in timing] == [1, 2]
    assert all(line["tokens_per_second"] > 0 and line["seconds"] > 0 for line in timing)


def test_tensorboard_gets_the_metrics_too(
    configure: Callable[..., RunConfig], tmp_path: Path, monkeypatch: Any
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = tmp_path / "tensorboard"
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(logs))
    train(configure({"train": {"max_steps": 2, "report_to": ["tensorboard"]}}))
    (file,) = logs.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file))
    events.Reload()
    assert [event.step for event in events.Scalars("train/reward_margin")] == [1, 2]


def test_what_is_logged_of_edges_is_of_rows_that_are_some(configure: Callable[..., RunConfig]) -> None:
    """Iterative edges end in rows without a weaker side; with every margin clipped to 10, the mean is 10."""
    objective = {"name": "pop", "margin_min": 10.0, "margin_max": 10.0}
    run, _ = train(configure({"objective": objective, "train": {"max_steps": 2}}))
    weaker = PopEdges.load(run.path / "edges.parquet").table["weaker"]
    assert 0 < weaker.null_count < len(weaker)
    for line in read_jsonl(run.path / "metrics.jsonl"):
        assert [line[f"target_margin_{name}"] for name in ("mean", "std", "clipped")] == [10.0, 0.0, 1.0]
