"""Judges against a real server process, and against a real local model."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import SERVER, Served

from popmargin.data.conversation import Text
from popmargin.data.questions import PreferenceText
from popmargin.errors import ConfigError, DataError, RunError
from popmargin.generate.answer_cache import AnswerCache
from popmargin.generate.server import NoAnswerError
from popmargin.judges.backends import read_reply
from popmargin.judges.comparing import Judge, parse_letter
from popmargin.judges.labeller import Account, Question, read_orders
from popmargin.judges.local_backend import LocalBackend
from popmargin.judges.prompts import fill, load_prompt
from popmargin.label.labellers.labelling import label_pairs
from popmargin.label.labellers.load import load_labeller
from popmargin.rewards.naming import FORMS


def texts(name: str, prompt: Text, chosen: Text, rejected: Text) -> PreferenceText:
    return PreferenceText(id=name, prompt=prompt, chosen=chosen, rejected=rejected)


def sides(name: str, length: int, prompt: str = "Say a.") -> PreferenceText:
    return texts(name, prompt, "a" * length, "b")


PAIRS = [(sides(f"s{n}", n + 2), sides(f"w{n}", 1)) for n in range(8)] + [(sides("v", 1), sides("x", 30))]


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., Any]:
    return lambda server, **options: load_labeller(
        server.spec, **{"cache": tmp_path / "cache.jsonl", "backoff": 0.01, **options}
    )


def test_both_orders_are_asked_and_a_second_run_makes_no_call_and_gives_the_same_bytes(
    serve: Callable[..., Served], judge: Callable[..., Any], tmp_path: Path
) -> None:
    server, account = serve(), Account()
    edges = label_pairs(judge(server, price_in=10.0, price_out=1000.0), PAIRS, account)
    edges.save(tmp_path / "one.parquet")
    assert edges.table["stronger"].to_pylist() == [*(f"s{n}" for n in range(8)), "x"]
    assert edges.table["confidence"].to_pylist()[1] == pytest.approx(1 / (1 + 2.718281828 ** (-0.3 * 2)))
    assert len(server.calls) == account.asked == 2 * len(PAIRS)
    assert (account.prompt_tokens, account.completion_tokens) == (1800, 18)
    assert account.cost == pytest.approx(1800 * 10e-6 + 18 * 1000e-6)
    cache, again = (tmp_path / "cache.jsonl").read_bytes(), Account()
    label_pairs(judge(server), PAIRS, again).save(tmp_path / "two.parquet")
    assert len(server.calls) == 2 * len(PAIRS) and (again.asked, again.cached) == (0, 2 * len(PAIRS))
    assert again.cost == again.prompt_tokens == 0
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert (tmp_path / "cache.jsonl").read_bytes() == cache
    label_pairs(judge(server, max_tokens=3), PAIRS[:1])
    assert len(server.calls) == 2 * len(PAIRS) + 2  # other parameters are another question


def test_a_judge_that_likes_a_place_is_found_out(serve: Callable[..., Served], judge: Callable[..., Any]) -> None:
    """p = (.9 + 1 − .9) / 2 = ½: every question flips and none has a winner; asked in one order, A always wins."""
    server, both, one = serve("place"), Account(), Account()
    edges = label_pairs(judge(server), PAIRS, both)
    assert all(edges.table["tie"].to_pylist()) and set(edges.table["confidence"].to_pylist()) == {0.5}
    assert (both.flips, both.both_orders) == (len(PAIRS), len(PAIRS)) and "9 of 9 (100.0%)" in str(both)
    single = label_pairs(judge(server, orders="one"), PAIRS, one)
    assert single.table["stronger"].to_pylist() == [first.id for first, _ in PAIRS]
    assert one.both_orders == 0 and one.cached == len(PAIRS)


def test_without_probabilities_orders_vote(serve: Callable[..., Served], judge: Callable[..., Any]) -> None:
    """The server names A at equal lengths, so that pair flips and is a tie."""
    server, account = serve("text"), Account()
    edges = label_pairs(judge(server), [*PAIRS[:2], (sides("e", 3), sides("f", 3))], account)
    assert edges.table["tie"].to_pylist() == [False, False, True]
    assert edges.table["confidence"].to_pylist() == [1.0, 1.0, 0.5]
    assert account.flips == 1
    label_pairs(judge(server, logprobs=False), PAIRS[:1])
    assert "logprobs" in server.calls[0] and "logprobs" not in server.calls[-1]


def test_unparsed_verdicts_are_unsure_counted_and_keep_their_text(
    serve: Callable[..., Served], judge: Callable[..., Any]
) -> None:
    server, account = serve("vague"), Account()
    vague = (sides("p", 3, "A vague wish."), sides("q", 1))
    edges = label_pairs(judge(server), [vague, PAIRS[0]], account)
    assert len(edges) == 1 and edges.parameters["unsure"] == 1
    assert (account.questions, account.labels, account.unsure, account.unparsed) == (2, 1, 1, 2)
    opinion = judge(server).label([Question("pop", *vague)], Account())[0]
    assert opinion.verdict == "unsure" and "unparsed: Both have merits." in opinion.note


def test_answers_without_a_body_are_asked_for_again_then_unsure_and_the_run_goes_on(
    serve: Callable[..., Served], judge: Callable[..., Any], tmp_path: Path
) -> None:
    """Two questions are readable at the second attempt; of the third, no attempt of three is in either order."""
    server, account = serve("void"), Account()
    vague = (sides("p", 3, "A vague wish."), sides("q", 1))
    edges = label_pairs(judge(server, retries=2), [vague, *PAIRS[:2]], account)
    assert edges.table["stronger"].to_pylist() == ["s0", "s1"] and edges.parameters["unsure"] == 1
    assert account.asked == len(server.calls) == 2 * 2 * 2 + 2 * 3
    assert (account.labels, account.unsure, account.completion_tokens) == (2, 1, 4)
    assert (account.unparsed, account.failed, account.reasons) == (0, 2, {"unreadable answer": 2})
    opinion = judge(server, retries=0).label([Question("pop", *vague)], Account())[0]
    assert opinion.verdict == "unsure" and "failed: unreadable answer: (nothing)" in opinion.note
    assert len(AnswerCache(tmp_path / "cache.jsonl").answers) == 4  # the next run asks again


def test_preferences_are_judged_in_both_orders_too(serve: Callable[..., Served], judge: Callable[..., Any]) -> None:
    server = serve()
    opinion = judge(server).label([Question("preference", texts("i", "q", "long one", "no"))], Account())[0]
    assert opinion.verdict == "first" and opinion.confidence > 0.5
    first, second = read_orders(opinion.note) or pytest.fail("no orders")
    assert (first.place, second.place) == ("A", "B") and first.p == pytest.approx(1 - (second.p or 0), abs=2e-3)
    contents = [call["messages"][0]["content"] for call in server.calls]
    assert all(content.count("long one") == 1 for content in contents) and len(set(contents)) == 2


def test_busy_servers_are_asked_again_and_the_rate_is_kept(
    serve: Callable[..., Served], judge: Callable[..., Any]
) -> None:
    server, account = serve("busy"), Account()
    start = time.monotonic()
    label_pairs(judge(server, requests_per_minute=1200), PAIRS[:3], account)
    assert account.asked == len(server.calls) == 18 and account.failed == 0
    assert time.monotonic() - start >= 17 * 60 / 1200


RUN = """
import sys
from popmargin.judges.labeller import Account
from popmargin.label.labellers.labelling import label_pairs
from popmargin.label.labellers.load import load_labeller
sys.path.insert(0, sys.argv[3])
from test_label_judge import many
judge = load_labeller(sys.argv[1], cache=sys.argv[2], requests_per_minute=1200, workers=2)
label_pairs(judge, many(), Account()).save(sys.argv[4])
"""


def many() -> list[tuple[PreferenceText, PreferenceText]]:
    return [(sides(f"s{n}", n % 7 + 1, f"Say {n}."), sides(f"w{n}", 4)) for n in range(40)]


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_where_it_was(
    serve: Callable[..., Served], judge: Callable[..., Any], tmp_path: Path
) -> None:
    server, cache = serve(), tmp_path / "cache.jsonl"
    words = [sys.executable, "-c", RUN, server.spec, str(cache), str(SERVER.parent), str(tmp_path / "no.parquet")]
    killed = subprocess.Popen(words)
    deadline = time.monotonic() + 120
    while not cache.exists() or cache.read_bytes().count(b'"answer": {') < 15:
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = cache.read_bytes().count(b'"answer": {')
    account = Account()
    label_pairs(judge(server), many(), account).save(tmp_path / "resumed.parquet")
    assert not (tmp_path / "no.parquet").exists() and 15 <= kept < 80
    assert account.cached == kept and account.asked == 80 - kept
    assert len(server.calls) <= 80 + 2  # at most what was under way in two workers is asked twice
    fresh = judge(server, cache=tmp_path / "fresh.jsonl")
    label_pairs(fresh, many()).save(tmp_path / "fresh.parquet")
    assert (tmp_path / "resumed.parquet").read_bytes() == (tmp_path / "fresh.parquet").read_bytes()


def test_a_key_is_sent_and_written_nowhere(
    serve: Callable[..., Served], judge: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    label_pairs(judge(serve(), api_key_env="JUDGE_KEY"), PAIRS[:1]).save(tmp_path / "edges.parquet")
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and b"very-secret" in f.read_bytes()]


def test_a_local_judge_does_not_depend_on_the_batch(model_path: str, tmp_path: Path) -> None:
    prompts = [f"Is {'a' * n} more than {'b' * (7 - n)}? " * (n % 3 + 1) for n in range(7)]
    alone = LocalBackend(model_path, batch_size=1, cache=tmp_path / "one.jsonl")
    together = LocalBackend(model_path, batch_size=7, cache=tmp_path / "all.jsonl")
    account = Account()
    one, all_ = alone.reply(prompts, account), together.reply(prompts[::-1], Account())[::-1]
    assert [reply.text for reply in one] == [reply.text for reply in all_]
    assert [reply.p for reply in one] == pytest.approx([reply.p for reply in all_], abs=1e-6)
    assert len({reply.p for reply in one}) == 7 and (account.asked, account.cached) == (7, 0)
    stored = (tmp_path / "one.jsonl").read_bytes()
    again = Account()
    assert LocalBackend(model_path, cache=tmp_path / "one.jsonl").reply(prompts, again) == one
    assert (again.asked, again.cached) == (0, 7) and (tmp_path / "one.jsonl").read_bytes() == stored


def test_a_local_judge_gives_the_models_own_probabilities(model_path: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model_path)
    model: Any = AutoModelForCausalLM.from_pretrained(model_path).eval()
    chat = [{"role": "user", "content": "A or B?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        logits = model(**ids).logits[0, -1]
    letters = [tokenizer.encode(letter, add_special_tokens=False) for letter in "AB"]
    expected = torch.softmax(logits[[tokens[0] for tokens in letters]], -1)[0].item()
    backend = LocalBackend(model_path, cache=tmp_path / "cache.jsonl")
    assert backend.reply(["A or B?"], Account())[0].p == pytest.approx(expected, abs=1e-6)
    with pytest.raises(RunError, match=r"exceeds the context of judge"):
        backend.reply(["word " * 400], Account())


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("A", "A"),
        ("b", "B"),
        ("**A**.", "A"),
        ("Comparison B", "B"),
        ("I weigh both.\n\nAnswer: B", "B"),
        ("C", "="),
        ("Tie.", "="),
        ("A cat", "?"),
        ("A or B", "?"),
        ("", "?"),
        ("Both have merits.", "?"),
    ],
)
def test_letters_in_answers(text: str, place: str) -> None:
    assert parse_letter(text) == place


def test_probabilities_in_a_servers_answer() -> None:
    def response(*tops: tuple[str, float], token: str = "A") -> dict[str, Any]:
        listed = [{"token": name, "logprob": value} for name, value in tops]
        content = [{"token": "\n", "logprob": 0.0}, {"token": token, "logprob": -1.0, "top_logprobs": listed}]
        return {"choices": [{"message": {"content": token}, "logprobs": {"content": content}}]}

    assert read_reply(response(("A", -1.0), ("B", -1.0)))["p"] == 0.5
    assert read_reply(response(("A", -1.0), ("The", -2.0)))["p"] is None  # B is not listed
    assert read_reply(response(("A", 0.0), token="The"))["p"] is None
    with pytest.raises(NoAnswerError, match="no text"):
        read_reply({"choices": [{"message": {"content": None}}]})


def test_prompts_of_ones_own_are_checked_and_filled_once(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("{prompt} {first} {second} {json: 1}")
    text = fill(load_prompt("preference", own), {"prompt": "{second}", "first": "1", "second": "2"})
    assert text == "{second} 1 2 {json: 1}"
    own.write_text("{prompt} {first} {third}")
    with pytest.raises(ConfigError, match=r"lacks \{second\} and has unknown \{third\}"):
        load_prompt("preference", own)
    with pytest.raises(ConfigError, match="cannot be read"):
        Judge(None, prompts={"pop": tmp_path / "absent.txt"})  # pyright: ignore[reportArgumentType]


def test_specifications_and_options_that_are_not_understood() -> None:
    with pytest.raises(ConfigError, match=re.escape(FORMS)):
        load_labeller("gpt")
    with pytest.raises(ConfigError, match="no model name"):
        load_labeller("openai:@http://localhost:1/v1")
    with pytest.raises(ConfigError, match="Did you mean 'workers'"):
        load_labeller("openai:m@http://localhost:1/v1", worker=1)
    with pytest.raises(ConfigError, match="no option 'workers'"):
        load_labeller("ratings", workers=1)
    with pytest.raises(ConfigError, match="at least 1 worker"):
        load_labeller("openai:m@http://localhost:1/v1", workers=0)
    with pytest.raises(ConfigError, match="'both' or 'one'"):
        Judge(None, orders="three")  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="paired with itself"):
        label_pairs(load_labeller("ratings", strengths={"s0": 1.0}), [(PAIRS[0][0], PAIRS[0][0])])
