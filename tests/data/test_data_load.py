"""Reading: containers, accounting, errors."""

import gzip
import json
import os
import subprocess
import sys

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.data import COLUMNS, load_preferences, scan_preferences
from popmargin.errors import ConfigError, DataError

ROWS = [
    {"prompt": "2+2?", "chosen": "4", "rejected": "5", "chosen_rating": 5.0, "rejected_rating": 1.0},
    {
        "prompt": "Größe?",
        "chosen": "groß\nund\n\n„gut“",
        "rejected": 'klein, "so"',
        "chosen_rating": 3.5,
        "rejected_rating": 3.0,
    },
    {"prompt": "Sky?", "chosen": "blue", "rejected": "green", "chosen_rating": 4.0, "rejected_rating": 4.0},
]


def jsonl(rows) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def csv_text(separator: str) -> bytes:
    def quote(value):
        return '"' + str(value).replace('"', '""') + '"'

    lines = [separator.join(ROWS[0])] + [separator.join(quote(value) for value in row.values()) for row in ROWS]
    return ("\n".join(lines) + "\n").encode()


def parquet_bytes(rows) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


CONTENTS = {
    "prefs.jsonl": jsonl(ROWS),
    "prefs.ndjson": jsonl(ROWS),
    "prefs.json": json.dumps(ROWS).encode(),
    "wrapped.json": json.dumps({"data": ROWS}).encode(),
    "lines.json": jsonl(ROWS),
    "bom.jsonl": b"\xef\xbb\xbf" + jsonl(ROWS),
    "blank.jsonl": jsonl(ROWS).replace(b"\n", b"\n\n"),
    "prefs.csv": csv_text(","),
    "prefs.tsv": csv_text("\t"),
    "prefs.parquet": parquet_bytes(ROWS),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", CONTENTS)
def test_every_file_type_gives_the_same_preferences(tmp_path, name, zipped):
    path = tmp_path / (name + ".gz" * zipped)
    path.write_bytes(gzip.compress(CONTENTS[name]) if zipped else CONTENTS[name])
    prefs = load_preferences(path)
    assert prefs.fingerprint() == load_preferences(ROWS).fingerprint()
    assert prefs.strength.tolist() == [4.0, 0.5, 0.0]
    assert prefs[1]["chosen"] == ROWS[1]["chosen"]
    assert (prefs.report.rows_in, prefs.report.rows_kept, prefs.report.format) == (3, 3, "preference")


def test_saved_dataset_folder_and_splits(tmp_path):
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=data, test=data.select([0])).save_to_disk(tmp_path / "two")
    assert load_preferences(tmp_path / "one").fingerprint() == load_preferences(ROWS).fingerprint()
    assert len(load_preferences(str(tmp_path / "two"), split="test")) == 1
    with pytest.raises(DataError, match="splits train, test"):
        load_preferences(tmp_path / "two")
    with pytest.raises(DataError, match="no split 'dev'; it has train, test"):
        load_preferences(tmp_path / "two", split="dev")
    with pytest.raises(DataError, match="but split='train'"):
        load_preferences(tmp_path / "one", split="train")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"contains no data files"):
        load_preferences(tmp_path / "other")


def test_dataset_in_memory_with_index_mapping():
    data = datasets.Dataset.from_list(ROWS).select([2, 0])
    assert [row["prompt"] for row in load_preferences(data).dataset] == ["Sky?", "2+2?"]


def test_a_misspelt_name_of_embedded_data_is_not_asked_of_the_hub() -> None:
    with pytest.raises(DataError, match="did you mean the embedded data 'demo'"):
        load_preferences("demmo")


def test_hub_id_without_network_is_a_clear_error():
    code = (
        "from popmargin.data import load_preferences\n"
        "try: load_preferences('no-such-owner/no-such-data', split='train')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert out.stdout.startswith("DataError 'no-such-owner/no-such-data' is not a file or folder here")
    assert "without network" in out.stdout


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jsonl", b"", "the file is empty"),
        ("columnless.jsonl", b"{}\n", "No known format"),
        ("blank.jsonl", b"\n\n", "there are no rows"),
        ("header.csv", b"prompt,chosen,rejected\n", "there are no rows"),
        ("twice.csv", b"prompt,prompt\na,b\n", "distinct column names"),
        ("quote.csv", b'prompt,chosen,rejected\na,"b,c\n', "quote.csv:2: "),
        ("scalar.json", b"3", "write a JSON array"),
        ("cut.json", b'[{"prompt": "a",', "not valid JSON"),
        ("latin.json", '["é"]'.encode("latin-1"), "latin.json:1: not UTF-8 at byte 2"),
        ("cut.jsonl.gz", gzip.compress(jsonl(ROWS))[:-20], "damaged or truncated gzip"),
        ("plain.jsonl.gz", jsonl(ROWS), "damaged or truncated gzip"),
        ("bad.parquet", b"PAR1 no", "not a readable Parquet file"),
        ("prefs.xlsx", b"x", "unknown file type"),
    ],
)
def test_unusable_files_are_named(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=name) as caught:
        load_preferences(path)
    assert words in str(caught.value)


def test_missing_file_and_wrong_source(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.jsonl: no such file"):
        load_preferences(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match="no such file"):
        load_preferences("nothing.jsonl")
    with pytest.raises(DataError, match="cannot be read from an int"):
        load_preferences(3)
    with pytest.raises(ConfigError, match="Did you mean 'responses'"):
        load_preferences(ROWS, format="response")
    with pytest.raises(ConfigError, match="bad_rows='skip'"):
        load_preferences(ROWS, bad_rows="skip")


BAD_LINES = [
    (b'{"prompt": "a", "chosen": "b"', "bad_json", None),
    (b"[1, 2]", "type", None),
    ('{"prompt": "é", "chosen": "b", "rejected": "c"}'.encode("latin-1"), "bad_utf8", None),
    (b'{"prompt": "a", "chosen": "\\ud800", "rejected": "c"}', "bad_utf8", "chosen"),
    (b'{"chosen": "b", "rejected": "c"}', "missing", "prompt"),
    (b'{"prompt": " ", "chosen": "b", "rejected": "c"}', "empty", "prompt"),
    (b'{"prompt": "a", "chosen": "", "rejected": "c"}', "empty", "chosen"),
    (b'{"prompt": "a", "chosen": "b", "rejected": null}', "missing", "rejected"),
    (b'{"prompt": "a", "chosen": "b", "rejected": "b"}', "identical", "rejected"),
    (b'{"prompt": "a", "chosen": 3, "rejected": "b"}', "type", "chosen"),
    (b'{"prompt": "a", "chosen": "b", "rejected": "c", "chosen_rating": NaN}', "nan", "chosen_rating"),
    (b'{"prompt": "a", "chosen": "b", "rejected": "c", "rejected_rating": Infinity}', "nan", "rejected_rating"),
    (b'{"prompt": "a", "chosen": "b", "rejected": "c", "chosen_rating": "5"}', "type", "chosen_rating"),
    (b'{"prompt": "a", "chosen": "b", "rejected": "c", "chosen_rating": true}', "type", "chosen_rating"),
    (
        b'{"prompt": "a", "chosen": "b", "rejected": "c", "chosen_rating": 1, "rejected_rating": 2}',
        "swapped",
        "chosen_rating",
    ),
    (b'{"prompt": "a", "chosen": "b", "rejected": "c", "soft_label": 1.5}', "soft_label", "soft_label"),
    (b'{"prompt": "a", "chosen": "b", "rejected": "c", "strength": -1}', "negative_strength", "strength"),
    (
        b'{"prompt": "a", "chosen": "b", "rejected": "c", "soft_label": 0.2, "chosen_rating": 2, "rejected_rating": 1}',
        "against_soft_label",
        "chosen_rating",
    ),
    (
        b'{"prompt": "a", "chosen": "b", "rejected": "c", "soft_label": 0.8, "chosen_rating": 1, "rejected_rating": 2}',
        "swapped",
        "chosen_rating",
    ),
    (
        b'{"prompt": "a", "chosen": "b", "rejected": "c", "soft_label": 0.2, "strength": 1}',
        "against_soft_label",
        "strength",
    ),
    (b'{"prompt": "a", "chosen": "b", "rejected": "c", "id": 1.5}', "type", "id"),
    (b'{"prompt": "a", "chosen": "b", "rejected": "c", "id": "first"}', "duplicate_id", "id"),
    (b'{"prompt": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "c"}', "mixed", "prompt"),
    (b'{"prompt": "a", "chosen": "b", "rejected": [{"role": "assistant", "content": "c"}]}', "mixed", "rejected"),
]


@pytest.mark.parametrize(("line", "kind", "column"), BAD_LINES)
def test_bad_row_is_an_error_that_names_it_or_is_dropped_and_reported(tmp_path, line, kind, column):
    path = tmp_path / "prefs.jsonl"
    good = {"id": "first", "prompt": "p", "chosen": "x", "rejected": "y", "chosen_rating": 2, "rejected_rating": 1}
    path.write_bytes(jsonl([{**good, "strength": 1, "soft_label": 1}]) + line + b"\n")
    with pytest.raises(DataError, match=r"1 of 2 rows cannot be used") as caught:
        load_preferences(path)
    assert "prefs.jsonl:2" in str(caught.value)
    assert "Remedy:" in str(caught.value)
    assert column is None or f"column '{column}'" in str(caught.value)
    prefs = load_preferences(path, bad_rows="drop")
    (problem,) = prefs.report.problems
    assert (len(prefs), problem.kind, problem.column, problem.position) == (1, kind, column, 2)
    assert prefs.report.rows_in == prefs.report.rows_kept + prefs.report.rows_reported == 2


def test_csv_rows_with_wrong_cells_and_bad_bytes(tmp_path):
    path = tmp_path / "prefs.csv"
    path.write_bytes(
        b'prompt,chosen,rejected,strength\na,"two\nlines",c,1\na,b\na,\xff,c,1\na,b,c,much\na,b,,2\na,b,c,nan\na,b,c,\n'
    )
    _, report = scan_preferences(path)
    found = [(problem.position, problem.kind) for problem in report.problems]
    assert found == [(4, "cells"), (5, "bad_utf8"), (6, "type"), (7, "missing"), (8, "nan")]
    assert (report.rows_in, report.rows_kept, report.rows_reported) == (7, 2, 5)


def test_parquet_text_that_is_not_utf8_is_reported_by_row(tmp_path):
    column = pa.array([b"ok", b"\xff", b"fine"]).view(pa.string())
    table = pa.table({"prompt": ["a", "b", "c"], "chosen": column, "rejected": ["x", "y", "z"]})
    pq.write_table(table, tmp_path / "prefs.parquet")
    prefs = load_preferences(tmp_path / "prefs.parquet", bad_rows="drop")
    (problem,) = prefs.report.problems
    assert (len(prefs), problem.position, problem.kind) == (2, 1, "bad_utf8")
    assert problem.place == "prefs.parquet, row 1 (from 0)"


def test_several_problems_of_one_row_count_once():
    row = {"prompt": "", "chosen": "b", "rejected": "b", "strength": -2.0}
    _, report = scan_preferences([row, ROWS[0]])
    assert [problem.kind for problem in report.problems] == ["empty", "identical", "negative_strength"]
    assert (report.rows_in, report.rows_kept, report.rows_reported) == (2, 1, 1)
    assert report.to_dict(limit=1)["problem_counts"] == {"empty": 1, "identical": 1, "negative_strength": 1}


def test_nothing_left_is_an_error_even_when_dropping():
    with pytest.raises(DataError, match="no usable rows among 1"):
        load_preferences([{"prompt": "a", "chosen": "b", "rejected": "b"}], bad_rows="drop")
    with pytest.raises(DataError, match="there are no rows"):
        load_preferences([])


def test_the_error_lists_the_first_problems_and_the_total():
    bad = [{"prompt": "a", "chosen": "b", "rejected": "b"}] * 12
    with pytest.raises(DataError, match="12 of 15 rows cannot be used") as caught:
        load_preferences([*ROWS, *bad])
    assert str(caught.value).count("column 'rejected'") == 5
    assert "… and 7 more; identical: 12." in str(caught.value)


def test_margin_is_the_strength_and_the_report_says_so():
    prefs = load_preferences([{"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1.5, "note": "x"}])
    assert prefs.strength.tolist() == [1.5]
    assert prefs.report.notes == (
        "the column 'margin' is used as the strength",
        "there are no ratings, so the column 'margin' is the margin if an objective needs one",
    )
    assert prefs.report.columns_kept == ("note",)


def test_explicit_strength_comes_before_the_rating_gap_row_by_row():
    rows = [
        {**ROWS[0], "strength": 9.0},
        {**ROWS[1], "strength": None},
        {"prompt": "x", "chosen": "y", "rejected": "z"},
    ]
    prefs = load_preferences(rows)
    np.testing.assert_array_equal(prefs.strength, [9.0, 0.5, np.nan])
    np.testing.assert_array_equal(prefs.rating_gap, [4.0, 0.5, np.nan])


def test_a_soft_label_below_one_half_exchanges_chosen_and_rejected(tmp_path):
    """With all that belongs to a side; ½ stays, and what was written is read as it is."""
    rows = [
        {"id": "kept", "prompt": "a", "chosen": "b", "rejected": "c", "soft_label": 0.75, "strength": 2.0},
        {"id": "rated", "prompt": "a", "chosen": "b", "rejected": "d", "soft_label": 0.25, "chosen_rating": 1.0,
         "rejected_rating": 3.0},
        {"id": "signed", "prompt": "b", "chosen": "c", "rejected": "d", "soft_label": 0.0, "strength": -2.0},
        {"id": "half", "prompt": "b", "chosen": "e", "rejected": "d", "soft_label": 0.5},
        {"id": "equal", "prompt": "c", "chosen": "e", "rejected": "d", "soft_label": 0.125, "chosen_rating": 2.0,
         "rejected_rating": 2.0, "strength": 0.0},
    ]  # fmt: skip
    prefs = load_preferences(rows)
    assert [(row["chosen"], row["rejected"]) for row in prefs.dataset] == [
        ("b", "c"), ("d", "b"), ("d", "c"), ("e", "d"), ("d", "e")
    ]  # fmt: skip
    assert prefs.soft_label.tolist() == [0.75, 0.75, 1.0, 0.5, 0.875]
    np.testing.assert_array_equal(prefs.strength, [2.0, 2.0, 2.0, np.nan, 0.0])
    assert prefs.report.notes == ("chosen and rejected swapped, since the soft label was below ½: 3",)
    assert prefs.ids == [row["id"] for row in rows]
    prefs.save(tmp_path / "prefs.jsonl")
    again = load_preferences(tmp_path / "prefs.jsonl")
    assert again.fingerprint() == prefs.fingerprint() and again.report.notes == ()
    with pytest.raises(DataError, match=r"chosen is rated 3, above rejected at 1, but the soft label is 0\.25\."):
        load_preferences([{**rows[1], "chosen_rating": 3.0, "rejected_rating": 1.0}])


def test_what_the_soft_label_exchanges_is_named_after_the_preference_that_comes_out():
    """And min_gap looks at it; rows that are left out are not counted as exchanged."""
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "soft_label": 0.25}
    turned = {"prompt": "a", "chosen": "c", "rejected": "b", "soft_label": 0.75}
    assert load_preferences([row]).fingerprint() == load_preferences([turned]).fingerprint()
    both = [row | {"strength": -0.5}, row | {"strength": -2.0}]
    prefs = load_preferences(both, min_gap=1.0)
    assert prefs.strength.tolist() == [2.0] and prefs.report.problem_counts == {"below_min_gap": 1}
    assert "chosen and rejected swapped, since the soft label was below ½: 1" in prefs.report.notes


def test_min_gap_reports_weak_and_unknown_strengths_without_an_error():
    prefs = load_preferences([*ROWS, {"prompt": "x", "chosen": "y", "rejected": "z"}], min_gap=1.0)
    assert len(prefs) == 1
    assert prefs.report.problem_counts == {"below_min_gap": 3}
    with pytest.raises(ConfigError, match="min_gap=-1"):
        load_preferences(ROWS, min_gap=-1)


def test_ids_are_stable_under_order_and_rating_and_count_repetitions():
    ids = load_preferences(ROWS).ids
    assert load_preferences(ROWS[::-1]).ids == ids[::-1]
    assert load_preferences([{**ROWS[0], "chosen_rating": 4.5}]).ids == ids[:1]
    twice = load_preferences([ROWS[0], ROWS[0], ROWS[0]])
    assert twice.ids == [ids[0], f"{ids[0]}-2", f"{ids[0]}-3"]
    assert any("repeat the texts" in note for note in twice.report.notes)
    assert load_preferences([{**ROWS[0], "id": 7}, {**ROWS[0], "id": "a"}]).ids == ["7", "a"]


def test_columns_can_be_renamed_and_typos_are_named():
    rows = [{"q": "a", "good": "b", "bad": "c"}]
    names = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    assert load_preferences(rows, columns=names)[0]["chosen"] == "b"
    with pytest.raises(DataError, match="Did you mean 'prompt'"):
        load_preferences(rows, columns={"promt": "q"})
    with pytest.raises(DataError, match=r"no column 'god' for chosen\. Did you mean 'good'"):
        load_preferences(rows, columns={"chosen": "god"})


def test_swapped_texts_can_be_named_the_other_way_round():
    rows = [{"prompt": "a", "chosen": "bad", "rejected": "good"}]
    prefs = load_preferences(rows, columns={"chosen": "rejected", "rejected": "chosen"})
    assert (prefs[0]["chosen"], prefs[0]["rejected"]) == ("good", "bad")


def test_columns_that_appear_late_in_a_file_are_read(tmp_path):
    rows = [{"prompt": f"p{i}", "chosen": "b", "rejected": "c"} for i in range(10_050)]
    rows[-1]["strength"] = 2.0
    path = tmp_path / "prefs.jsonl"
    path.write_bytes(jsonl(rows))
    prefs = load_preferences(path)
    assert prefs.strength[-1] == 2.0
    assert np.isnan(prefs.strength[:-1]).all()


MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=3)})
CELL = st.one_of(
    st.none(),
    st.text(max_size=5),
    st.integers(-3, 3),
    st.floats(allow_nan=True),
    st.booleans(),
    st.lists(MESSAGE, max_size=3),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
ANY_ROW = st.dictionaries(st.sampled_from(COLUMNS), CELL)
TEXT = st.sampled_from(["a", "b", "c d", ""])
LIKELY_ROW = st.fixed_dictionaries(
    {"prompt": TEXT, "chosen": TEXT, "rejected": TEXT},
    optional={"id": st.sampled_from(["x", "y"]), "strength": st.sampled_from([0.0, 1.0, -1.0, float("nan")])},
)


@settings(max_examples=150)
@given(st.lists(st.one_of(ANY_ROW, LIKELY_ROW, st.integers()), max_size=8), st.sampled_from([0.0, 0.5]))
def test_rows_in_are_rows_kept_plus_rows_reported(rows, min_gap):
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}, *rows]  # fixes the format
    prefs, report = scan_preferences(rows, format="preference", min_gap=min_gap)
    kept = 0 if prefs is None else len(prefs)
    assert report.source_rows == report.rows_in == len(rows)
    assert report.rows_kept == kept
    assert report.rows_in == kept + report.rows_reported
    reported = {problem.position for problem in report.problems}
    assert len(reported) == report.rows_reported
    if prefs is not None:
        assert len(set(prefs.ids)) == kept


@pytest.mark.slow
def test_a_million_rows(tmp_path):
    path = tmp_path / "prefs.jsonl"
    with path.open("w") as file:
        for i in range(1_000_000):
            rejected = "" if i % 100_000 == 0 else f"no {i}"
            file.write(
                f'{{"prompt":"question {i % 200_000}","chosen":"yes {i}","rejected":"{rejected}","margin":{i % 7}}}\n'
            )
    prefs = load_preferences(path, bad_rows="drop")
    assert (prefs.report.rows_in, len(prefs), prefs.report.rows_reported) == (1_000_000, 999_990, 10)
    assert prefs.strength.sum() == sum(i % 7 for i in range(1_000_000) if i % 100_000)
