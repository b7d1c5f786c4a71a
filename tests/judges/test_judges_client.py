"""The client of chat servers: a cache that processes share, waits, fields of a request, and what is no answer."""

import json
import os
import signal
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from popmargin.errors import ConfigError
from popmargin.generate.answer_cache import AnswerCache
from popmargin.generate.server import NoAnswerError, request_fields, retry_after
from popmargin.judges.client import answer_text

WRITER = """
import sys
from pathlib import Path
from popmargin.generate.answer_cache import AnswerCache
path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    # Opened anew, as by the many short runs of a study, while others write long lines.
    AnswerCache(path).add(f"{name}-{number}", {"text": name * 20000})
"""


HOLDER = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def start(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_share_a_cache_lose_nothing_and_break_no_line(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    writers = [start(path, name, 20) for name in "abcd"]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        _, _ = writer.communicate()
        assert writer.returncode == 0
    answers = AnswerCache(path).answers
    assert answers.keys() == {f"{name}-{number}" for name in "abcd" for number in range(20)}
    assert all(answer["text"] == key[0] * 20000 for key, answer in answers.items())


def test_what_a_killed_process_left_is_cut_off_by_the_next_answer(tmp_path: Path) -> None:
    """The one who writes next has opened the file before the kill."""
    path = tmp_path / "cache.jsonl"
    cache = AnswerCache(path)
    cache.add("k", 7)
    with path.open("ab") as file:
        file.write(b'{"key": "torn", "answer": {"te')
    cache.add("l", 8)
    assert AnswerCache(path).answers == {"k": 7, "l": 8}
    cache.add("k", 9)
    assert AnswerCache(path).answers == {"k": 9, "l": 8}  # the later answer counts


def test_a_lock_ends_with_the_process_that_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, f"{path}.lock"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    AnswerCache(path).add("k", 1)
    assert json.loads(path.read_text()) == {"key": "k", "answer": 1}


def test_how_long_a_server_asks_to_wait() -> None:
    assert retry_after({"retry-after": "3"}) == 3.0 and retry_after({}) == 0.0
    assert retry_after({"retry-after": "-3"}) == 0.0 and retry_after({"retry-after": "soon"}) == 0.0
    assert retry_after({"retry-after": "nan"}) == 0.0
    assert 90 < retry_after({"retry-after": formatdate(time.time() + 100, usegmt=True)}) <= 101
    assert retry_after({"retry-after": formatdate(time.time() - 100, usegmt=True)}) == 0.0


def test_fields_of_a_request() -> None:
    settings = {"temperature": 0, "max_tokens": 8}
    assert request_fields(settings, None) == settings
    assert request_fields(settings, {"max_completion_tokens": 9}) == {"temperature": 0, "max_completion_tokens": 9}
    assert request_fields(settings, {"temperature": None, "seed": 1}) == {"max_tokens": 8, "seed": 1}
    with pytest.raises(ConfigError, match="field 'stream' of a request cannot be set"):
        request_fields(settings, {"stream": True})


@pytest.mark.parametrize(
    ("choice", "message", "again"),
    [
        ({"message": {"content": None}}, "no text", True),
        ({"message": {"content": " \n"}, "finish_reason": "stop"}, "no text", True),
        ({"message": {"content": ""}, "finish_reason": "length"}, "the token limit was reached", False),
        ({"message": {"content": None}, "finish_reason": "content_filter"}, "finish_reason: content_filter", False),
        ({"message": {"content": None, "refusal": "I can't."}}, "the model refused: I can't.", False),
    ],
)
def test_completions_without_a_text(choice: dict[str, Any], message: str, again: bool) -> None:
    with pytest.raises(NoAnswerError, match=message) as info:
        answer_text({"choices": [choice]})
    assert info.value.again is again


def test_texts_of_several_parts() -> None:
    parts = [{"type": "text", "text": "The answer "}, {"type": "text", "text": "is A."}]
    assert answer_text({"choices": [{"message": {"content": parts}}]}) == "The answer is A."
