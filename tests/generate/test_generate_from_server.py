"""Responses of a server that fails in every way: each is there once, and none is paid for twice."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from sample_server import WAYS, Server

from popmargin.data.read_prompts import Prompts, load_prompts
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError, RunError
from popmargin.generate.from_server import ServerSampling, read_choice, response_seed, server_responses
from popmargin.generate.produced import Produced

PROMPTS = load_prompts([{"prompt": f"question {i}", "topic": i} for i in range(len(WAYS))])
QUICK: dict[str, Any] = {"backoff": 0.01, "timeout": 0.6}


@pytest.fixture
def serve(tmp_path: Path) -> Generator[Callable[..., Server]]:
    """Starts a server in a thread, with a mode."""
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


def asked(server: Server, prompts: Prompts = PROMPTS, **options: Any) -> Produced:
    names = ("part", "missing", "round", "source")
    more = {name: options.pop(name) for name in (*names, "workers", "retries") if name in options}
    sampling = ServerSampling(**{"samples": 3, **options})
    return server_responses(prompts, server.url, "m", sampling, **QUICK, **more)


def test_a_server_that_fails_in_every_way_loses_nothing_and_is_paid_once(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve("all")
    produced = asked(server, part=tmp_path / "out.part")
    responses = produced.responses
    assert responses.counts.tolist() == [3] * len(WAYS) and produced.new == 3 * len(WAYS)
    assert len(set(responses.texts)) == len(responses.texts)
    # Nothing was served twice, and nothing but what is kept, except the two choices that one prompt got unasked.
    assert len(server.served) == len(set(server.served)) == 3 * len(WAYS) + 2
    assert "choices beyond those asked for, not used: 2" in produced.notes
    assert all(server.seen[f"question {WAYS.index(way)}"] > 1 for way in WAYS if way != "many")
    lines = [json.loads(line) for line in (tmp_path / "out.part").read_text().splitlines()[1:]]
    assert sorted((line["prompt"], line["number"]) for line in lines) == [
        (prompt, number) for prompt in range(len(WAYS)) for number in range(3)
    ]


def test_another_call_asks_only_for_what_is_not_there(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve()
    whole = asked(server).responses
    asked(server, part=tmp_path / "out.part")
    lines = (tmp_path / "out.part").read_text().splitlines(keepends=True)
    kept = [lines[0], *(line for line in lines[1:] if json.loads(line)["prompt"] not in (2, 5))]
    (tmp_path / "out.part").write_text("".join(kept))
    before = len(server.bodies)
    again = asked(server, part=tmp_path / "out.part")
    assert {body["prompt"] for body in server.bodies[before:]} == {"question 2", "question 5"}
    assert list(again.responses) == list(whole) and again.new == 6
    with pytest.raises(RunError, match=r"begun with temperature 1\.0 \(now 0\.5\)"):
        asked(server, part=tmp_path / "out.part", temperature=0.5)


@pytest.mark.parametrize("mode", ["one", "strict"])
def test_servers_that_give_one_choice_are_asked_for_one(serve: Callable[..., Server], mode: str) -> None:
    """Each response with its own seed; what came of the first request counts."""
    server = serve(mode)
    responses = asked(server).responses
    assert responses.counts.tolist() == [3] * len(WAYS) and len(set(responses.texts)) == 3 * len(WAYS)
    assert len(server.served) == len(set(server.served)) == 3 * len(WAYS)
    assert sum("n" in body for body in server.bodies) == 1  # the first prompt has shown it
    seeds = {(body["prompt"], body["seed"]) for body in server.bodies if "n" not in body}
    assert seeds <= {(prompt, response_seed(0, prompt, number)) for prompt in PROMPTS.prompts for number in range(3)}


def test_what_is_asked_and_what_is_kept(serve: Callable[..., Server]) -> None:
    server = serve()
    text = asked(server, PROMPTS.first(2), temperature=0.7, top_p=0.9, top_k=5, round=3, source="me").responses
    chat = asked(
        server, PROMPTS.first(2).as_chat(), samples=1, logprobs=False, request={"max_tokens": None, "min_p": 0}
    )
    first, last = server.bodies[0], server.bodies[-1]
    assert first == {
        "model": "m", "prompt": "question 0", "temperature": 0.7, "top_p": 0.9, "top_k": 5, "max_tokens": 256,
        "seed": response_seed(0, "question 0", 0), "n": 3, "logprobs": 1,
    }  # fmt: skip
    assert set(last) == {"model", "messages", "temperature", "top_p", "seed", "min_p"}
    assert text.field("source") == ["me"] * 6 and text.field("round") == [3] * 6 and text.column("topic") == [0, 1]
    assert text.field("tokens") == [2] * 6 and set(text.field("finished")) <= {True, False}
    assert text.score("logp").tolist() == [sum(logps) for logps in text.field("token_logps")]
    assert chat.responses.score_names == () and chat.responses.field("tokens") == [2, 2]  # of the server's count
    assert chat.responses.prompts[0] == [{"role": "user", "content": "question 0"}]


def test_prompts_that_a_server_refuses_are_told(serve: Callable[..., Server], tmp_path: Path) -> None:
    """The first prompt, with which several choices are tried, too."""
    server = serve("filter")
    prompts = load_prompts([{"prompt": f"{word} {i}"} for i, word in enumerate(["bad", "good", "bad", "good"])])
    with pytest.raises(RunError, match=r"no answer for 6 of 12 responses \(HTTP 400: 6\).*flagged.*--missing keep"):
        asked(server, prompts, part=tmp_path / "out.part")
    served = len(server.served)
    assert served == 6
    produced = asked(server, prompts, part=tmp_path / "out.part", missing="keep")
    assert produced.responses.counts.tolist() == [0, 3, 0, 3] and len(server.served) == served
    assert produced.missing == {"HTTP 400": 6} and "missing responses (HTTP 400): 6" in produced.lines()


def test_a_server_that_is_down_ends_the_call(serve: Callable[..., Server]) -> None:
    with pytest.raises(RunError, match=r"The first \d+ questions all failed.*oops"):
        asked(serve("down"), retries=0)
    with pytest.raises(ConfigError, match="is not a URL"):
        server_responses(PROMPTS, "localhost:8000", "m", ServerSampling())
    with pytest.raises(ConfigError, match="no model name"):
        server_responses(PROMPTS, "http://localhost:8000", "", ServerSampling())
    with pytest.raises(RunError, match="gave no answer after 1 attempt"):
        server_responses(PROMPTS, "http://127.0.0.1:9", "m", ServerSampling(), retries=0)


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ({"text": "", "finish_reason": "stop"}, {"text": "", "finished": True}),
        ({"message": {"content": None}, "finish_reason": "length"}, {"text": "", "finished": False}),
        ({"message": {"content": [{"text": "a"}, {"text": "b"}]}}, {"text": "ab", "finished": None}),
        ({"text": "a", "token_ids": [3, 4]}, {"text": "a", "finished": None, "token_ids": [3, 4], "tokens": 2}),
        ({"message": {"content": None, "refusal": "I can't."}}, "the model refused: I can't."),
        ({"message": {"content": "x"}, "finish_reason": "content_filter"}, "finish_reason: content_filter"),
        ({"message": {"content": None}}, "finish_reason: None"),
    ],
)
def test_choices(choice: dict[str, Any], kept: Any) -> None:
    """An empty response is one; a refusal by the server is none."""
    assert read_choice(choice) == kept


@pytest.mark.slow
def test_killed_and_begun_again_the_file_is_the_same(tmp_path: Path, popmargin_environment: dict[str, str]) -> None:
    """Killed three times, without warning; what was in flight is all that is asked for again."""
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"question {i}"}) + "\n" for i in range(60)))
    folder = tmp_path / "server"
    folder.mkdir()
    script = Path(__file__).with_name("sample_server.py")
    with subprocess.Popen([sys.executable, str(script), str(folder), "slow"]) as server:
        try:
            while not (folder / "port").exists():
                time.sleep(0.01)
            url = f"http://127.0.0.1:{(folder / 'port').read_text()}/v1"
            words = [sys.executable, "-m", "popmargin", "generate", "prompts.jsonl", "--server", url, "--model", "m"]
            words += ["--n", "2", "--workers", "3", "--out"]
            options: dict[str, Any] = {"cwd": tmp_path, "env": popmargin_environment, "stderr": subprocess.DEVNULL}
            for lines in (20, 50, 90):
                part = tmp_path / "r.jsonl.part"
                with subprocess.Popen([*words, "r.jsonl"], **options) as run:
                    while run.poll() is None and (not part.exists() or part.read_bytes().count(b"\n") < lines):
                        time.sleep(0.005)
                    os.kill(run.pid, signal.SIGKILL)
                assert part.exists() and not (tmp_path / "r.jsonl").exists()
            assert subprocess.run([*words, "r.jsonl"], check=True, **options).returncode == 0
            served = (folder / "served").read_text().splitlines()
            assert len(set(served)) == 120 and len(served) <= 120 + 3 * 3 * 2  # in flight at each kill
            assert subprocess.run([*words, "whole.jsonl"], check=True, **options).returncode == 0
        finally:
            server.kill()
    assert (tmp_path / "r.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len(Responses.load(tmp_path / "r.jsonl").texts) == 120 and not list(tmp_path.glob("*.part*"))
