"""popmargin pop, from a file of preferences to edges and their statistics."""

import argparse
import json
from pathlib import Path

import pytest

from popmargin.cli.pop import add_parser
from popmargin.errors import ConfigError, DataError
from popmargin.pop.edges import PopEdges


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows = [
        {
            "prompt": f"Question {i}?",
            "chosen": f"good {i}",
            "rejected": f"bad {i}",
            "strength": i % 7 + 1,
            "id": f"q{i}",
        }
        for i in range(30)
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def popmargin(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="popmargin")
    add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(words)
    return args.func(args)


def test_sample_writes_edges_and_says_what_they_train_on(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "edges.parquet"
    assert popmargin("pop", "sample", data, "--out", str(out), "--k", "2", "--seed", "3") == 0
    printed = capsys.readouterr().out
    edges = PopEdges.load(out)
    assert f"wrote {len(edges)} edges" in printed
    assert "100.0% agree with the strengths" in printed
    assert (edges.parameters["k"], edges.parameters["seed"]) == (2, 3)
    asked = {*edges.table["stronger"].to_pylist(), *edges.table["weaker"].to_pylist()}
    assert asked == {f"q{i}" for i in range(30)}  # a chain asks about every preference


def test_a_reward_labels_and_is_the_source(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reward that contradicts nearly every label: gaps of 0, −1, −2 … are strengths as good as any."""
    rewards = tmp_path / "contrary.py"
    rewards.write_text(
        "def score(prompts, completions):\n    return [-float(c[5:]) if c[0] == 'g' else 0.0 for c in completions]\n"
    )
    out, spec = tmp_path / "edges.parquet", f"{rewards}:score"
    assert popmargin("pop", "sample", data, "--out", str(out), "--reward", spec, "--sampling", "random") == 0
    assert "100.0% agree with the strengths" in capsys.readouterr().out
    assert set(PopEdges.load(out).table["source"].to_pylist()) == {spec}
    popmargin("pop", "sample", data, "--out", str(out), "--source", "model of mine", "--overwrite")
    assert set(PopEdges.load(out).table["source"].to_pylist()) == {"model of mine"}
    with pytest.raises(ConfigError, match="must be a mapping"):
        popmargin("pop", "sample", data, "--out", f"{out}.parquet", "--reward", spec, "--reward-options", "[1]")


def test_every_setting_reaches_the_edges(data: str, tmp_path: Path) -> None:
    out = tmp_path / "edges.parquet"
    noise = ("--flip", "0.1", "--temperature", "0.5")
    popmargin(
        "pop",
        "sample",
        data,
        "--out",
        str(out),
        "--sampling",
        "iterative",
        "--budget",
        "4",
        "--unmatched",
        "drop",
        *noise,
    )
    parameters = PopEdges.load(out).parameters
    wanted = {"sampling": "iterative", "budget": 4, "unmatched": "drop", "flip": 0.1, "temperature": 0.5}
    assert {name: parameters[name] for name in wanted} == wanted
    popmargin("pop", "sample", data, "--out", str(out), "--sampling", "random", "--k", "3", "--overwrite")
    assert PopEdges.load(out).parameters["comparisons"] == 90


def test_stats_prints_text_and_json(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "edges.parquet")
    popmargin("pop", "sample", data, "--out", out, "--sampling", "random")
    capsys.readouterr()
    assert popmargin("pop", "stats", out, "--data", data, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["edges"] == 30 == facts["training_rows"] + facts["ties"]
    assert facts["agreement"] == 1.0
    assert facts["parameters"]["sampling"] == "random"
    assert popmargin("pop", "stats", out, "--data", data) == 0
    text = capsys.readouterr().out
    assert "sampling=random" in text
    assert "weak" in text


def test_data_without_strengths_and_other_data_are_refused(data: str, tmp_path: Path) -> None:
    plain = tmp_path / "plain.jsonl"
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b", "id": f"x{i}"} for i in range(3)]
    plain.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = str(tmp_path / "edges.parquet")
    with pytest.raises(DataError, match="3 of 3 preferences have no finite strength"):
        popmargin("pop", "sample", str(plain), "--out", out)
    popmargin("pop", "sample", data, "--out", out)
    with pytest.raises(DataError, match="Sample the edges from the same data"):
        popmargin("pop", "stats", out, "--data", str(plain))
    with pytest.raises(ConfigError, match="Chains with k=99"):
        popmargin("pop", "sample", data, "--out", out, "--k", "99", "--overwrite")


def test_rows_left_out_are_reported(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path(data).read_text() + json.dumps(
        {"prompt": "same", "chosen": "a", "rejected": "a", "strength": 1, "id": "z"}
    )
    Path(data).write_text(text + "\n")
    assert popmargin("pop", "sample", data, "--out", str(tmp_path / "e.parquet"), "--bad-rows", "drop") == 0
    assert "31 in = 30 kept + 1 left out (chosen and rejected are the same: 1)" in capsys.readouterr().err


def test_an_unknown_choice_is_a_usage_error(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        popmargin("pop", "sample", data, "--out", "e.parquet", "--sampling", "itterative")
    assert stopped.value.code == 2
    assert "iterative" in capsys.readouterr().err


def test_active_sampling_keeps_to_its_budget(data: str, tmp_path: Path) -> None:
    out = tmp_path / "edges.parquet"
    assert popmargin("pop", "sample", data, "--out", str(out), "--sampling", "active", "--budget", "45") == 0
    assert PopEdges.load(out).parameters["comparisons"] == 45
