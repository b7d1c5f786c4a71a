"""The batch endpoint of a server: the same labels, nothing paid twice, and rows that fail."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import SERVER, Served
from test_label_judge_failures import pairs

from popmargin.cli.main import main
from popmargin.errors import ConfigError, RunError
from popmargin.generate.answer_cache import AnswerCache
from popmargin.generate.batch_log import BatchLog, SentBatch
from popmargin.generate.spending import Budget
from popmargin.judges.labeller import Account
from popmargin.label.labellers.labelling import label_pairs
from popmargin.label.labellers.load import load_labeller


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., Any]:
    def load(server: Served, **options: Any) -> Any:
        always: dict[str, Any] = {"cache": tmp_path / "cache.jsonl", "batch": True, "batch_poll": 0.05, "backoff": 0.01}
        return load_labeller(server.spec, **always | options)

    return load


def url(server: Served) -> str:
    return f"{server.spec.partition('@')[2]}/chat/completions"


def payments(path: Path) -> list[dict[str, Any]]:
    return [paid for _, paid in AnswerCache(path).payments if "tokens" in paid]


def test_a_batch_gives_the_labels_of_single_calls(
    serve: Callable[..., Served], judge: Callable[..., Any], tmp_path: Path
) -> None:
    server, account = serve(), Account()
    edges = label_pairs(judge(server), pairs(12), account)
    assert [len(batch) for batch in server.batches] == [24] and server.calls == []
    assert (account.asked, account.cached, account.labels, account.prompt_tokens) == (24, 0, 12, 2400)
    alone = label_pairs(judge(server, batch=False, cache=tmp_path / "other.jsonl"), pairs(12))
    assert edges.table.equals(alone.table)
    again = Account()
    assert label_pairs(judge(server), pairs(12), again).table.equals(alone.table)
    assert (again.asked, again.cached) == (0, 24) and len(server.batches) == 1
    assert BatchLog(tmp_path / "cache.jsonl.batches").open(url(server)) == []


def test_rows_that_fail_are_asked_again_or_counted(serve: Callable[..., Served], judge: Callable[..., Any]) -> None:
    """A third of the rows fail once with 500; those with "vague" always with 400, which is not asked again."""
    server, account = serve("partly"), Account()
    vague = pairs(1, "A vague wish")
    edges = label_pairs(judge(server), [*pairs(6), *vague], account)
    assert len(edges) == 6 and edges.parameters["unsure"] == 1
    assert (account.failed, dict(account.reasons)) == (2, {"HTTP 400": 2})
    first, second = server.batches
    assert len(first) == 14 and 0 < len(second) < 6 and set(second) < set(first)
    assert "content filter" in account.example


def test_what_an_expired_batch_did_not_answer_is_asked_in_another(
    serve: Callable[..., Served], judge: Callable[..., Any]
) -> None:
    server, account = serve("expired"), Account()
    label_pairs(judge(server), pairs(6), account)
    assert [len(batch) for batch in server.batches] == [12, 6] and account.labels == 6
    other = Account()
    server = serve("expired")
    label_pairs(judge(server, retries=0), pairs(6, "Tell"), other)
    assert len(server.batches) == 1 and other.reasons == {"no answer": 6} and "batch expired" in other.example


def test_a_batch_whose_making_got_no_answer_is_found(
    serve: Callable[..., Served], judge: Callable[..., Any], tmp_path: Path
) -> None:
    server, budget = serve("dropped"), Budget(1e9)
    label_pairs(judge(server, budget=budget, price_in=1e6, price_out=1e6), pairs(4))
    assert len(server.batches) == 1 and budget.paid == 8 * 101
    assert len(payments(tmp_path / "cache.jsonl")) == 8


def test_refusals_end_the_run_with_the_servers_words(serve: Callable[..., Served], judge: Callable[..., Any]) -> None:
    server = serve("invalid")
    budget = Budget(1e9)
    with pytest.raises(RunError, match="refused batch batch_0: model not found in batch"):
        label_pairs(judge(server, budget=budget, price_in=1e6), pairs(2))
    assert budget.paid == 0
    with pytest.raises(RunError, match="refused batch batch_1"):  # and it is not waited for again
        label_pairs(judge(server), pairs(2))
    with pytest.raises(ConfigError, match="a batch has no rate"):
        judge(server, requests_per_minute=5)


RUN = """
import sys
from popmargin.judges.labeller import Account
from popmargin.generate.spending import Budget
from popmargin.label.labellers.labelling import label_pairs
from popmargin.label.labellers.load import load_labeller
sys.path.insert(0, sys.argv[3])
from test_label_judge_failures import pairs
judge = load_labeller(sys.argv[1], cache=sys.argv[2], batch=True, batch_poll=0.05, budget=Budget(100_000), scope="x",
                      price_in=1e6, price_out=1e6)
label_pairs(judge, pairs(5), Account())
"""


@pytest.mark.slow
def test_a_killed_run_finds_its_batch_and_pays_once(
    serve: Callable[..., Served], judge: Callable[..., Any], tmp_path: Path
) -> None:
    server, cache = serve("slow"), tmp_path / "cache.jsonl"
    killed = subprocess.Popen([sys.executable, "-c", RUN, server.spec, str(cache), str(SERVER.parent)])
    log = tmp_path / "cache.jsonl.batches"
    deadline = time.monotonic() + 120
    while not log.exists() or log.read_bytes().count(b"\n") < 2:
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (server.folder / "ready").touch()
    budget, account = Budget(100_000), Account()
    again = judge(server, budget=budget, scope="x", price_in=1e6, price_out=1e6)
    assert 10 * 101 < budget.paid <= 100_000  # until the server says, the most that it may cost
    label_pairs(again, pairs(5), account)
    assert len(server.batches) == 1 and budget.paid == 10 * 101 and account.labels == 5
    fetched = Budget(100_000)
    judge(server, budget=fetched, scope="x", price_in=1e6, price_out=1e6)
    assert fetched.paid == 10 * 101


def test_a_batch_that_was_noted_but_never_made_is_made(
    serve: Callable[..., Served], judge: Callable[..., Any], tmp_path: Path
) -> None:
    server = serve()
    label_pairs(judge(server), pairs(2))
    log = BatchLog(tmp_path / "cache.jsonl.batches")
    keys = tuple(server.batches[0])
    (tmp_path / "cache.jsonl").write_text("")  # forgotten, and a batch of it was begun before a kill
    log.begin(SentBatch("lost", url(server), keys))
    with log.path.open("a") as file:
        file.write('{"name": "half')
    label_pairs(judge(server), pairs(2))
    assert len(server.batches) == 2 and log.open(url(server)) == []
    log.path.write_text("[]\n")
    with pytest.raises(RunError, match="line 1: not a line about a batch"):
        log.open(url(server))


def test_the_command_line_asks_in_batches_within_the_limit(
    serve: Callable[..., Served], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A call may cost 7 times what it does, so the first batch holds a part, and later ones what is left over."""
    server, db = serve(), str(tmp_path / "labels.db")
    rows = [{"id": f"p{n}", "prompt": f"Say a, {n}.", "chosen": "a" * (n + 2), "rejected": "b"} for n in range(12)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["label", "import", str(tmp_path / "data.jsonl"), "--db", db, "--kind", "preference"]) == 0
    words = ["label", "judge", "--db", db, "--judge", server.spec, "--cache", str(tmp_path / "c.jsonl")]
    words += ["--price-in", "10000", "--price-out", "20000", "--batch-poll", "0.05"]
    assert main(words) == 2 and "--batch-poll is for --batch" in capsys.readouterr().err
    assert main([*words, "--batch", "--max-cost", "20"]) == 0
    said = capsys.readouterr()
    sent = sum(len(batch) for batch in server.batches)
    assert len(server.batches) > 1 and 20 - 10 < sent * 1.02 <= 20 and "Stopped at --max-cost 20" in said.err
    assert main([*words, "--batch"]) == 0
    assert "paid in earlier runs" in capsys.readouterr().out
    assert sum(len(batch) for batch in server.batches) == 24 and server.calls == []
