"""PoP edges from text files: the same as from Parquet, or a sentence that names the row."""

import json
from pathlib import Path

import pytest

from popmargin.errors import DataError
from popmargin.pop.edges import PopEdges

ROWS = [
    {
        "stronger": "007",
        "weaker": "b",
        "source": "judge",
        "annotator": "ann",
        "tie": False,
        "confidence": 0.75,
        "ranking": "r",
    },
    {
        "stronger": "b",
        "weaker": None,
        "source": "judge",
        "annotator": None,
        "tie": False,
        "confidence": None,
        "ranking": None,
    },
    {
        "stronger": "b",
        "weaker": "c",
        "source": "judge",
        "annotator": None,
        "tie": True,
        "confidence": 1.0,
        "ranking": None,
    },
]


def written(path: Path) -> Path:
    """The rows as the file's suffix says."""
    if path.suffix in (".csv", ".tsv"):
        mark = "," if path.suffix == ".csv" else "\t"
        cells = [["" if value is None else str(value) for value in row.values()] for row in ROWS]
        path.write_text("\n".join(mark.join(line) for line in [list(ROWS[0]), *cells]) + "\n", encoding="utf-8")
    else:
        lines = [json.dumps(row) for row in ROWS]
        path.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{','.join(lines)}]", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["edges.jsonl", "edges.json", "edges.csv", "edges.tsv"])
def test_text_files_hold_the_same_edges_as_parquet(tmp_path: Path, name: str) -> None:
    edges = PopEdges.load(written(tmp_path / name))
    assert edges.table.to_pylist() == ROWS
    edges.save(tmp_path / "edges.parquet")
    assert PopEdges.load(tmp_path / "edges.parquet").fingerprint() == edges.fingerprint()


def test_ids_stay_texts_and_other_columns_have_their_defaults(tmp_path: Path) -> None:
    file = tmp_path / "edges.csv"
    file.write_text("Stronger;Weaker\n007;08\n1e3;\n")
    rows = PopEdges.load(file).table.to_pylist()
    assert [(row["stronger"], row["weaker"]) for row in rows] == [("007", "08"), ("1e3", None)]
    assert {(row["source"], row["tie"], row["confidence"]) for row in rows} == {("file", False, None)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stronger,weaker\n", "there are no edges"),
        ("stronger\na\n", "no column 'weaker'"),
        ("stronger,weaker,tie\na,b,maybe\n", "row 0: 'tie' is 'maybe'"),
        ("stronger,weaker,confidence\na,b,high\n", "row 0: 'confidence' is 'high'"),
        ("stronger,weaker,confidence\na,b,2\n", r"outside \[0, 1\]"),
        ("stronger,weaker\na,b,c\n", "3 cells"),
        ("stronger,weaker,sauce\na,b,c\n", "Did you mean 'source'"),
        ("stronger,weaker\na,a\n", "the same preference"),
    ],
)
def test_what_is_no_edge_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "edges.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=words):
        PopEdges.load(file)
