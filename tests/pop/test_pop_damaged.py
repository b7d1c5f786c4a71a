"""Edges and scales whose files are damaged are refused by name; never is something else read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from popmargin.errors import DataError
from popmargin.pop.edges import PopEdges
from popmargin.pop.fit import fit_strengths
from popmargin.pop.scale import StrengthScale

IDS = [f"p{number}" for number in range(12)]


def edges() -> PopEdges:
    random = np.random.default_rng(0)
    pairs = [random.choice(IDS, size=2, replace=False) for _ in range(40)]
    return PopEdges.from_columns(
        [str(one) for one, _ in pairs], [str(other) for _, other in pairs], parameters={"k": 4, "seed": 3}
    )


def content(read: Any) -> list[str]:
    if isinstance(read, PopEdges):
        return [read.fingerprint(), str(read.parameters)]
    facts = {name: np.asarray(value).tolist() for name, value in vars(read).items()}
    return [json.dumps(facts, sort_keys=True)]


@pytest.mark.parametrize("kind", [PopEdges, StrengthScale])
def test_no_bit_of_a_file_changes_what_is_read(tmp_path: Path, kind: type[Any]) -> None:
    file = tmp_path / "table.parquet"
    written = edges() if kind is PopEdges else fit_strengths(edges(), IDS)
    written.save(file)
    whole, before = file.read_bytes(), content(kind.load(file))
    assert before == content(written)
    refused = 0
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            assert content(kind.load(file)) == before, f"byte {place} of {len(whole)}"
        except DataError as error:
            refused += str(file) in str(error)
    assert refused > len(whole) // 20


@pytest.mark.parametrize("kind", [PopEdges, StrengthScale])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_what_is_cut_off_is_named(tmp_path: Path, kind: type[Any], share: float) -> None:
    file = tmp_path / "table.parquet"
    (edges() if kind is PopEdges else fit_strengths(edges(), IDS)).save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=rf"{file}.*[Ww]rite it again"):
        kind.load(file)
    file.unlink()
    with pytest.raises(DataError, match=rf"{file}: no such file"):
        kind.load(file)


@pytest.mark.parametrize("text", ["", '{"stronger": "p0", "weaker": "p1"}\n{"stronger": "p2", "wea'])
def test_edges_in_words_that_are_cut_off_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "edges.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"edges\.jsonl"):
        PopEdges.load(tmp_path / "edges.jsonl")
