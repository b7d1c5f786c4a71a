"""Columns that are no field of the schema are kept by loading, saving, splitting and converting, or a note says why."""

import base64
import csv
import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.cli.main import main
from popmargin.data import COLUMNS, Preferences, load_preferences, split_preferences
from popmargin.data.sources import RawBatch
from popmargin.errors import DataError

BASE = {"prompt": "p", "chosen": "a", "rejected": "b"}
EXTRA: dict[str, Any] = {
    "topic": "Straße",
    "level": 3,
    "share": 0.25,
    "good": True,
    "tags": ["x", "y"],
    "vector": [0.5, -1.0],
    "meta": {"source": "web", "page": {"number": 7, "names": ["n"]}},
    "chosen_model": "m1",
    "rejected_model": "m2",
    "nothing": None,
}


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{**BASE, "prompt": f"p{i}", **EXTRA, "level": i, **more} for i in range(count)]


def extras(prefs: Preferences) -> list[dict[str, Any]]:
    return [{name: row[name] for name in prefs.extra_columns} for row in prefs]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet", "folder", "memory", "dataset"])
def test_loading_keeps_them_from_every_container(tmp_path: Path, name: str) -> None:
    given_rows, path = rows(3), tmp_path / name
    source: Any = path
    if name.startswith("a.json"):
        lines = "".join(json.dumps(row) + "\n" for row in given_rows)
        data = (json.dumps(given_rows) if name == "a.json" else lines).encode()
        path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    elif name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(given_rows), path)
    elif name == "folder":
        datasets.Dataset.from_list(given_rows).save_to_disk(str(path))
    else:
        source = given_rows if name == "memory" else datasets.Dataset.from_list(given_rows)
    prefs = load_preferences(source)
    assert extras(prefs) == [{key: row[key] for key in EXTRA} for row in given_rows]
    assert prefs.report.columns_kept == tuple(EXTRA) and prefs.report.columns_unused == ()
    assert prefs.fingerprint() == load_preferences([{k: row[k] for k in BASE} for row in given_rows]).fingerprint()
    train, test = split_preferences(prefs, test_size=1, seed=0)
    assert sorted(row["level"] for part in (train, test) for row in part) == [0, 1, 2]
    assert train.columns == test.columns == prefs.columns == (*COLUMNS, *EXTRA)


VALUE = st.one_of(
    st.none(),
    st.fixed_dictionaries({"a": st.integers(-9, 9), "b": st.lists(st.text(max_size=3), max_size=2)}),
)
ROW = st.fixed_dictionaries(
    {
        "topic": st.none() | st.text("ab\n\"'ü, ", max_size=4),
        "level": st.none() | st.integers(-(2**40), 2**40),
        "vector": st.none() | st.lists(st.floats(-4, 4), max_size=3),
        "meta": VALUE,
        "weight": st.none() | st.floats(0, 4),
        "margin": st.none() | st.floats(-4, 4),
        "responses": st.none() | st.just(["a", "b"]),
        "chosen_score": st.none() | st.just(1.0),
        "context": st.just("c"),
    }
)


@given(st.lists(ROW, min_size=1, max_size=4), st.sampled_from([".parquet", ".jsonl", ".jsonl.gz"]), st.booleans())
@settings(max_examples=25, deadline=None)
def test_saving_and_loading_keeps_them(tmp_path_factory: Any, given_rows: Any, suffix: str, rated: bool) -> None:
    """Also those that have the name of a field of another layout, or an alias of one that is empty."""
    known = {"chosen_rating": 2.0, "rejected_rating": 1.0} if rated else {"strength": 1.0}
    names = None if rated else {"strength": "strength", "margin": "margin"}
    data = [{**BASE, "prompt": f"p{i}", **known, **row} for i, row in enumerate(given_rows)]
    prefs = load_preferences(data, format="preference", columns=names)
    path = tmp_path_factory.mktemp("saved") / f"data{suffix}"
    prefs.save(path)
    back = load_preferences(path)
    held = [name for name in prefs.columns if any(row[name] is not None for row in prefs)]
    assert [{name: row.get(name) for name in held} for row in back] == [{n: row[n] for n in held} for row in prefs]
    assert set(held) <= set(back.columns) and back.fingerprint() == prefs.fingerprint()
    first = path.read_bytes()
    prefs.save(path)
    assert path.read_bytes() == first


def test_csv_cells_stay_texts_and_count_as_numbers_when_they_are(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[*BASE, "level", "topic", "weight"], [*BASE.values(), "2.5", "x, y", "0.5"],
                                    ["q", "a", "b", "", "z", ""]])  # fmt: skip
    prefs = load_preferences(tmp_path / "a.csv")
    assert extras(prefs) == [{"level": "2.5", "topic": "x, y"}, {"level": None, "topic": "z"}]
    assert prefs.column("level")[0] == 2.5 and prefs.column("weight")[0] == 0.5


def test_types_and_features_of_tables_stay_and_bytes_are_kept_where_the_format_can(tmp_path: Path) -> None:
    pixel = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
    )
    table = pa.table({
        **{name: [value] * 2 for name, value in BASE.items()},
        "half": pa.array([[1.5, 2], None], pa.list_(pa.float32())),
        "image": pa.array([{"bytes": pixel, "path": None}] * 2),
        "when": pa.array([datetime(2026, 1, 2)] * 2, pa.timestamp("ms")),
        "kind": pa.array([0, 1]),
        "category": pa.array(["u", "v"]).dictionary_encode(),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    source = datasets.Dataset(table.drop_columns(["category"])).cast_column(
        "kind", datasets.ClassLabel(names=["x", "y"])
    )
    source = source.cast_column("image", datasets.Image())
    prefs = load_preferences(source)
    assert prefs.dataset.features["kind"].names == ["x", "y"] and prefs[0]["image"]["bytes"] == pixel  # not decoded
    prefs.with_columns(category=["u", "v"]).save(tmp_path / "b.parquet")
    for found in (load_preferences(tmp_path / "a.parquet"), load_preferences(tmp_path / "b.parquet")):
        schema = found.dataset.features.arrow_schema
        assert [schema.field(name).type for name in ("half", "when")] == [pa.list_(pa.float32()), pa.timestamp("ms")]
        assert [row["category"] for row in found] == ["u", "v"]
        assert found[0]["image"]["bytes"] == pixel and found.dataset.features["kind"] is not None
    assert load_preferences(tmp_path / "b.parquet").dataset.features["kind"].names == ["x", "y"]
    with pytest.raises(DataError, match=r"b\.jsonl: the column 'image' contains bytes, which JSON cannot"):
        prefs.save(tmp_path / "b.jsonl")
    assert not (tmp_path / "b.jsonl").exists()
    prefs.with_columns(image=None).save(tmp_path / "c.jsonl")
    assert load_preferences(tmp_path / "c.jsonl")[0]["when"] == "2026-01-02T00:00:00"


def test_values_of_several_kinds_and_dictionaries_become_json_texts_and_that_is_said() -> None:
    many = rows(3)
    for row, mixed in zip(many, (1, "one", [2]), strict=True):
        row["mixed"] = mixed
    wide = [{**BASE, "prompt": f"p{i}", "counts": {f"word {i} {j}": j for j in range(40)}} for i in range(2)]
    prefs = load_preferences(many)
    assert [row["mixed"] for row in prefs] == ["1", "one", "[2]"]
    assert any("'mixed' has values of several types" in note for note in prefs.report.notes)
    assert json.loads(load_preferences(wide)[1]["counts"]) == wide[1]["counts"]


def test_a_kind_that_changes_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("popmargin.data.sources.BATCH_ROWS", 2)
    plain: list[dict[str, Any]] = [{**BASE, "prompt": f"p{i}"} for i in range(6)]
    numbers = [row | {"n": i if i < 3 else i / 2, "late": None if i < 4 else [i]} for i, row in enumerate(plain)]
    prefs = load_preferences(numbers)
    assert [row["n"] for row in prefs] == [0, 1, 2, 1.5, 2, 2.5]
    assert [row["late"] for row in prefs] == [None] * 4 + [[4], [5]]
    kinds = load_preferences(
        [row | {"k": i if i < 2 else f"t{i}" if i < 4 else {"i": i}} for i, row in enumerate(plain)]
    )
    assert [row["k"] for row in kinds] == ["0", "1", "t2", "t3", '{"i": 4}', '{"i": 5}']


def test_a_name_of_the_schema_that_the_layout_does_not_read_is_answered_in_words() -> None:
    row = {"prompt": "p", "responses": ["a", "b"], "ratings": [2, 1], "strength": 9, "Chosen": "x", "hue": "blue"}
    prefs = load_preferences([row])
    assert prefs.report.columns_kept == ("hue",) and prefs.report.columns_unused == ("strength", "Chosen")
    told = [note for note in prefs.report.notes if "is not kept" in note]
    assert [note.split("'")[1] for note in told] == ["strength", "Chosen"] and "rename it to keep it" in told[0]
    assert prefs.strength.tolist() == [1.0] and prefs[0]["hue"] == "blue"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"weight": -1}, r"row 0 .*'weight': the weight is -1\. Remedy: give the row a weight of 0 or more"),
        ({"weight": "heavy"}, r"'weight': the weight is 'heavy' \(str\), not a number"),
        ({"weight": float("inf")}, r"'weight': the number is inf"),
        ({"margin": float("nan")}, r"1 of 1 row .*\n.*'margin': the number is nan"),
    ],
)
def test_weights_and_margins_are_checked_by_row(row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_preferences([BASE | row])


def test_a_margin_may_be_negative_and_is_the_strength_where_it_is_not() -> None:
    data = [BASE | {"prompt": str(i), "margin": margin} for i, margin in enumerate((2.0, -1.5, None))]
    prefs = load_preferences(data)
    assert [row["margin"] for row in prefs] == [2.0, -1.5, None] and [row["strength"] for row in prefs] == [
        2.0,
        None,
        None,
    ]
    assert "a negative margin does not give a strength, so it is unknown (rows: 1)" in prefs.report.notes
    assert prefs.select([0, 1]).margin.tolist() == [2.0, -1.5]
    both = load_preferences([BASE | {"margin": -1.5, "strength": 3.0, "chosen_rating": 4, "rejected_rating": 2}])
    assert (
        both.margin.tolist() == [2.0] and both.column("margin").tolist() == [-1.5] and both.strength.tolist() == [3.0]
    )
    renamed = load_preferences([BASE | {"lead": -1.0}], columns={"margin": "lead"})
    assert renamed.column("margin").tolist() == [-1.0] and "lead" not in renamed.columns
    with pytest.raises(DataError, match="the strength is -1"):
        load_preferences([BASE | {"margin": -1.0}], columns={"strength": "margin"})


def test_columns_of_single_responses_belong_to_the_prompt_or_to_their_side() -> None:
    rated = [
        ("p", "good", 5, "m1", "t"),
        ("p", "bad", 1, "m2", "t"),
        ("q", "x", 1, "m1", "u"),
        ("q", "y", 2, "m2", "u"),
    ]
    names = ("prompt", "response", "label", "model", "topic")
    prefs = load_preferences([dict(zip(names, row, strict=True)) for row in rated])
    shown = [[row[name] for name in ("chosen", "chosen_model", "rejected_model", "topic")] for row in prefs]
    assert shown == [["good", "m1", "m2", "t"], ["y", "m2", "m1", "u"]]
    assert "model" not in prefs.columns and prefs.report.columns_unused == ()


def test_convert_and_split_keep_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "a.jsonl", tmp_path / "out.parquet"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows(4)), encoding="utf-8")
    assert main(["data", "convert", str(source), str(out)]) == 0
    assert f"kept as they are: {', '.join(EXTRA)}" in capsys.readouterr().out
    assert extras(load_preferences(out)) == extras(load_preferences(source))
    parts = [tmp_path / "train.jsonl", tmp_path / "test.parquet"]
    flags = ["--train", str(parts[0]), "--test", str(parts[1]), "--test-size", "1"]
    assert main(["data", "split", str(out), *flags]) == 0
    found = [row for part in parts for row in extras(load_preferences(part))]
    assert sorted(row["level"] for row in found) == [0, 1, 2, 3] and all(row["meta"] == EXTRA["meta"] for row in found)


def test_a_column_without_any_value_is_converted_too(tmp_path: Path) -> None:
    """It stands in the first line; what no row holds of the schema does not."""
    lines = [{**BASE, "prompt": f"p{i}", "note": None, "late": None if i < 2 else i} for i in range(3)]
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "a.parquet")
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"):
        assert main(["data", "convert", str(tmp_path / "a.parquet"), str(tmp_path / name)]) == 0
        back = load_preferences(tmp_path / name)
        assert back.extra_columns == ("note", "late") and extras(back) == [
            {"note": None, "late": row["late"]} for row in lines
        ]
    first, second, third = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert (first["note"], first["late"], third["late"]) == (None, None, 2)
    assert "note" not in second and "late" not in second


def test_values_of_columns_that_no_field_is_read_from_are_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a table only the first batch, which tells the layout, becomes Python values as a whole."""
    monkeypatch.setattr("popmargin.data.sources.BATCH_ROWS", 2)
    pq.write_table(pa.Table.from_pylist(rows(6)), tmp_path / "a.parquet")
    made: list[Any] = []
    read = RawBatch.read
    monkeypatch.setattr(RawBatch, "read", lambda batch, columns=None: made.append(columns) or read(batch, columns))
    prefs = load_preferences(tmp_path / "a.parquet")
    assert made == [None, set(BASE), set(BASE), set(BASE)] and [row["level"] for row in prefs] == list(range(6))


@pytest.mark.parametrize("column", ["chosen", "note"])
def test_text_that_is_not_utf8_is_found_in_every_column(tmp_path: Path, column: str) -> None:
    table = pa.table({**{name: [value] * 2 for name, value in (BASE | {"note": "n"}).items()}, "id": ["a", "b"]})
    torn = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"x\xff")]
    )
    pq.write_table(table.set_column(table.column_names.index(column), column, torn), tmp_path / "a.parquet")
    prefs = load_preferences(tmp_path / "a.parquet", bad_rows="drop")
    assert prefs.ids == ["a"] and prefs.report.problem_counts == {"bad_utf8": 1}
