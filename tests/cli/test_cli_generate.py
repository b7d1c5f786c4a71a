"""From prompts to preferences on the command line: generate, rate, pair; and what a typo is answered."""

import json
from pathlib import Path

import pytest

from popmargin.cli.main import main
from popmargin.data.load import load_preferences
from popmargin.data.responses import Responses

REWARD = "def length(prompts, completions):\n    return [len(text) if text.strip() else None for text in completions]\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with prompts, two of them the same, and a reward."""
    rows = [{"prompt": text, "topic": text[:3]} for text in ("the sky is", "old birds", "the sky is")]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "my_rewards.py").write_text(REWARD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generate(model: str, *words: str) -> list[str]:
    return ["generate", "prompts.jsonl", "--model", model, "--n", "3", "--max-new-tokens", "8", *words]


def test_from_prompts_to_preferences(here: Path, model_path: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = generate(model_path, "--temperature", "0.9", "--round", "1", "--source", "me", "--out", "r.parquet")
    assert main(words) == 0
    said = capsys.readouterr()
    assert (
        "3 in = 2 prompts + 1 left out" in said.err
        and f"sampling from {model_path} at temperature 0.9 from all tokens" in said.err
    )
    assert "6 responses made, " in said.out and "tokens/s" in said.out
    assert "wrote 6 responses to 2 prompts to r.parquet" in said.out
    made = Responses.load("r.parquet")
    assert made.prompts == ["the sky is", "old birds"] and made.column("topic") == ["the", "old"]
    assert made.field("source") == ["me"] * 6 and made.field("round") == [1] * 6
    assert sorted(path.name for path in here.iterdir()) == ["my_rewards.py", "prompts.jsonl", "r.parquet"]

    assert main(["data", "rate", "r.parquet", "--reward", "my_rewards.py:length", "--out", "s.parquet"]) == 0
    spec = f"implicit:{model_path}@none"
    assert main(["data", "rate", "s.parquet", "--reward", spec, "--name", "logp", "--out", "t.parquet"]) == 0
    assert "6 responses in = 6 scored + 0 without a score" in capsys.readouterr().out
    assert Responses.load("t.parquet").score_names == ("length", "logp")

    assert main(["data", "pairs", "t.parquet", "--by", "logp", "--how", "all", "--out", "p.parquet"]) == 0
    said = capsys.readouterr()
    data, expected = load_preferences("p.parquet"), Responses.load("t.parquet").pairs("all", by="logp")
    assert data.fingerprint() == expected.fingerprint() and (data.rating_gap > 0).all()
    assert f"wrote {len(data)} preferences, by logp, to p.parquet" in said.out
    assert "mean length: chosen " in said.out and " tokens; the chosen response is longer in " in said.out


def test_an_interrupted_command_goes_on(
    here: Path, model_path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C says what is kept; the same command gives the same file."""
    from popmargin.generate import from_policy

    assert main(generate(model_path, "--out", "whole.parquet")) == 0
    draw, calls = from_policy.Sampler.draw, list[int]()

    def once(self: from_policy.Sampler, places: list[int]) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return draw(self, places)

    monkeypatch.setattr(from_policy.Sampler, "draw", once)
    words = generate(model_path, "--batch-size", "2", "--out", "r.parquet")
    assert main(words) == 130
    assert "interrupted: 2 responses are kept in r.parquet.part" in capsys.readouterr().err
    assert not Path("r.parquet").exists()
    assert main(generate(model_path, "--out", "r.parquet", "--seed", "1")) == 2
    assert "r.parquet.part was begun with seed 0 (now 1)" in capsys.readouterr().err
    assert main(words) == 0
    assert "4 responses made" in capsys.readouterr().out
    assert Path("r.parquet").read_bytes() == Path("whole.parquet").read_bytes()
    assert not list(here.glob("*.part*"))


def test_two_processes_do_not_write_one_file(here: Path, model_path: str, capsys: pytest.CaptureFixture[str]) -> None:
    from popmargin.generate.part_file import part_beside

    with part_beside(here / "r.parquet"):
        assert main(generate(model_path, "--out", str(here / "r.parquet"))) == 2
    assert "is being made by another process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate", "prompt.jsonl", "--model", "demo", "--out", "r.parquet"], "prompt.jsonl: no such file"),
        (["generate", "prompts.jsonl", "--model", "./demo", "--out", "r.parquet"], "No such folder or model: ./demo"),
        (["generate", "prompts.jsonl", "--model", "demo", "--out", "r.csv"], "this is written as .parquet"),
        (["generate", "prompts.jsonl", "--model", "demo", "--out", "prompts.jsonl", "--overwrite"], "also the input"),
        (["generate", "prompts.jsonl", "--modle", "demo", "--out", "r.parquet"], "Did you mean '--model'"),
        (["generate", "prompts.jsonl", "--model", "demo", "--out", "r.parquet", "--top-p", "0"], "must be above 0"),
        (["generate", "prompts.jsonl", "--model", "demo", "--out", "r.jsonl", "--column", "prompt=q"], "no column 'q'"),
        (["generate", "my_rewards.py", "--model", "demo", "--out", "r.parquet"], "unknown file type"),
        (["data", "pairs", "none.parquet", "--out", "p.parquet"], "none.parquet: no such file"),
        (["data", "rate", "flat.jsonl", "--reward", "my_rewards.py:length", "--out", "s.jsonl", "--disagree", "drop"],
         "--disagree, --pairs, --min-gap and --seed are for preferences"),
        (["data", "rate", "pairs.jsonl", "--reward", "my_rewards.py:length", "--out", "s.jsonl", "--name", "x"],
         "Remove --name"),
        (["data", "pairs", "flat.jsonl", "--out", "p.parquet"], "Give --by NAME. Scores: none: rate them"),
        (["data", "pairs", "flat.jsonl", "--by", "s", "--out", "p.parquet"], "no score 's'"),
        (["data", "pairs", "flat.jsonl", "--how", "best_vs_wrst", "--out", "p.parquet"], "mean 'best_vs_worst'?"),
    ],
)  # fmt: skip
def test_mistakes_are_answered_in_words(
    here: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("flat.jsonl").write_text('{"prompt": "p", "response": "a"}\n{"prompt": "p", "response": "b"}\n')
    Path("pairs.jsonl").write_text('{"prompt": "p", "chosen": "aa", "rejected": "b"}\n')
    before = {path.name for path in here.iterdir()}
    try:
        code = main(words)
    except SystemExit as error:  # argparse's own
        code = error.code
    assert code == 2 and said in capsys.readouterr().err
    assert {path.name for path in here.iterdir()} == before


def test_rated_responses_may_still_be_read_as_preferences(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"prompt": "p", "responses": [{"text": "long one", "rating": 2}, {"text": "short", "rating": 1}]}
    Path("rated.jsonl").write_text(json.dumps(rows) + "\n")
    words = ["data", "rate", "rated.jsonl", "--reward", "my_rewards.py:length", "--format", "responses"]
    assert main([*words, "--out", "p.jsonl"]) == 0
    assert "the reward agrees with 1 of 1 label;" in capsys.readouterr().out
    assert load_preferences("p.jsonl").rating_gap.tolist() == [3.0]
