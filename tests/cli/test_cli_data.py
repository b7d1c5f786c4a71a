"""`popmargin data` as a user runs it."""

import contextlib
import gzip
import io
import json
import subprocess
import sys

import pytest

from popmargin.cli.main import main
from popmargin.config import RunConfig, apply_overrides, from_dict
from popmargin.data import check_leak, load_preferences
from template_kinds import build

GOOD = [
    {
        "prompt": f"Question {i // 2}?",
        "chosen": f"Yes, {i}.",
        "rejected": f"No {i}.",
        "chosen_rating": 4,
        "rejected_rating": i % 4,
    }
    for i in range(20)
]
RATED = [
    {
        "question": f"q{i}",
        "responses": [{"text": "a", "score": 1}, {"text": "b", "score": 3}, {"text": "c", "score": 3}],
    }
    for i in range(3)
]


def run(*arguments):
    """In this process, which is quicker; one of its own is in `test_a_process_of_its_own`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(["data", *map(str, arguments)])
        except SystemExit as stopped:
            code = stopped.code
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "good.jsonl", GOOD)


@pytest.fixture
def bad(tmp_path):
    broken = [{"prompt": "p", "chosen": "x", "rejected": "x"}, {"prompt": "", "chosen": "x", "rejected": "y"}]
    path = write(tmp_path / "bad.jsonl", [GOOD[0], *broken])
    path.write_bytes(path.read_bytes() + b"{oops\n")
    return path


def test_check_says_what_a_models_chat_template_does(tmp_path):
    build("strip").save_pretrained(tmp_path / "model")
    answers = {"chosen": "<think>\nHm.\n</think>\nYes.", "rejected": "No."}
    chat = {side: [{"role": "assistant", "content": text}] for side, text in answers.items()}
    path = write(tmp_path / "chat.jsonl", [{"id": "a", "prompt": [{"role": "user", "content": "Is it?"}], **chat}])
    out = run("check", path, "--model", tmp_path / "model", "--json")
    assert out.returncode == 0, out.stderr
    prompt, reasoning = json.loads(out.stdout)["template"]
    assert prompt.startswith("1 row of 1 (a): the training prompt differs from the one sampling starts from")
    assert reasoning.startswith("1 of 2 completions (in a): the chat template drops part of the text")


def test_inspect_shows_format_counts_lengths_and_examples(good):
    out = run("inspect", good, "--examples", 2)
    assert out.returncode == 0, out.stderr
    for words in (
        "format 'preference'",
        "20 in = 20 kept + 0 left out",
        "20 preferences on 10 prompts",
        "strong",
        "characters",
    ):
        assert words in out.stdout
    assert out.stdout.count("  example p-") == 2
    assert "rejected_rating: 0: 5, 1: 5, 2: 5, 3: 5" in out.stdout


def test_inspect_json(good):
    content = json.loads(run("inspect", good, "--json").stdout)
    assert content["load"]["rows_kept"] == content["data"]["rows"] == 20
    assert content["data"]["strength"]["thirds"][0]["name"] == "weak"
    assert content["data"]["fingerprint"] == load_preferences(good).fingerprint()


def test_check_is_silent_about_nothing_and_exits_1(good, bad):
    assert run("check", good).returncode == 0
    out = run("check", bad)
    assert out.returncode == 1
    for words in (
        "bad.jsonl:2, column 'rejected'",
        "bad.jsonl:3, column 'prompt'",
        "bad.jsonl:4: not valid JSON",
        "3 problems",
    ):
        assert words in out.stdout
    limited = run("check", bad, "--limit", 1)
    assert "… and 2 more" in limited.stdout
    content = json.loads(run("check", bad, "--json").stdout)
    assert (content["ok"], content["rows_in"], content["rows_kept"], content["rows_reported"]) == (False, 4, 1, 3)


def test_check_against_finds_a_leak(tmp_path, good):
    test = write(tmp_path / "test.jsonl", [{"prompt": "question  3?", "chosen": "a", "rejected": "b"}])
    out = run("check", test, "--against", good)
    assert out.returncode == 1
    assert "In 1 of 1 test row, the prompt is also in the training data" in out.stdout
    assert (
        run("check", write(tmp_path / "other.jsonl", [{**GOOD[0], "prompt": "new"}]), "--against", good).returncode == 0
    )


def test_convert_makes_pairs(tmp_path):
    source = write(tmp_path / "rated.jsonl", RATED)
    target = tmp_path / "pairs.parquet"
    out = run("convert", source, target, "--pairs", "all", "--column", "prompt=question")
    assert out.returncode == 0, out.stderr
    assert "wrote 6 preferences" in out.stdout
    assert "left out, tie: 3" in out.stdout
    assert load_preferences(target).strength.tolist() == [2.0] * 6
    none = run("convert", source, tmp_path / "none.jsonl", "--min-gap", 3)
    assert (none.returncode, (tmp_path / "none.jsonl").exists()) == (2, False)
    assert "no usable rows among 3" in none.stderr


def test_convert_stops_at_bad_rows_unless_told_to_drop_them(tmp_path, bad):
    target = tmp_path / "out.jsonl.gz"
    out = run("convert", bad, target)
    assert out.returncode == 2
    assert out.stderr.startswith("error: bad.jsonl: 3 of 4 rows cannot be used.")
    assert "--bad-rows drop" in out.stderr and "--data.bad_rows drop" in out.stderr
    assert from_dict(RunConfig, apply_overrides({}, ["--data.bad_rows", "drop"])).data.bad_rows == "drop"
    assert not target.exists()
    assert run("convert", bad, target, "--bad-rows", "drop").returncode == 0
    assert len(gzip.decompress(target.read_bytes()).splitlines()) == 1


def test_split_writes_two_files_without_a_common_prompt(tmp_path, good):
    train, test = tmp_path / "train.parquet", tmp_path / "test.jsonl"
    out = run("split", good, "--train", train, "--test", test, "--test-size", 3, "--seed", 1)
    assert out.returncode == 0, out.stderr
    parts = load_preferences(train), load_preferences(test)
    assert [len(part) for part in parts] == [14, 6]
    check_leak(*parts)
    assert sorted(parts[0].ids + parts[1].ids) == sorted(load_preferences(good).ids)
    same = run("split", good, "--train", tmp_path / "one.parquet", "--test", tmp_path / "one.parquet")
    assert (same.returncode, "Name two files" in same.stderr) == (2, True)


def test_rate_writes_the_rewards_and_counts_what_it_disagrees_with(tmp_path, good):
    rewards = tmp_path / "rewards.py"
    rewards.write_text("def score(prompts, completions):\n    return [float(text[-2]) for text in completions]\n")
    target, spec = tmp_path / "rated.parquet", f"{rewards}:score"
    out = run("rate", good, "--reward", spec, "--out", target)
    assert out.returncode == 0, out.stderr
    assert "the reward agrees with 20 of 20 labels" in out.stdout
    assert load_preferences(target).rating_gap.tolist() == [0.0] * 20
    rewards.write_text("def score(prompts, completions):\n    return [-len(text) for text in completions]\n")
    stopped = run("rate", good, "--reward", spec, "--out", tmp_path / "none.parquet")
    assert (stopped.returncode, (tmp_path / "none.parquet").exists()) == (2, False)
    assert "prefers the rejected response in 20 of 20 preferences" in stopped.stderr
    assert run("rate", good, "--reward", spec, "--out", target, "--disagree", "swap", "--overwrite").returncode == 0
    assert load_preferences(target).rating_gap.tolist() == [2.0] * 20
    for words, message in ((["model:nowhere"], "does not load"), ([spec, "--reward-options", "{a: 1}"], "no options")):
        bad = run("rate", good, "--out", tmp_path / "none.parquet", "--reward", *words)
        assert bad.returncode == 2 and message in bad.stderr and "Traceback" not in bad.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("inspect", "missing.jsonl"), "missing.jsonl: no such file"),
        (("inspect", "GOOD", "--format", "respones"), "Did you mean 'responses'"),
        (("inspect", "GOOD", "--column", "prompt"), "'prompt' is not FIELD=COLUMN"),
        (("inspect", "GOOD", "--column", "prompt=promt"), "Did you mean 'prompt'"),
        (("check", "GOOD", "--limit", "-1"), "argument --limit: must be at least 0, not -1."),
        (("convert", "GOOD", "out.xlsx"), "out.xlsx: this is written as .parquet"),
        (("split", "GOOD", "--train", "a.jsonl", "--test", "b.jsonl", "--test-size", "2.5"), "test_size=2.5"),
        (("split", "GOOD", "--train", "a.jsonl", "--test", "b.jsonl", "--test-size", "x"), "neither a share"),
    ],
)
def test_mistakes_exit_2_with_a_message_and_no_traceback(tmp_path, good, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    out = run(*(good if word == "GOOD" else word for word in arguments))
    assert out.returncode == 2
    assert words in out.stderr
    assert "Traceback" not in out.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["good.jsonl"]


def test_a_process_of_its_own(bad):
    command = [sys.executable, "-m", "popmargin", "data", "check", str(bad)]
    out = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)
    assert (out.returncode, out.stdout, out.stderr) == (
        1,
        *(getattr(run("check", bad), name) for name in ("stdout", "stderr")),
    )


def test_the_embedded_preferences_are_read_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "demo", "--pairs", "best_vs_random"]) == 0
    assert "sentiment.parquet" in capsys.readouterr().out
