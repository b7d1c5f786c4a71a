"""Tokens made in shards, by several processes, and kept on disk: the same as when one process makes them in memory."""

import json
import logging
import mmap
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from popmargin.data import (
    Preferences,
    TokenizedPreferences,
    load_preferences,
    token_shards,
    token_workers,
    tokenize,
    tokenize_preferences,
)
from popmargin.data.encode import Writing
from popmargin.data.token_shards import Job, Shard, Tokenizing
from popmargin.data.token_workers import tokenized_shards, worker_count
from popmargin.errors import DataError, RunError

WORDS = ["the", "sky", "is", "blue", "and", "warm", "light", "falls", "on", "quiet", "green", "hills"]
OPENS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'].split('</think>')[-1] }}"
    "{{ '<|eot|>' if m['content'].startswith('it') else '' if m['content'].startswith('no') else '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
"""Drops reasoning, opens a block for sampling, and ends turns in two ways or not at all."""


def rows(count: int, *, chat: bool) -> list[dict[str, Any]]:
    """Rows of all kinds: long ones, ones that the template makes equal, with and without a system message."""
    draws, found = np.random.default_rng(0), []
    for number in range(count):
        texts = [" ".join(draws.choice(WORDS, size)) for size in draws.integers(1, 30, 3)]
        start = ("it ", "no ", "")[number % 3]
        prompt, chosen, rejected = texts[0], f"{start}{texts[1]} A", f"{start}{texts[2]} B"
        if number % 10 == 7:
            chosen, rejected = "<think>x</think>same", "<think>y</think>same"
        turns: Any = [{"role": "user", "content": prompt}]
        if number % 4 == 0 and number > 25:
            turns = [{"role": "system", "content": "Be kind."}, *turns]
        if chat:
            found.append({"prompt": turns, "chosen": [{"role": "assistant", "content": chosen}],
                          "rejected": [{"role": "assistant", "content": rejected}]})  # fmt: skip
        else:
            found.append({"prompt": prompt, "chosen": f" {chosen}", "rejected": f" {rejected} </s> x"})
    return found


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> int:
    """Shards of a few rows, kept from the first row on."""
    monkeypatch.setattr(token_shards, "SHARD_ROWS", 7)
    monkeypatch.setattr(tokenize, "KEPT_FROM", 1)
    return 7


@pytest.fixture(scope="module")
def chats() -> Preferences:
    return load_preferences(rows(60, chat=True))


@pytest.fixture
def opening(make_tokenizer: Callable[..., Any]) -> Any:
    return make_tokenizer(chat_template=OPENS, eos_token="<|im_end|>")


def assert_equal(found: TokenizedPreferences, expected: TokenizedPreferences) -> None:
    assert found.ids == expected.ids
    for name in ("prompt", "chosen", "rejected"):
        for part in ("values", "offsets"):
            mine, theirs = (getattr(getattr(one, name), part) for one in (found, expected))
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(found.index, expected.index)
    assert json.dumps(found.report.to_dict(), sort_keys=True) == json.dumps(expected.report.to_dict(), sort_keys=True)


HOW = {
    "cut": {"max_length": 80},
    "dropped": {"max_length": 200, "truncation": "drop"},
    "sampled": {"writing": Writing("sampling", "keep")},
    "no limit": {"max_length": None},
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("chat", [True, False])
def test_shards_are_the_whole(
    tmp_path: Path, small_shards: int, opening: Any, monkeypatch: pytest.MonkeyPatch, chat: bool, how: str
) -> None:
    data, options = load_preferences(rows(60, chat=chat)), HOW[how]
    with monkeypatch.context() as whole:
        whole.setattr(token_shards, "SHARD_ROWS", 10**6)
        expected = tokenize_preferences(data, opening, **options)
    assert expected.report.rows_in == 60
    if chat and how == "cut":
        assert expected.report.dropped
        assert expected.report.unterminated
        assert expected.report.template_shifted
        assert expected.report.completions_cut
    assert_equal(tokenize_preferences(data, opening, **options), expected)
    for _ in range(2):
        kept = tokenize_preferences(data, opening, **options, keep=tmp_path)
        assert_equal(kept, expected)
    base = kept.chosen.values
    while not isinstance(base, mmap.mmap):
        base = base.base
        assert base is not None, "not memory-mapped"


def test_where_a_completion_goes_on_does_not_depend_on_the_rows_before(make_tokenizer: Callable[..., Any]) -> None:
    """An end token that only the last row of all ends with, in the text of the first."""
    tokenizer = make_tokenizer(chat_template=OPENS, eos_token="<|im_end|>")
    data = rows(3, chat=True)[2:] * 20
    data = [{**row, "id": str(number)} for number, row in enumerate(data)]
    data[0] = {**data[0], "chosen": [{"role": "assistant", "content": "a <|eot|> b"}]}
    data[-1] = {**data[-1], "chosen": [{"role": "assistant", "content": "it ends"}]}
    how = Tokenizing(tokenizer, True, None, "drop", Writing())
    shards = list(tokenized_shards(load_preferences(data), how, rows=5))
    assert shards[0].observed.ends != shards[-1].observed.ends
    assert tokenize_preferences(load_preferences(data), tokenizer).report.goes_on == 1


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """First rows of the shards that are made; a number put into it first is where making fails."""
    starts: list[int] = []
    shard = Tokenizing.shard

    def counted(self: Tokenizing, job: Job) -> Shard:
        if starts and starts[0] < 0 and job.start >= -starts[0]:
            raise KeyboardInterrupt
        starts.append(job.start)
        return shard(self, job)

    monkeypatch.setattr(Tokenizing, "shard", counted)
    return starts


@pytest.mark.parametrize("left", ["whole shards", "a torn shard", "a torn line"])
def test_a_stopped_preparation_goes_on_where_it_was(
    tmp_path: Path, small_shards: int, opening: Any, chats: Preferences, made: list[int], left: str
) -> None:
    expected = tokenize_preferences(chats, opening)
    made[:] = [-28]
    with pytest.raises(KeyboardInterrupt):
        tokenize_preferences(chats, opening, keep=tmp_path)
    (building,) = tmp_path.glob(".*.building")
    if left != "whole shards":
        with (building / "chosen").open("ab") as file:
            file.write(b"\1\2\3")
    if left == "a torn line":
        with (building / "observed.jsonl").open("ab") as file:
            file.write(b'{"rows": 7, "obs')
    made.clear()
    assert_equal(tokenize_preferences(chats, opening, keep=tmp_path), expected)
    assert made == [28, 35, 42, 49, 56]
    made.clear()
    assert_equal(tokenize_preferences(chats, opening, keep=tmp_path), expected)
    assert made == []
    assert not list(tmp_path.glob(".*.building"))


@pytest.mark.parametrize("name", ["prompt", "chosen", "rejected", "rows", "observed.jsonl", "popmargin_files.json"])
@pytest.mark.parametrize("damage", ["a bit", "cut", "gone"])
def test_damaged_tokens_are_made_again_and_said(
    tmp_path: Path, small_shards: int, opening: Any, chats: Preferences, caplog: pytest.LogCaptureFixture,
    name: str, damage: str,
) -> None:  # fmt: skip
    expected = tokenize_preferences(chats, opening)
    before = tokenize_preferences(chats, opening, keep=tmp_path)
    (folder,) = (file for file in tmp_path.iterdir() if file.is_dir())
    file = folder / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()  # not in place: `before` has mapped it
    if damage != "gone":
        file.write_bytes(content if damage == "a bit" else content[:-1])
    with caplog.at_level(logging.WARNING):
        assert_equal(tokenize_preferences(chats, opening, keep=tmp_path), expected)
    assert "damaged" in caplog.text
    assert "made again" in caplog.text
    assert_equal(before, expected)
    caplog.clear()
    assert_equal(tokenize_preferences(chats, opening, keep=tmp_path), expected)
    assert not caplog.text


def test_damage_in_what_a_stopped_preparation_left(
    tmp_path: Path, small_shards: int, opening: Any, chats: Preferences, made: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    expected = tokenize_preferences(chats, opening)
    made[:] = [-28]
    with pytest.raises(KeyboardInterrupt):
        tokenize_preferences(chats, opening, keep=tmp_path)
    (building,) = tmp_path.glob(".*.building")
    content = bytearray((building / "chosen").read_bytes())
    content[9] ^= 1
    (building / "chosen").write_bytes(content)
    made.clear()
    with caplog.at_level(logging.WARNING):
        assert_equal(tokenize_preferences(chats, opening, keep=tmp_path), expected)
    assert "chosen is not what was written" in caplog.text
    assert made[0] == 0


def test_what_decides_the_tokens_is_the_key(
    tmp_path: Path, small_shards: int, opening: Any, make_tokenizer: Callable[..., Any], made: list[int]
) -> None:
    data = rows(20, chat=True)
    tokenize_preferences(load_preferences(data), opening, keep=tmp_path)

    def made_anew(rows: list[dict[str, Any]], tokenizer: Any = opening, **options: Any) -> bool:
        made.clear()
        found = tokenize_preferences(load_preferences(rows), tokenizer, keep=tmp_path, **options)
        assert_equal(found, tokenize_preferences(load_preferences(rows), tokenizer, **options))
        return len(made) > 3  # of the second call alone

    named = [
        {**row, "id": f"other {number}", "chosen_rating": 2.0, "rejected_rating": 1.0}
        for number, row in enumerate(data)
    ]
    assert not made_anew(named)
    assert made_anew([*data[:-1], {**data[-1], "chosen": [{"role": "assistant", "content": "else"}]}])
    assert made_anew(data[1:] + data[:1])
    assert made_anew(data, make_tokenizer(chat_template=OPENS + " ", eos_token="<|im_end|>"))
    assert made_anew(data, make_tokenizer(chat_template=OPENS, eos_token="</s>"))
    assert made_anew(data, max_length=250)
    assert made_anew(data, max_length=250, truncation="drop")
    assert made_anew(data, writing=Writing("sampling"))


def test_a_complete_cache_is_only_read(
    tmp_path: Path, small_shards: int, opening: Any, chats: Preferences, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokenize_preferences(chats, opening, keep=tmp_path / "tokens")
    before = sorted(tmp_path.rglob("*"))

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert_equal(tokenize_preferences(chats, opening, keep=tmp_path / "tokens"), expected)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(RunError, match=r"60 rows cannot be written to .*Permission denied.*data\.cache"):
        tokenize_preferences(chats, opening, keep=tmp_path / "other")


def test_small_data_is_not_kept(tmp_path: Path, opening: Any, chats: Preferences) -> None:
    tokenize_preferences(chats, opening, keep=tmp_path)
    assert not list(tmp_path.iterdir())


def test_workers_are_as_many_as_the_data_are_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    assert [worker_count(rows, None) for rows in (1, 99_999, 100_000, 10**6)] == [1, 1, 2, 4]
    assert worker_count(3, 2) == 2


def refusing(make_tokenizer: Callable[..., Any]) -> Any:
    return make_tokenizer(
        chat_template="{% if messages[0]['content'] == 'bad' %}{{ raise_exception('no') }}{% endif %}" + OPENS
    )


def with_bad(data: list[dict[str, Any]], *places: int) -> Preferences:
    turns = [{"role": "user", "content": "bad"}]
    return load_preferences([{**row, "prompt": turns if n in places else row["prompt"]} for n, row in enumerate(data)])


def test_a_bad_row_is_named_by_its_number_among_all(
    tmp_path: Path, small_shards: int, make_tokenizer: Callable[..., Any]
) -> None:
    for keep in (None, tmp_path):
        with pytest.raises(DataError, match=r"rejects the conversation of row 31 "):
            tokenize_preferences(with_bad(rows(40, chat=True), 31, 38), refusing(make_tokenizer), keep=keep)


def test_a_tokenizer_that_cannot_be_handed_over(
    opening: Any, chats: Preferences, caplog: pytest.LogCaptureFixture
) -> None:
    expected = tokenize_preferences(chats, opening)
    opening.own = lambda: None
    found = tokenize_preferences(chats, opening, workers=2)
    assert_equal(found, expected)
    assert "cannot be used in other processes" in caplog.text


@pytest.mark.slow
def test_workers_make_the_same(
    tmp_path: Path, small_shards: int, make_tokenizer: Callable[..., Any], opening: Any, chats: Preferences,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    expected = tokenize_preferences(chats, opening, max_length=200)
    assert_equal(tokenize_preferences(chats, opening, max_length=200, workers=2, keep=tmp_path), expected)
    with pytest.raises(DataError, match=r"rejects the conversation of row 31 "):
        tokenize_preferences(with_bad(rows(40, chat=True), 31, 38), refusing(make_tokenizer), workers=2)

    receive = token_workers._Worker.receive

    def killed(self: Any) -> Any:
        if self._process.args and getattr(self, "answered", False):
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self.answered = True
        return receive(self)

    monkeypatch.setattr(token_workers._Worker, "receive", killed)
    with pytest.raises(RunError, match=r"has ended \(exit code -9\).*fewer data\.workers"):
        tokenize_preferences(chats, opening, workers=2)


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import test_data_token_cache as own
from conftest import build_tokenizer
from popmargin.data import load_preferences, token_shards, tokenize, tokenize_preferences
token_shards.SHARD_ROWS, tokenize.KEPT_FROM = 7, 1
data = load_preferences(own.rows(700, chat=True))
tokenizer = build_tokenizer(chat_template=own.OPENS, eos_token="<|im_end|>")
print("ready", flush=True)
tokenize_preferences(data, tokenizer, keep=Path({keep!r}))
print("done", flush=True)
"""


@pytest.mark.slow
def test_processes_at_once_and_a_kill(tmp_path: Path, small_shards: int, opening: Any, made: list[int]) -> None:
    """Two processes ask for the same tokens; the one that makes them is killed, and the other goes on."""
    script = SCRIPT.format(path=[str(Path(__file__).parent), *sys.path], keep=str(tmp_path))
    words = [sys.executable, "-c", script]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(2)]
    for one in both:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    lines: list[Path] = []
    while not (lines and lines[0].stat().st_size):
        lines = list(tmp_path.glob(".*.building/observed.jsonl"))
    both[0].kill()
    both[0].wait()
    assert both[1].communicate()[0] == "done\n"
    assert both[1].wait() == 0
    both[0].stdout.close()  # pyright: ignore[reportOptionalMemberAccess]
    data = load_preferences(rows(700, chat=True))
    found = tokenize_preferences(data, opening, keep=tmp_path)
    assert made == []
    assert_equal(found, tokenize_preferences(data, opening))


# -- streams ----------------------------------------------------------------------------------------------------------


def drawn(count: int, log: str) -> Iterator[dict[str, Any]]:
    for number in range(count):
        with Path(log).open("a") as file:
            file.write(f"{number}\n")
        yield {"prompt": f"What is {number}?", "chosen": f" {number}.", "rejected": " I do not know."}


def stream(count: int, log: Path) -> datasets.IterableDataset:
    return datasets.IterableDataset.from_generator(drawn, gen_kwargs={"count": count, "log": str(log)})


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POPMARGIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_stream_is_read_once(tmp_path: Path, own_cache: Path) -> None:
    log = tmp_path / "log"
    first = load_preferences(stream(12, log))
    assert (len(first), first.report.rows_in, first.report.rows_kept) == (12, 12, 12)
    assert log.read_text().split() == [str(number) for number in range(12)]
    again = load_preferences(datasets.IterableDatasetDict({"train": stream(12, log)}))
    assert again.fingerprint() == first.fingerprint()
    assert len(log.read_text().split()) == 12
    assert len(load_preferences(stream(5, log))) == 5
    assert list((own_cache / "streams").iterdir())


def test_a_stream_that_fails_is_not_taken_for_its_beginning(tmp_path: Path, own_cache: Path) -> None:
    def ends() -> Iterator[dict[str, Any]]:
        yield {"prompt": "a", "chosen": "b", "rejected": "c"}
        raise OSError("the connection is lost")

    for _ in range(2):
        with pytest.raises(DataError, match="the connection is lost"):
            load_preferences(datasets.IterableDataset.from_generator(ends))
    shutil.rmtree(own_cache)
