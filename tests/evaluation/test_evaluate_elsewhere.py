"""Evaluating responses that are not sampled here: a server gives them, or a file has them."""

import json
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from tests.generate.sample_server import WAYS, Handler, Server

from popmargin.cli.main import main
from popmargin.config import RunConfig
from popmargin.errors import ConfigError, DataError, RunError
from popmargin.evaluation.elsewhere import Elsewhere, from_file, from_server
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.run import evaluate_run
from popmargin.training.build import Run
from popmargin.training.run import train
from popmargin.training.run_directory import RunDirectory

Configure = Callable[..., RunConfig]


@pytest.fixture
def run(configure: Configure, reward_path: str, tmp_path: Path) -> RunDirectory:
    """A run that is tested on prompts which the server fails at in ways of their own."""
    for name, start in (("train", 100), ("test", 0)):
        rows = [{"prompt": f"question {start + i}", "chosen": "blue", "rejected": "rain"} for i in range(len(WAYS))]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    data = {"train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl"), "test_size": 0.2}
    settings = {"reward": reward_path, "prompts": None, "samples": 2}
    return train(configure({"data": data, "evaluation": settings, "train": {"max_steps": 1}}))[0]


@pytest.fixture
def serve(tmp_path: Path) -> Generator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(mode: str = "") -> Server:
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        servers.append(Server(folder, mode))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def of_server(server: Server, run: RunDirectory, **options: Any) -> Elsewhere:
    quick: dict[str, Any] = {"backoff": 0.01, "timeout": 0.6}
    return from_server(server.url, "mine", run.config().evaluation, **(quick | options))


def test_a_server_that_fails_is_paid_once_and_the_log_ratio_is_unknown(
    run: RunDirectory, serve: Callable[..., Server]
) -> None:
    server = serve("all")
    metrics = evaluate_run(run.path, elsewhere=of_server(server, run))
    found = Generations.load(run.evaluation / "generations.parquet")
    assert found.responses.counts.tolist() == [2] * len(WAYS) and len(set(found.responses.texts)) == 2 * len(WAYS)
    paid = len(server.served)
    assert paid == 2 * len(WAYS) + 2  # one prompt got two choices unasked
    intervals = metrics["intervals"]
    assert intervals["kl_per_token"]["estimate"] is None and "kl" not in found.responses.score_names
    assert all(intervals[name]["estimate"] is not None for name in ("mean_reward", "win_rate_reference", "accuracy"))
    assert intervals["length"]["estimate"] == 2.0
    note = f"from mine at {server.url}: their log-ratio to the reference, and so the KL, is unknown"
    assert metrics["sampling"]["elsewhere"] == note
    assert any(note in step["notes"] for step in metrics["account"])
    again = evaluate_run(run.path, elsewhere=of_server(server, run))
    assert len(server.served) == paid and again["intervals"] == intervals


def test_what_was_paid_before_a_failure_is_kept(
    run: RunDirectory, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, answer = serve(), Handler.answer

    def failing(handler: Handler, *args: Any) -> bytes:
        if len(server.served) >= 4:
            server.mode = "down"
        return answer(handler, *args)

    with monkeypatch.context() as patch, pytest.raises(RunError, match=r"answers? .* kept in"):
        patch.setattr(Handler, "answer", failing)
        evaluate_run(run.path, elsewhere=of_server(server, run, retries=0, workers=1))
    before = list(server.served)
    assert 4 <= len(before) < 2 * len(WAYS)
    server.mode = ""
    metrics = evaluate_run(run.path, elsewhere=of_server(server, run))
    assert len(server.served) == len(set(server.served)) == 2 * len(WAYS) and server.served[: len(before)] == before
    said = f"{len(before)} of {2 * len(WAYS)} were asked for in an earlier evaluation"
    assert said in json.dumps(metrics["account"])
    with pytest.raises(RunError):  # another server under the same name has its own answers
        evaluate_run(
            run.path, elsewhere=from_server("http://127.0.0.1:1/v1", "mine", run.config().evaluation, retries=0)
        )


def test_responses_of_a_file(run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"instruction": f"question {i}", "output": text} for i in range(len(WAYS)) for text in ("aeiou", "xyz")]
    file = tmp_path / "answers.json"
    file.write_text(json.dumps(rows))
    assert main(["eval", str(run.path), "--answers", str(file)]) == 0
    said = capsys.readouterr().out
    assert f"Those of the policy are from {file}: their log-ratio to the reference" in said
    assert "mean_reward" in said and "0.5000" in said and "kl_per_token" not in said
    file.write_text(json.dumps(rows[:-1]))
    with pytest.raises(DataError, match="1 of 10 prompts have fewer than 2 responses"):
        evaluate_run(run.path, elsewhere=from_file(file))


WRONG = [
    (["--server", "http://localhost:1/v1"], "give the policy's name there with --model"),
    (["--model", "mine"], "--model is for --server"),
    (["--workers", "2"], "--workers is for --server"),
    (["--answers", "x.json", "--server", "http://localhost:1/v1"], "not both"),
    (["--answers", "x.json", "--evaluation.reward", "null"], "name the reward that scores them, with evaluation"),
    (["--server", "http://localhost:1/v1", "--model", "m", "--evaluation.generation_config", "model"], "remove it"),
]


def test_flags_that_do_not_fit(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, sentence in WRONG:
        assert main(["eval", str(run.path), *flags]) == 2
        assert sentence in capsys.readouterr().err


def test_a_reward_model_generates_nothing(configure: Configure) -> None:
    directory, _ = train(configure({"task": "reward", "train": {"max_steps": 1}}))
    with pytest.raises(ConfigError, match="it generates nothing"):
        evaluate_run(Run.opened(directory.path), elsewhere=from_file("x.json"))


def test_mistakes_are_found_before_anything_is_sampled_here(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sampled(*args: Any, **options: Any) -> None:
        raise AssertionError("the reference was sampled first")

    monkeypatch.setattr("popmargin.evaluation.run.generate_and_score", sampled)
    with pytest.raises(DataError, match="no such file"):
        evaluate_run(str(run.path), elsewhere=from_file(tmp_path / "nope.jsonl"))
    with pytest.raises(ConfigError, match="is not a URL"):
        evaluate_run(str(run.path), elsewhere=from_server("localhost:8000", "mine", run.config().evaluation))
