"""What a judge does not answer: kept with its reason, counted, asked again; and what ends a run at once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import Served

from popmargin.cli.main import main
from popmargin.data.questions import PreferenceText
from popmargin.errors import ConfigError, RunError
from popmargin.judges.comparing import Judge, Reply
from popmargin.judges.labeller import Account, read_orders
from popmargin.label.labellers.labelling import label_pairs
from popmargin.label.labellers.load import load_labeller
from popmargin.label.store.label_store import LabelStore

QUESTIONS = [f"{'A vague wish' if row in (1, 4) else 'Say a'}, {row}." for row in range(12)]


def pairs(count: int, prompt: str = "Say") -> list[tuple[PreferenceText, PreferenceText]]:
    def side(name: str, length: int) -> PreferenceText:
        return PreferenceText(id=name, prompt=f"{prompt} {name[1:]}.", chosen="a" * length, rejected="b")

    return [(side(f"s{n}", n % 5 + 2), side(f"w{n}", 1)) for n in range(count)]


@pytest.fixture
def project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Twelve questions of kind preference in a store, and the judge that a user calls: its code, output and errors."""
    rows = [
        {"id": f"p{n}", "prompt": text, "chosen": "a" * (n + 2), "rejected": "b"} for n, text in enumerate(QUESTIONS)
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    db = str(tmp_path / "labels.db")
    assert main(["label", "import", str(data), "--db", db, "--kind", "preference"]) == 0
    capsys.readouterr()

    def judge(server: Served, *words: str) -> tuple[int, str, str]:
        always = ["--cache", str(tmp_path / "cache.jsonl"), "--retries", "1", "--workers", "4"]
        code = main(["label", "judge", "--db", db, "--judge", server.spec, *always, *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return judge


@pytest.fixture
def labels(tmp_path: Path) -> Callable[[], dict[str, tuple[str, str]]]:
    """Verdict and note of every label, by preference."""

    def read() -> dict[str, tuple[str, str]]:
        with LabelStore.open(str(tmp_path / "labels.db")) as store:
            table = store.labels(store.project("default").id)
        return {row["first"]: (row["verdict"], row["note"]) for row in table.to_pylist()}

    return read


@pytest.mark.parametrize(
    ("mode", "reason", "calls"),
    [
        ("filter", "failed: HTTP 400: ", 1),
        ("mute", "failed: empty answer: the token limit was reached before the answer (finish_reason: length)", 1),
        ("void", "failed: unreadable answer: (nothing)", 2),
        ("vague", "unparsed: Both have merits.", 1),
    ],
)
def test_what_one_question_gets_is_its_own_and_is_asked_again(
    serve: Callable[..., Served],
    project: Callable[..., Any],
    labels: Callable[..., Any],
    tmp_path: Path,
    mode: str,
    reason: str,
    calls: int,
) -> None:
    """Ten questions get their verdict; two are unsure with the reason, are left alone, then asked `--again`."""
    server = serve(mode)
    code, out, err = project(server)
    assert code == 0 and "12 questions = 10 labels + 2 unsure" in out
    kind = "4 unparsed, 0 failed" if mode == "vague" else "0 unparsed, 4 failed"
    assert kind in out and "first answer without a verdict: " in out
    assert "picked position A: 10 of 20 (50.0%)" in out and "flipped with the order: 0 of 10" in out
    assert "'unsure' for 2 of its 12 labels" in err and "--again" in err
    unsure = {name: note for name, (verdict, note) in labels().items() if verdict == "unsure"}
    assert sorted(unsure) == ["p1", "p4"] and all(reason in note for note in unsure.values())
    if mode != "vague":
        assert (tmp_path / "cache.jsonl").read_text().count('"answer": {') == 20
    before = len(server.calls)
    assert project(server)[0] == 0 and len(server.calls) == before
    code, out, _ = project(server, "--again")
    assert "2 questions = 0 labels + 2 unsure" in out and "0 new labels" in out
    assert len(server.calls) == before + 4 * calls
    server.mend()
    if mode == "void":  # it never mends
        return
    code, out, err = project(server, "--again")
    assert code == 0 and "2 questions = 2 labels + 0 unsure" in out and not err.count("unsure")
    assert {verdict for verdict, _ in labels().values()} == {"first"}


def test_fifty_of_fifty_without_a_verdict_is_a_failure(
    serve: Callable[..., Served], project: Callable[..., Any], labels: Callable[..., Any]
) -> None:
    server = serve("hm")
    code, out, err = project(server)
    assert code == 1 and "12 questions = 0 labels + 12 unsure" in out and "'Both have merits.'" in out
    assert "gave no verdict on any of 12 items" in err.splitlines()[-1]
    assert {note for _, note in labels().values()} == {"orders: ?, ?; unparsed: Both have merits. | Both have merits."}
    assert project(server)[0] == 1  # still: nothing was asked, nothing is known
    server.mend()
    assert project(server, "--again")[0] == 0


@pytest.mark.parametrize(
    ("mode", "message", "most"),
    [
        ("locked", r"refused the request. HTTP 401: .*wrong key.* Is the key correct\? .*api_key_env", 5),
        ("new", r"first 8 questions all failed.*HTTP 400.*--request max_completion_tokens=512", 12),
    ],
)
def test_a_server_that_refuses_all_is_asked_a_few_times(
    serve: Callable[..., Served], tmp_path: Path, mode: str, message: str, most: int
) -> None:
    server = serve(mode)
    judge = load_labeller(server.spec, cache=tmp_path / "cache.jsonl", workers=4, backoff=0.01)
    with pytest.raises(RunError, match=message):
        label_pairs(judge, pairs(40))
    assert len(server.calls) <= most


def test_long_questions_that_stand_together_are_not_a_server_that_fails(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    server, account = serve("filter"), Account()
    judge = load_labeller(server.spec, cache=tmp_path / "cache.jsonl", backoff=0.01)
    edges = label_pairs(judge, [*pairs(12, "A vague wish"), *pairs(12)], account)
    assert len(edges) == 12 and account.failed == 24 and account.reasons == {"HTTP 400": 24}


def test_fields_of_the_request(serve: Callable[..., Served], project: Callable[..., Any], tmp_path: Path) -> None:
    server = serve("new")
    code, out, _ = project(server, "--request", "max_completion_tokens=512", "--request", "reasoning.effort=low",
                           "--request", "temperature=null")  # fmt: skip
    assert code == 0 and "12 labels" in out
    body = server.calls[0]
    assert body["max_completion_tokens"] == 512 and body["reasoning"] == {"effort": "low"} and body["logprobs"] is True
    assert not {"max_tokens", "temperature"} & body.keys()
    with pytest.raises(ConfigError, match="field 'messages' of a request cannot be set"):
        load_labeller(server.spec, request={"messages": []})
    assert project(server, "--request", "seed")[2].startswith("error: --request seed: give a field and its value")


def test_a_probability_is_read_at_the_verdict_and_not_at_an_article(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    """The answers begin with "A careful look"; at their verdict p = 1 / (1 + e^-0.9) for three characters more."""
    judge = load_labeller(serve("prose").spec, cache=tmp_path / "cache.jsonl")
    (pair,) = pairs(3)[2:]
    edges = label_pairs(judge, [pair])
    assert edges.table["confidence"].to_pylist() == pytest.approx([1 / (1 + 2.718281828**-0.9)])


class Known:
    """A backend of replies that are known, by prompt."""

    name = "known"

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)

    def reply(self, prompts: Any, account: Account, *, progress: bool = False) -> list[Reply]:
        return self.replies


def test_a_probability_of_an_older_cache_counts_only_for_a_lone_letter() -> None:
    def orders(*replies: Reply) -> Any:
        from popmargin.judges.labeller import Question

        opinion = Judge(Known(*replies)).label([Question("pop", *pairs(1)[0])], Account())[0]
        return read_orders(opinion.note)

    first, second = orders(Reply("A careful look: the answer is B.", p=0.99), Reply(" **A**", p=0.8))
    assert (first.place, first.p, second.place, second.p) == ("B", None, "A", 0.8)
    first, second = orders(
        Reply("A careful look: the answer is B.", p=0.2, at=30), Reply("The answer is A", p=0.7, at=0)
    )
    assert (first.place, first.p, second.place, second.p) == ("B", 0.2, "A", None)
