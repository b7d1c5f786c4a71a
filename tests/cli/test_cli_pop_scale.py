"""popmargin pop scale and pop ask, from files to files."""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from popmargin.cli.pop import add_parser
from popmargin.data.load import load_preferences
from popmargin.errors import ConfigError, DataError
from popmargin.pop.edges import PopEdges
from popmargin.pop.scale import StrengthScale
from popmargin.pop.strengths import soft_labels


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows = [
        {"id": f"q{i}", "prompt": f"Question {i}?", "chosen": f"good {i}", "rejected": f"bad {i}", "strength": i + 1.0}
        for i in range(20)
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def edges(data: str, tmp_path: Path) -> str:
    out = str(tmp_path / "edges.parquet")
    popmargin("pop", "sample", data, "--out", out, "--sampling", "random", "--k", "4")
    return out


def popmargin(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="popmargin")
    add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(words)
    return args.func(args)


def test_a_scale_is_written_and_told(data: str, edges: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    out = tmp_path / "scale.parquet"
    assert popmargin("pop", "scale", edges, "--data", data, "--out", str(out)) == 0
    printed = capsys.readouterr().out
    assert "wrote the strengths of 20 preferences" in printed and "80 of 80 edges" in printed
    scale = StrengthScale.load(out)
    assert scale.ids == [f"q{i}" for i in range(20)]
    assert np.corrcoef(scale.strength, np.arange(20))[0, 1] > 0.9


@pytest.mark.parametrize("use", ["soft_label", "margin", "strength"])
def test_preferences_carry_the_scale(data: str, edges: str, tmp_path: Path, use: str) -> None:
    out, prefs = str(tmp_path / "scale.parquet"), str(tmp_path / "prefs.parquet")
    popmargin("pop", "scale", edges, "--data", data, "--out", out, "--preferences-out", prefs, "--as", use)
    written, scale = load_preferences(prefs), StrengthScale.load(out)
    order = np.argsort(scale.strength)
    values = {"soft_label": written.soft_label, "margin": written.rating_gap, "strength": written.strength}[use]
    assert (np.diff(values[order]) >= 0).all() and np.isfinite(values).all()
    if use == "soft_label":
        np.testing.assert_allclose(values, soft_labels(scale.strength))


@pytest.mark.parametrize(
    ("zero", "wrong"), [(["--right", "0.75"], 5), (["--agreement", "0.625"], 5), (["--wrong", "doubt"], None)]
)
def test_a_zero_turns_the_weakest_round(
    data: str, edges: str, tmp_path: Path, zero: list[str], wrong: int | None
) -> None:
    """In the written preferences; the scale itself has none, so without them it is refused."""
    rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
    doubted = [row | {"doubt": float(number < 6)} for number, row in enumerate(rows)]
    Path(data).write_text("".join(json.dumps(row) + "\n" for row in doubted))
    words = ("pop", "scale", edges, "--data", data, "--out", str(tmp_path / "scale.parquet"), *zero)
    with pytest.raises(ConfigError, match=f"{zero[0]} has no effect without --preferences-out"):
        popmargin(*words)
    prefs = str(tmp_path / "prefs.parquet")
    popmargin(*words, "--preferences-out", prefs)
    soft = load_preferences(prefs, contradictions="keep").soft_label
    assert (soft < 0.5).sum() == wrong if wrong is not None else 3 <= (soft < 0.5).sum() <= 8
    turned = load_preferences(prefs)  # read as usual, a soft label below one half swaps the responses
    assert (turned.soft_label >= 0.5).all() and (turned.dataset["chosen"][0] == "bad 0") == (soft[0] < 0.5)
    popmargin(*words, "--preferences-out", prefs, "--as", "margin", "--overwrite")
    with pytest.raises(DataError, match="contradictions='keep'"):
        load_preferences(prefs)
    assert (load_preferences(prefs, contradictions="keep").rating_gap < 0).sum() == (soft < 0.5).sum()


def test_chains_and_unsigned_strengths_from_the_command_line(tmp_path: Path) -> None:
    """`--contradictions keep` reads a negative strength; `--strength unsigned` compares its absolute value."""
    data, found = tmp_path / "signed.jsonl", dict[str, PopEdges]()
    rows = [{"id": f"q{n}", "prompt": f"{n}?", "chosen": "a", "rejected": "b", "strength": n - 6.5} for n in range(10)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="contradictions='keep'"):
        popmargin("pop", "sample", str(data), "--out", str(tmp_path / "none.parquet"))
    for strength in ("signed", "unsigned"):
        out = str(tmp_path / f"{strength}.parquet")
        flags = ["--contradictions", "keep", "--sampling", "chain", "--k", "2", "--strength", strength]
        assert popmargin("pop", "sample", str(data), "--out", out, *flags) == 0
        found[strength] = PopEdges.load(out)
        value = np.arange(10) - 6.5 if strength == "signed" else np.abs(np.arange(10) - 6.5)
        stronger, weaker = found[strength].resolve([f"q{n}" for n in range(10)])
        assert len(found[strength]) == 20 and (value[stronger] >= value[weaker]).all()
    assert found["signed"].fingerprint() != found["unsigned"].fingerprint()


def test_every_setting_reaches_the_fit(
    data: str, edges: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = PopEdges.load(edges).table
    who = pa.array([f"a{i % 2}" for i in range(len(table))])
    tie = pa.array([i % 8 == 0 for i in range(len(table))])
    named = {name: table[name] for name in table.column_names} | {"annotator": who, "tie": tie}
    PopEdges(pa.table(named)).save(edges)
    capsys.readouterr()
    out = str(tmp_path / "scale.parquet")
    settings = ("--model", "thurstone", "--ridge", "0.5", "--ties", "half", "--estimate", "mode", "--reliability")
    popmargin("pop", "scale", edges, "--data", data, "--out", out, *settings, "--confidence", "ignore", "--json")
    facts = json.loads(capsys.readouterr().out)
    wanted = {"model": "thurstone", "ridge": 0.5, "ties": "half", "estimate": "mode", "confidence": "ignore"}
    assert {name: facts[name] for name in wanted} == wanted and set(facts["reliability"]) == {"a0", "a1"}
    popmargin("pop", "scale", edges, "--data", data, "--out", out, "--reliability", "--overwrite")
    printed = capsys.readouterr().out
    assert "a0 " in printed and "reports correctly" in printed and "ν = " in printed


def test_ask_goes_on_where_the_answers_end(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, answers = (str(tmp_path / f"{name}.parquet") for name in ("first", "second", "answers"))
    assert popmargin("pop", "ask", "--data", data, "--n", "10", "--out", first) == 0
    asked = pq.read_table(first)
    assert asked.column_names == ["first", "second"] and len(asked) == 10
    PopEdges.from_columns(asked["first"].to_pylist(), asked["second"].to_pylist()).save(answers)
    popmargin("pop", "ask", answers, "--data", data, "--n", "185", "--out", second)
    both = pa.concat_tables([asked, pq.read_table(second)]).to_pylist()
    assert len({frozenset(row.values()) for row in both}) == 190 == len(both)  # all pairs of 20, each once
    assert "wrote 180 comparisons" in (printed := capsys.readouterr().out)
    assert "every other pair has already been compared" in printed


def test_edges_of_other_data_are_refused(data: str, edges: str, tmp_path: Path) -> None:
    PopEdges.from_columns(["x"], ["y"]).save(edges)
    for words in (("scale", edges), ("ask", edges)):
        with pytest.raises(DataError, match="such as 'x'"):
            popmargin("pop", *words, "--data", data, "--out", str(tmp_path / "out.parquet"))
