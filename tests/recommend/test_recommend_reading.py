"""Sequences of items from every kind of file; every row is kept or reported."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from popmargin.errors import DataError
from popmargin.recommend.item_sequences import Catalogue, Sequences
from popmargin.recommend.read_sequences import load_sequences

EVENTS = [
    ("ann", "b", 30, 5.0),
    ("bob", "a", 10, 1.0),
    ("ann", "a", 20, 4.0),
    ("ann", "c", 40, 3.0),
    ("bob", "c", 5, 2.0),
]
"""User, item, time and rating, not in the order of time."""


def named(data: Sequences) -> dict[str, list[str]]:
    """The items of each user, by name."""
    return {
        user: [data.catalogue.names[number - 1] for number in data.items[place]]
        for place, user in enumerate(data.users)
    }


def separated(mark: str, header: list[str]) -> str:
    return "\n".join(mark.join(map(str, row)) for row in [header, *EVENTS]) + "\n"


def write(folder: Path, name: str) -> Path:
    """The events as a file of a kind."""
    path, plain = folder / name, ["user_id", "item_id", "timestamp", "rating"]
    if name.endswith(".parquet"):
        pq.write_table(pa.table(dict(zip(plain, map(list, zip(*EVENTS, strict=True)), strict=True))), path)
    elif name.endswith(".inter"):
        path.write_text(separated("\t", ["user_id:token", "item_id:token", "timestamp:float", "rating:float"]))
    elif ".jsonl" in name:
        text = "".join(json.dumps(dict(zip(plain, row, strict=True))) + "\n" for row in EVENTS)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    else:
        path.write_text(separated("\t" if name.endswith(".tsv") else ",", plain))
    return path


@pytest.mark.parametrize("name", ["e.csv", "e.tsv", "e.inter", "e.jsonl", "e.jsonl.gz", "e.parquet"])
def test_events_of_any_file_are_sorted_by_time(tmp_path: Path, name: str) -> None:
    data = load_sequences(write(tmp_path, name))
    assert named(data) == {"ann": ["a", "b", "c"], "bob": ["c", "a"]}
    assert data.times is not None and data.times.tolist() == [20, 30, 40, 5, 10]
    assert data.feedback is not None and data.feedback.tolist() == [4, 5, 3, 2, 1]
    assert data.report is not None and data.report.step.arithmetic == "5 in = 5 kept"


def test_one_row_a_user(tmp_path: Path) -> None:
    rows = [
        {"split": "train", "items": [3, 1, 3], "ratings": [5, None, 1]},
        {"split": "validation", "items": [10], "ratings": [2]},
    ]
    data = load_sequences(rows)
    assert data.catalogue.names == ("1", "3", "10")  # by number, not as text
    assert data.items[0].tolist() == [2, 1, 2] and data.splits == ("train", "valid")
    assert data.feedback is not None
    np.testing.assert_array_equal(data.feedback, [5, np.nan, 1, 2])


def test_without_times_the_order_of_the_rows_counts() -> None:
    data = load_sequences([{"user": "u", "item": item} for item in ("z", "y", "z")])
    assert named(data) == {"u": ["z", "y", "z"]} and data.times is None
    assert data.report is not None
    assert "the data have no times: the order of the rows counts" in data.report.step.notes


def test_events_of_one_time_stay_in_the_order_of_the_file() -> None:
    data = load_sequences([{"user": "u", "item": item, "time": 1} for item in ("z", "a", "m")])
    assert named(data) == {"u": ["z", "a", "m"]}
    assert data.report is not None and any("2 events at the time of another" in note for note in data.report.step.notes)


def test_repeated_events_are_left_out_and_counted() -> None:
    rows = [{"user": "u", "item": 1, "time": time} for time in (1, 2, 1)]
    data = load_sequences(rows)
    assert data.report is not None and data.report.step.arithmetic == "3 in = 2 kept + 1 left out (duplicate: 1)"
    assert data.report.problems[0].place == "the list in memory, row 2 (from 0)"


def test_dates_and_grades() -> None:
    rows = [{"user": "u", "item": 1, "time": "2014-07-23", "feedback": "cart"},
            {"user": "u", "item": 2, "time": "2014-07-22T12:00:00", "feedback": "click"}]  # fmt: skip
    data = load_sequences(rows, grades={"click": 1.0, "cart": 2.0})
    assert named(data) == {"u": ["2", "1"]} and data.feedback is not None and data.feedback.tolist() == [1, 2]
    assert data.times is not None and data.times[1] - data.times[0] == 12 * 3600


BAD_EVENTS: list[tuple[dict[str, Any], str]] = [
    ({"user": "u", "time": 1}, "column 'sku': the item is missing. Remedy: fill it in, or remove the row."),
    ({"user": "", "sku": 1, "time": 1}, "column 'user': the user is empty."),
    (
        {"user": "u", "sku": [1], "time": 1},
        "column 'sku': the item is [1], a list. Remedy: write ids as text or as whole",
    ),
    ({"user": "u", "sku": 1.5, "time": 1}, "the item is 1.5, a float."),
    ({"user": "u", "sku": True, "time": 1}, "the item is True, a bool."),
    (
        {"user": "u", "sku": 1, "time": "noon"},
        "column 'time': the time is 'noon'. Remedy: write a finite number or a date",
    ),
    ({"user": "u", "sku": 1, "time": None}, "column 'time': the time is None."),
    ({"user": "u", "sku": 1, "time": 1, "rating": float("inf")}, "column 'rating': the feedback is inf."),
    ({"user": "u", "sku": 1, "time": 1, "rating": True}, "column 'rating': the feedback is True."),
]


@pytest.mark.parametrize(("row", "message"), BAD_EVENTS)
def test_a_bad_event_is_named_or_left_out(row: dict[str, Any], message: str) -> None:
    good = {"user": "v", "sku": 2, "time": 3, "rating": 1}
    with pytest.raises(DataError) as error:
        load_sequences([good, row, good | {"time": 4}], columns={"item": "sku"})
    assert (
        "row 1 (from 0)" in str(error.value) and message in str(error.value) and "bad_rows='drop'" in str(error.value)
    )
    data = load_sequences([good, row, good | {"time": 4}], columns={"item": "sku"}, bad_rows="drop")
    assert data.report is not None and data.report.step.rows_in == 3 and data.report.step.kept == {"kept": 2}
    assert len(data.report.problems) == 1


BAD_USERS: list[tuple[Any, str]] = [
    ({"items": []}, "column 'items': the list of items is empty."),
    ({"items": "1 2"}, "column 'items': the items are a str. Remedy: write a list, oldest first"),
    ({"items": [1, None]}, "column 'items': the items is missing"),
    ({"items": [1], "split": "tain"}, "column 'split': the split is 'tain'. Remedy: write train, valid or test."),
    ({"items": [1, 2], "times": [2, 1]}, "column 'times': the times go back."),
    ({"items": [1, 2], "times": [2]}, "column 'times': 1 value for 2 items."),
    ({"items": [1], "user": "a"}, "column 'user': the user 'a' has an earlier row."),
    ([1, 2], 'the row is a list, not an object of columns. Remedy: write {"items": […]}'),
]


@pytest.mark.parametrize(("row", "message"), BAD_USERS)
def test_a_bad_user_is_named(row: Any, message: str) -> None:
    good = {"items": [1], "times": [1], "split": "train", "user": "a"}
    rows: list[Any] = [good, {**good, "user": "b", **row} if isinstance(row, dict) else row]
    with pytest.raises(DataError) as error:
        load_sequences(rows)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"who": 1, "what": 2}], "Columns: who, what. Remedy: name them, e.g. columns="),
        ([{"user": 1, "user_id": 1, "item": 2}], "the user could be user or user_id. Remedy: name it"),
        ([{"items": [1], "item": 1}], "a row is a user or an event"),
        ([{"user": 1, "item": 1, "split": "train"}], "the column 'split' splits single events"),
        ([{"user_id:token": 1, "item_id_list:token_seq": "1 2"}], "RecBole's files of prepared histories are not read"),
    ],
)  # fmt: skip
def test_columns_that_do_not_say_what_they_are(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError) as error:
        load_sequences(rows)
    assert message in str(error.value)


def test_the_line_of_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user,item,time\nu,a,1\nu,,2\n")
    with pytest.raises(DataError, match=r"events\.csv:3, column 'item': the item is missing"):
        load_sequences(path)
    with pytest.raises(DataError, match=r"has no column 'tme'\. Did you mean 'time'"):
        load_sequences(path, columns={"time": "tme"})
    with pytest.raises(DataError, match=r"there is no 'tim'\. Did you mean 'time'"):
        load_sequences(path, columns={"tim": "time"})
    with pytest.raises(DataError, match=r"Did you mean .*events\.csv"):
        load_sequences(tmp_path / "event.csv")
    (tmp_path / "events.xlsx").write_text("x")
    with pytest.raises(DataError, match=r"must end in \.jsonl, \.json, \.csv, \.tsv, \.inter or \.parquet"):
        load_sequences(tmp_path / "events.xlsx")


def test_ids_are_the_same_as_text_and_as_numbers() -> None:
    catalogue = Catalogue.of([10, "9"])
    assert catalogue.names == ("9", "10") and 9 in catalogue and "10" in catalogue and "09" not in catalogue
    assert Catalogue.of(["10", "9", "x"]).names == ("10", "9", "x")  # not all are numbers: as text
    with pytest.raises(DataError, match="2 items not in the catalogue of 2: 7, 8"):
        catalogue.numbers([7, 9, 8])
