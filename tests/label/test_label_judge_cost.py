"""What judges cost: said before the first call, never above the limit, and counted over restarts."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Served

from popmargin.cli.main import main
from popmargin.errors import ConfigError
from popmargin.generate.answer_cache import AnswerCache, request_key
from popmargin.generate.spending import Budget, Forecast, Prices, Purse, most_tokens
from popmargin.label.store.label_store import LabelStore

PRICES = ("--price-in", "10000", "--price-out", "20000")  # a call of the server: 100 prompt tokens, 1 more: 1.02
CALL = 1.02


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("judge") / "server", "")
    yield served
    served.stop()


@pytest.fixture
def judge(tmp_path: Path, server: Served, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Twelve questions in a store, and the judge: its code, output and errors, and how many calls it made."""
    rows = [{"id": f"p{n}", "prompt": f"Say a, {n}.", "chosen": "a" * (n + 2), "rejected": "b"} for n in range(12)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    db = str(tmp_path / "labels.db")
    assert main(["label", "import", str(tmp_path / "data.jsonl"), "--db", db, "--kind", "preference"]) == 0
    capsys.readouterr()

    def run(*words: str, prices: tuple[str, ...] = PRICES) -> tuple[int, str, str, int]:
        before = len(server.calls)
        always = ["--cache", str(tmp_path / "cache.jsonl"), "--workers", "4", *prices]
        code = main(["label", "judge", "--db", db, "--judge", server.spec, *always, *words])
        said = capsys.readouterr()
        return code, said.out, said.err, len(server.calls) - before

    return run


def labels(tmp_path: Path) -> list[dict[str, Any]]:
    with LabelStore.open(str(tmp_path / "labels.db")) as store:
        return store.labels(store.project("default").id).to_pylist()


def test_calls_and_cost_are_said_before_and_a_dry_run_asks_nothing(judge: Callable[..., Any], tmp_path: Path) -> None:
    code, out, _, calls = judge("--dry-run")
    assert (code, calls) == (0, 0) and labels(tmp_path) == []
    assert out.startswith("judge:grader: 12 questions, 24 calls, 0 answers from the cache; cost about ")
    _, out, _, _ = judge("--dry-run", prices=())
    assert "24 calls" in out and "cost unknown without --price-in and --price-out" in out
    code, out, _, calls = judge()
    assert (code, calls) == (0, 24) and out.index("24 calls") < out.index("12 new labels")
    assert f"cost {24 * CALL:.4f}" in out
    _, out, _, _ = judge("--dry-run")
    assert "0 questions, 0 calls" in out and f"paid in earlier runs: {24 * CALL:.4g}" in out


def test_the_limit_holds_over_restarts_and_what_was_paid_is_labelled(judge: Callable[..., Any], tmp_path: Path) -> None:
    """Each call may cost about 8 (a token a byte), and costs 1.02; four are under way at a time."""
    code, out, err, calls = judge("--max-cost", "20")
    assert code == 0 and "--max-cost 20: 20 left, not enough for all" in out
    assert 20 - 10 < calls * CALL <= 20 and "Stopped at --max-cost 20" in err
    done = labels(tmp_path)
    assert {row["verdict"] for row in done} == {"first"} and calls // 2 - 1 <= len(done) <= calls // 2
    assert f"{12 - len(done)} questions are left; raise it" in err and "more not asked" in out
    assert judge("--max-cost", "20")[3] == 0 and len(labels(tmp_path)) == len(done)
    code, out, err, more = judge("--max-cost", "100")
    assert code == 0 and "Stopped" not in err and calls + more == 24 and len(labels(tmp_path)) == 12
    assert f"paid in earlier runs: {calls * CALL:.4g}" in out and "more not asked" not in out


def test_a_call_under_way_when_a_run_is_killed_counts_as_paid(tmp_path: Path) -> None:
    cache, prices = AnswerCache(tmp_path / "cache.jsonl"), Prices(1e6, 1e6)  # 1 a token
    body = {"model": "m", "messages": [{"role": "user", "content": "ü" * 50}], "max_tokens": 8}
    key, most = request_key(body), sum(number or 0 for number in most_tokens(body))
    purse = Purse(Budget(1000), cache, scope="here", prices=prices)
    assert purse.admit(key, body) and purse.admit(key, body)
    purse.settle(key, body, {"prompt_tokens": 30, "completion_tokens": 2})
    other = Purse(Budget(), cache, scope="elsewhere", prices=prices)
    other.settle(key, body, {"prompt_tokens": 500, "completion_tokens": 2})

    again = Budget(1000)
    Purse(again, AnswerCache(tmp_path / "cache.jsonl"), scope="here", prices=prices)
    assert again.paid == 32 + most and most > 2 * 50 + 8
    silent = Purse(Budget(1000), AnswerCache(tmp_path / "new.jsonl"), scope="here", prices=prices)
    assert silent.admit(key, body)
    silent.settle(key, body, {})  # a server that counts no tokens
    assert silent.budget.paid == most and silent.admit(key, body)
    silent.settle(key, body, None)  # a refused call
    assert silent.budget.paid == most


def test_a_limit_needs_prices_and_the_length_of_answers(judge: Callable[..., Any], tmp_path: Path) -> None:
    code, _, err, calls = judge("--max-cost", "5", prices=())
    assert (code, calls) == (2, 0) and "--max-cost needs the prices of the judge" in err
    code, _, err, calls = judge("--max-cost", "5", "--request", "max_tokens=null")
    assert (code, calls) == (2, 0) and "--max-cost needs a limit for the length of an answer" in err
    assert labels(tmp_path) == []
    with pytest.raises(ConfigError, match="needs the prices"):
        Purse(Budget(1.0), AnswerCache(tmp_path / "c.jsonl"), scope="", prices=Prices())


def test_a_panel_labels_under_several_names_and_shares_the_limit(
    judge: Callable[..., Any], server: Served, tmp_path: Path
) -> None:
    """The second judge costs ten times as much a token; both are counted together, over restarts."""
    prices = ("--price-in", "10000", "--price-in", "100000")
    two = ("--judge", server.spec.replace("grader", "other"), "--name", "cheap", "--name", "dear")
    code, _, err, calls = judge("--judge", server.spec, "--dry-run")
    assert (code, calls) == (2, 0) and "Two judges of the panel are named 'judge:grader'" in err
    code, _, err, calls = judge("--judge", server.spec, "--name", "one", "--dry-run")
    assert (code, calls) == (2, 0) and "--name is given 1 time for 2 judges" in err
    code, _, err, calls = judge(*two, "--max-cost", "60", prices=prices)
    assert (code, calls) == (0, 24) and "Stopped at --max-cost 60: 24 is paid" in err and "12 questions are left" in err
    code, out, _, _ = judge(*two, "--dry-run", prices=prices)
    assert out.startswith("cheap: 0 questions, 0 calls") and "dear: 12 questions, 24 calls" in out
    assert "paid in earlier runs: 24\n" in out
    assert judge(*two, "--max-cost", "1000", prices=prices)[3] == 24
    assert sorted(row["annotator"] for row in labels(tmp_path)) == ["cheap"] * 12 + ["dear"] * 12
    assert "paid in earlier runs: 264\n" in judge(*two, "--dry-run", prices=prices)[1]


def test_forecasts_add_up() -> None:
    total = Forecast(1, 2, 3, 0.5, 1.0, priced=True) + Forecast(1, 1, 0, 0.25, 0.5)
    assert total == Forecast(2, 3, 3, 0.75, 1.5, priced=True)
    assert "cost unknown" in str(Forecast(1, 2, 0))


def test_commands_at_the_same_time_share_the_limit(tmp_path: Path) -> None:
    """Two purses on one file, as two processes have them: what one has set aside or paid, the other cannot spend."""
    body = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 8}
    prices = Prices(0.0, 1e6)  # a token of the answer costs 1, so a call 8 at most
    budgets = [Budget(20.0), Budget(20.0)]
    one, other = (Purse(budget, AnswerCache(tmp_path / "c.jsonl"), scope="here", prices=prices) for budget in budgets)
    elsewhere = Purse(Budget(20.0), AnswerCache(tmp_path / "c.jsonl"), scope="elsewhere", prices=prices)
    assert one.admit("a", body) and one.admit("b", body, wait=False)  # 16 of 20 are set aside
    assert elsewhere.admit("a", body, wait=False)
    assert not other.admit("c", body, wait=False)
    one.settle("a", body, {"prompt_tokens": 9, "completion_tokens": 1})
    one.settle("b", body, {"prompt_tokens": 9, "completion_tokens": 2})
    AnswerCache(tmp_path / "c.jsonl").add("x", {})  # a third process writes, too
    late = Budget(20.0)
    assert Purse(late, AnswerCache(tmp_path / "c.jsonl"), scope="here", prices=prices).budget.paid == 3.0
    assert other.admit("c", body, wait=False) and budgets[1].paid == 3.0 and budgets[1].spent == 0.0
    other.settle("c", body, {"prompt_tokens": 9, "completion_tokens": 8})
    assert not one.admit("d", body, wait=False) or budgets[0].paid + 8.0 <= 20.0
    assert budgets[0].paid == 11.0 and budgets[0].spent == 3.0
