"""The edge table: what it accepts, its file, its swap, its link to the data."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from popmargin.errors import DataError
from popmargin.pop.edges import SCHEMA, PopEdges


def edges() -> PopEdges:
    return PopEdges.from_columns(
        ["a", "c", "b"], ["b", "a", "c"], tie=[False, False, True], parameters={"k": 1, "flip": 0.1}
    )


def test_a_saved_table_comes_back_with_its_parameters(tmp_path: Path) -> None:
    edges().save(tmp_path / "deep" / "edges.parquet")
    loaded = PopEdges.load(tmp_path / "deep" / "edges.parquet")
    assert loaded == edges()
    assert loaded.parameters == {"k": 1, "flip": 0.1}
    assert loaded.table.schema.equals(SCHEMA)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["edges.parquet"]


def test_any_parquet_with_the_two_columns_is_a_set_of_edges(tmp_path: Path) -> None:
    pq.write_table(pa.table({"weaker": ["b", None], "stronger": ["a", "a"]}), tmp_path / "own.parquet")
    loaded = PopEdges.load(tmp_path / "own.parquet")
    assert loaded.table.to_pylist()[1] == {
        "stronger": "a",
        "weaker": None,
        "source": "file",
        "annotator": None,
        "tie": False,
        "confidence": None,
        "ranking": None,
    }
    assert loaded.parameters == {}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"stronger": ["a"]}, "no column 'weaker'"),
        ({"stronger": ["a"], "weaker": ["b"], "confidense": [0.5]}, "Did you mean 'confidence'"),
        ({"stronger": ["a", "b"], "weaker": ["b", "b"]}, "row 1: stronger and weaker are the same"),
        ({"stronger": ["a", None], "weaker": ["b", "b"]}, "row 1: 'stronger' is empty"),
        ({"stronger": ["a"], "weaker": [None], "tie": [True]}, "row 0: a tie needs both"),
        ({"stronger": ["a"], "weaker": ["b"], "confidence": [1.5]}, "outside \\[0, 1\\]"),
        ({"stronger": ["a"], "weaker": ["b"], "tie": ["perhaps"]}, "column 'tie'"),
    ],
)
def test_a_wrong_table_is_refused_with_file_and_row(
    tmp_path: Path, columns: dict[str, list[object]], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "wrong.parquet")
    with pytest.raises(DataError, match=message) as caught:
        PopEdges.load(tmp_path / "wrong.parquet")
    assert "wrong.parquet" in str(caught.value)


def test_a_file_that_is_missing_or_not_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        PopEdges.load(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("stronger,weaker")
    with pytest.raises(DataError, match="not a readable Parquet"):
        PopEdges.load(tmp_path / "text.parquet")


def test_swap_exchanges_the_sides_and_is_its_own_inverse() -> None:
    swapped = edges().swap()
    assert swapped.table["stronger"].to_pylist() == edges().table["weaker"].to_pylist()
    assert swapped.swap() == edges()


def test_an_edge_without_a_weaker_side_has_no_opposite() -> None:
    with pytest.raises(DataError, match="unmatched='drop'"):
        PopEdges.from_columns(["a"], [None]).swap()


def test_resolve_leaves_ties_out_and_marks_missing_weaker_sides() -> None:
    table = PopEdges.from_columns(["c", "a", "b"], ["a", None, "c"], tie=[False, False, True])
    stronger, weaker = table.resolve(["a", "b", "c"])
    assert (stronger.tolist(), weaker.tolist()) == ([2, 0], [0, -1])


def test_resolve_names_unknown_and_repeated_ids() -> None:
    with pytest.raises(DataError, match="'c'"):
        edges().resolve(["a", "b"])
    with pytest.raises(DataError, match="more than once, such as 'a'"):
        edges().resolve(["a", "b", "c", "a"])


def test_the_fingerprint_is_of_the_content_alone() -> None:
    chunked = pa.concat_tables([edges().table.slice(0, 1), edges().table.slice(1)])
    assert PopEdges(chunked, {"other": 1}).fingerprint() == edges().fingerprint()
    assert edges().swap().fingerprint() != edges().fingerprint()
