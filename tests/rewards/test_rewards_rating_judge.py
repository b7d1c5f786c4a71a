"""The judge against a real HTTP server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.rewards.rating_server import Server, by_length

from popmargin.errors import ConfigError, RunError
from popmargin.generate.answer_cache import AnswerCache
from popmargin.rewards.load import load_reward
from popmargin.rewards.rating_judge import JudgeReward, parse_rating


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def judge(server: Server, tmp_path: Path) -> Callable[..., Any]:
    def make(**options: Any) -> Any:
        options = {"model": "grader", "cache": tmp_path / "cache.jsonl", "backoff": 0.01, **options}
        return load_reward(f"judge:{server.url}", **options)

    return make


def test_each_completion_gets_its_rating_in_order(server: Server, judge: Callable[..., Any]) -> None:
    server.answer = by_length
    texts = ["a" * n for n in (3, 9, 1, 5, 7)]
    assert judge().score(["Say a."] * 5, texts) == [3.0, 9.0, 1.0, 5.0, 7.0]
    body = server.bodies[0]
    assert (body["model"], body["temperature"]) == ("grader", 0)
    assert "Say a." in body["messages"][0]["content"]


def test_a_second_run_makes_no_call_and_gives_the_same(
    server: Server, judge: Callable[..., Any], tmp_path: Path
) -> None:
    server.answer = by_length
    first = judge().score(["p", "p", "p"], ["aa", "bbb", "aa"])
    assert len(server.bodies) == 2  # the same question is asked once
    stored = (tmp_path / "cache.jsonl").read_bytes()
    again = judge()
    assert again.score(["p", "p", "p"], ["aa", "bbb", "aa"]) == first
    assert again.requests == 0
    assert len(server.bodies) == 2
    assert (tmp_path / "cache.jsonl").read_bytes() == stored
    assert judge(model="other").score(["p"], ["aa"]) == [2.0]
    assert len(server.bodies) == 3  # another judge is another question


def test_a_torn_last_line_is_asked_again_and_the_rest_is_kept(
    server: Server, judge: Callable[..., Any], tmp_path: Path
) -> None:
    server.answer = by_length
    judge(workers=1).score(["p", "p"], ["aa", "bbb"])
    cache = tmp_path / "cache.jsonl"
    cache.write_bytes(cache.read_bytes()[:-5])
    assert judge().score(["p", "p"], ["aa", "bbb"]) == [2.0, 3.0]
    assert len(server.bodies) == 3
    assert len(AnswerCache(cache).answers) == 2
    cache.write_text("not json\n")
    with pytest.raises(RunError, match="line 1: not a cached judge answer"):
        judge()


@pytest.mark.parametrize(
    "start",
    [
        "",
        "{",
        '{"key": "',
        '{"key": "ab',
        '{"key": "ab", "ans',
        '{"key": "ab", "answer": {"text',
        '{"key": "ab", "answer": 1}',
    ],
)
def test_only_the_beginning_of_an_answer_is_cut(tmp_path: Path, start: str) -> None:
    path = tmp_path / "cache.jsonl"
    path.write_text('{"key": "k", "answer": 7}\n' + start)
    assert AnswerCache(path).answers == {"k": 7} and path.read_text() == '{"key": "k", "answer": 7}\n'


@pytest.mark.parametrize("tail", ["My thesis", '{"prompt": "p"}', '{"key": "ab", "value": 1}', "[]", "\x00"])
def test_a_file_that_is_no_cache_is_left_alone(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "thesis.txt"
    for text in (tail, '{"key": "k", "answer": 7}\n' + tail):
        path.write_text(text)
        with pytest.raises(RunError, match=r"thesis.txt: its last line is not a cached judge answer"):
            AnswerCache(path)
        assert path.read_text() == text
    with pytest.raises(RunError, match=r"cannot be used as a cache \(Is a directory\)"):
        AnswerCache(tmp_path)


def test_busy_servers_are_tried_again_and_answers_before_a_failure_are_kept(
    server: Server, judge: Callable[..., Any]
) -> None:
    server.answer = lambda body, number: (200, "8") if number > 2 else (503 if number == 1 else 429, "busy")
    assert judge().score(["p"], ["a"]) == [8.0]
    assert len(server.bodies) == 3
    server.answer = lambda body, number: (500, "broken") if "bad" in body["messages"][0]["content"] else (200, "6")
    with pytest.raises(RunError, match=r"1 of 2 answers .*\(HTTP 500: 1; .*for completion 1, is HTTP 500: broken"):
        judge(retries=2, workers=1).score(["p", "p"], ["good", "bad"])
    server.answer = lambda body, number: (200, "5")
    assert judge().score(["p", "p"], ["good", "bad"]) == [6.0, 5.0]


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_passes_is_tried_again(server: Server, judge: Callable[..., Any], status: int) -> None:
    server.answer = lambda body, number: (200, "8") if number > 1 else (status, "later")
    assert judge().score(["p"], ["a"]) == [8.0] and len(server.bodies) == 2


@pytest.mark.parametrize("status", [400, 413, 422, 451])
def test_what_one_completion_is_refused_is_told_and_asked_in_the_next_run(
    server: Server, judge: Callable[..., Any], caplog: pytest.LogCaptureFixture, status: int
) -> None:
    server.answer = lambda body, number: (status, "too long") if "bad" in body["messages"][0]["content"] else (200, "9")
    texts = ["bad", *(f"text {number}" for number in range(19))]
    asked = judge()
    assert asked.score(["p"] * 20, texts) == [5.5] + [9.0] * 19
    assert (asked.failed, asked.unparsed, len(server.bodies)) == (1, 1, 20)
    assert f"HTTP {status}: 1; allowed: 5%); the first, for completion 0, is HTTP {status}: too long" in caplog.text
    server.answer = lambda body, number: (200, "2")
    assert judge().score(["p"] * 20, texts)[0] == 2.0 and len(server.bodies) == 21


def test_an_empty_answer_is_not_kept_and_an_unparsed_one_is_asked_again_where_wanted(
    server: Server, judge: Callable[..., Any], tmp_path: Path
) -> None:
    server.answer = lambda body, number: (200, "hm" if "odd" in body["messages"][0]["content"] else "")
    with pytest.raises(RunError, match=r"2 of 2 answers .*empty answer: 1.*again: true asks again"):
        judge(retries=0, workers=1).score(["p", "p"], ["odd", "empty"])
    assert len(AnswerCache(tmp_path / "cache.jsonl").answers) == 1
    server.answer = lambda body, number: (200, "4")
    with pytest.raises(RunError, match=r"1 of 2 answers .*no rating in it: 1.*'hm'"):
        judge().score(["p", "p"], ["odd", "empty"])
    assert judge(again=True).score(["p", "p"], ["odd", "empty"]) == [4.0, 4.0]


def test_fields_of_the_request(server: Server, judge: Callable[..., Any]) -> None:
    judge(request={"max_completion_tokens": 512, "temperature": None}).score(["p"], ["half a pair: \ud800"])
    assert server.bodies[0].keys() == {"model", "messages", "max_completion_tokens"}
    assert "half a pair: \ud800" in server.bodies[0]["messages"][0]["content"]


def test_a_refusal_is_not_tried_again(server: Server, judge: Callable[..., Any]) -> None:
    server.answer = lambda body, number: (401, "wrong key")
    with pytest.raises(RunError, match=r"refused the request. HTTP 401: wrong key"):
        judge(workers=1).score(["p"] * 20, [str(i) for i in range(20)])
    assert len(server.bodies) < 20


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    judge = load_reward(
        "judge:http://127.0.0.1:9/v1", model="m", cache=tmp_path / "c.jsonl", retries=1, backoff=0.01, timeout=2.0
    )
    with pytest.raises(RunError, match=r"gave no answer after 2 attempts. Connect"):
        judge.score(["p"], ["a"])


def test_unparsed_verdicts_are_counted_and_too_many_are_an_error(server: Server, judge: Callable[..., Any]) -> None:
    server.answer = lambda body, number: (200, "hmm") if "strange" in body["messages"][0]["content"] else (200, "9")
    texts = ["strange"] + [f"text {i}" for i in range(19)]
    lenient = judge(max_unparsed=0.05)
    assert lenient.score(["p"] * 20, texts) == [5.5] + [9.0] * 19
    assert lenient.unparsed == 1
    (note,) = lenient.take_notes()
    assert note.endswith("no rating, which count as 5.5: 1 of 20 (no rating in it: 1)") and not lenient.take_notes()
    with pytest.raises(RunError, match=r"1 of 20 answers .*allowed: 1%.*'hmm'"):
        judge(max_unparsed=0.01).score(["p"] * 20, texts)


def test_answers_that_cannot_be_read_are_tried_again_counted_and_not_kept(
    server: Server, judge: Callable[..., Any]
) -> None:
    server.answer = lambda body, number: (200, "garbage" if number in (1, 2) else "8")
    assert judge(workers=1).score(["p"], ["a"]) == [8.0] and len(server.bodies) == 3
    server.answer = lambda body, number: (200, "garbage" if "bad" in body["messages"][0]["content"] else "6")
    lenient = judge(retries=1, max_unparsed=0.5)
    assert lenient.score(["p", "p"], ["bad", "good"]) == [5.5, 6.0] and lenient.unparsed == 1
    assert sum("bad" in body["messages"][0]["content"] for body in server.bodies) == 2
    with pytest.raises(RunError, match=r"1 of 1 answer \(unreadable answer: 1; .* is unreadable answer: <html>"):
        judge(retries=0).score(["p"], ["bad"])
    server.answer = lambda body, number: (200, "4")
    assert judge().score(["p", "p"], ["bad", "good"]) == [4.0, 6.0]


def test_a_server_that_never_answers_as_a_judge_is_named(server: Server, judge: Callable[..., Any]) -> None:
    server.answer = lambda body, number: (200, "garbage")
    with pytest.raises(RunError, match="not answer like an OpenAI-compatible server: '<html>'"):
        judge(retries=0, workers=1).score(["p"] * 50, [str(i) for i in range(50)])
    assert len(server.bodies) < 50


def test_the_key_is_sent_only_when_asked_for(
    server: Server, judge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_JUDGE_KEY", "secret")
    judge().score(["p"], ["a"])
    judge(api_key_env="MY_JUDGE_KEY").score(["p"], ["b"])
    assert "Authorization" not in server.headers[0]
    assert server.headers[1]["Authorization"] == "Bearer secret"
    monkeypatch.delenv("MY_JUDGE_KEY")
    with pytest.raises(ConfigError, match="MY_JUDGE_KEY"):
        judge(api_key_env="MY_JUDGE_KEY")


def test_a_template_of_ones_own_is_filled_once(server: Server, judge: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("Q: {prompt} A: {response} {json}")
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{response}?"}]
    assert judge(template=tmp_path / "own.txt").score([chat], ["{prompt}!"]) == [7.0]
    assert server.bodies[0]["messages"][0]["content"] == "Q: system: Be brief.\n\nuser: {response}? A: {prompt}! {json}"
    (tmp_path / "own.txt").write_text("Rate {prompt}")
    with pytest.raises(ConfigError, match=r"lacks \{response\}"):
        judge(template=tmp_path / "own.txt")
    with pytest.raises(ConfigError, match="cannot be read"):
        judge(template=tmp_path / "absent.txt")


def test_model_and_address_are_needed() -> None:
    with pytest.raises(ConfigError, match=r"has no model name\. Give judge:MODEL@URL"):
        JudgeReward("http://localhost:1/v1")
    with pytest.raises(ConfigError, match="is not a URL"):
        JudgeReward("localhost:1", model="m")


@pytest.mark.parametrize(
    ("answer", "rating"),
    [
        ("Rating: 7", 7.0),
        ("7", 7.0),
        ("**Rating: 10**", 10.0),
        ("8/10", 8.0),
        ("Rating: 8/10.", 8.0),
        ("The answer lists 3 facts.\nRating: 4", 4.0),
        ("6.5", 6.5),
        ("0", None),
        ("11", None),
        ("Rating: 100", None),
        ("Rating: 3 or Rating: 4", None),
        ("I would give it a 7 or an 8", None),
        ("", None),
    ],
)
def test_ratings_in_answers(answer: str, rating: float | None) -> None:
    assert parse_rating(answer) == rating
