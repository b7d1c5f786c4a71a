"""Verbs of preferences: swap, flip, select, with_columns, column; the one rule of what changes sides."""

import math
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.data import Preferences, Responses, load_preferences
from popmargin.data.exchange import exchange, partner
from popmargin.errors import DataError

NUMBER = st.none() | st.floats(-4, 4, width=32)
ROW = st.fixed_dictionaries(
    {
        "chosen_rating": st.none() | st.floats(2, 5),
        "rejected_rating": st.none() | st.floats(0, 2),
        "strength": st.none() | st.floats(0, 4),
        "soft_label": st.none() | st.floats(0.5, 1),
        "weight": st.none() | st.floats(0, 4),
        "margin": NUMBER,
        "chosen_model": st.sampled_from(["m1", "m2", None]),
        "rejected_model": st.sampled_from(["m1", "m3"]),
        "topic": st.sampled_from(["x", "y"]),
        "vector": st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=2),
    }
)
ROWS = st.lists(ROW, min_size=1, max_size=5)


def load(rows: list[dict[str, Any]], *, talk: bool = False) -> Preferences:
    def text(role: str, words: str) -> Any:
        return [{"role": role, "content": words}] if talk else words

    return load_preferences(
        [
            {
                "id": f"r{i}",
                "prompt": text("user", f"p{i}"),
                "chosen": text("assistant", "good"),
                "rejected": text("assistant", f"bad {i}"),
                **row,
            }
            for i, row in enumerate(rows)
        ]
    )


def same(one: Any, other: Any) -> bool:
    return one == other or (
        isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    )


@given(ROWS, st.data(), st.booleans())
@settings(max_examples=20, deadline=None)
def test_swap_exchanges_all_that_belongs_to_the_sides_and_twice_nothing(rows: Any, data: Any, talk: bool) -> None:
    prefs = load(rows, talk=talk)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    swapped = prefs.swap(mask)
    for before, after, turned in zip(prefs, swapped, mask, strict=True):
        other = dict(before)
        if turned:
            for name in ("chosen", "chosen_rating", "chosen_model"):
                opposite = name.replace("chosen", "rejected")
                if name in before:
                    other[name], other[opposite] = before[opposite], before[name]
            for name in {"strength", "margin"} & other.keys():
                other[name] = None if before[name] is None else -before[name]
            other["soft_label"] = None if before["soft_label"] is None else 1 - before["soft_label"]
        assert {name: after[name] for name in before} == other
    assert swapped.ids == prefs.ids and swapped.prompt_keys == prefs.prompt_keys
    back = swapped.swap(mask)
    assert [{name: row[name] for name in prefs.columns} for row in back] == list(prefs)
    assert back.fingerprint() == prefs.fingerprint()


@given(ROW.map(lambda row: {**row, "chosen": "a", "rejected": "b"}))
@settings(max_examples=20, deadline=None)
def test_a_row_is_exchanged_as_a_table_is(row: dict[str, Any]) -> None:
    """Loading exchanges single rows where the soft label is below ½; the rule is one."""
    prefs = load([row])
    expected = dict(prefs[0])
    exchange(expected)
    found = prefs.swap([True])[0]
    assert found.keys() == expected.keys() and all(same(found[name], expected[name]) for name in found)


def test_a_label_below_one_half_turns_the_extra_columns_of_both_sides_too() -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "soft_label": 0.25, "margin": -2.0, "topic": "t"}
    sides = {"chosen_model": "weak", "rejected_model": "strong", "score-chosen-raw": 1, "tokens_rejected": 7}
    prefs = load_preferences([row | sides, row | sides | {"prompt": "q", "soft_label": 0.75, "margin": 1.0}])
    turned, kept = prefs
    assert (turned["chosen"], turned["chosen_model"], turned["rejected_model"]) == ("b", "strong", "weak")
    assert (turned["soft_label"], turned["margin"], turned["strength"]) == (0.75, 2.0, 2.0)
    assert (turned["score-chosen-raw"], turned["score-rejected-raw"]) == (None, 1)
    assert (turned["tokens_chosen"], turned["tokens_rejected"]) == (7, None)
    assert {name: kept[name] for name in sides} == sides and kept["topic"] == turned["topic"] == "t"


def test_flip_moves_texts_and_what_describes_them_and_leaves_what_is_said_of_them() -> None:
    numbers = {"chosen_rating": 5.0, "rejected_rating": 1.0, "strength": 4.0, "soft_label": 0.75, "margin": -1.0}
    prefs = load([{**numbers, "chosen_model": "m1", "rejected_model": "m2", "topic": "t"}] * 40)
    flipped = prefs.flip(0.5, seed=3)
    expected = np.random.default_rng([3, 7]).random(40) < 0.5
    assert 0 < expected.sum() < 40
    for before, after, turned in zip(prefs, flipped, expected, strict=True):
        sides = ("rejected", "chosen") if turned else ("chosen", "rejected")
        assert (after["chosen"], after["rejected"]) == tuple(before[side] for side in sides)
        assert (after["chosen_model"], after["rejected_model"]) == tuple(before[f"{side}_model"] for side in sides)
        assert all(after[name] == before[name] for name in (*numbers, "topic", "id"))
    assert prefs.flip(0.0, seed=3) is prefs
    for share in (-0.1, 1.0, math.nan):
        with pytest.raises(DataError, match="share of flipped labels is"):
            prefs.flip(share, seed=0)


@given(ROWS, st.data())
@settings(max_examples=15, deadline=None)
def test_select_and_with_columns_do_not_depend_on_their_order(rows: Any, data: Any) -> None:
    prefs = load(rows)
    chosen = data.draw(st.permutations(range(len(rows))))[: data.draw(st.integers(1, len(rows)))]
    label, place = np.linspace(0.5, 1, len(rows)), [f"place {i}" for i in range(len(rows))]
    one = prefs.with_columns(soft_label=label, place=place, topic=None, vector=np.eye(len(rows), 3)).select(chosen)
    other = prefs.select(chosen).with_columns(
        {"soft_label": label[chosen], "vector": np.eye(len(rows), 3)[chosen]},
        place=[place[i] for i in chosen],
        topic=None,
    )
    assert list(one) == list(other) and one.fingerprint() == other.fingerprint()
    assert "topic" not in one.columns and one.column("vector").shape == (len(chosen), 3)


def test_with_columns_refuses_what_the_schema_does() -> None:
    prefs = load([{"topic": "x"}, {"topic": "y"}])
    for values, words in (
        ({"soft_label": [0.5, 1.5]}, r"Row 1 \(id 'r1'\): the soft_label is 1.5; it must be from 0 to 1"),
        ({"weight": [-1, 1]}, r"Row 0 \(id 'r0'\): the weight is -1; it must be ≥ 0"),
        ({"strength": [1.0]}, "1 value for 'strength', but there are 2 rows"),
        ({"margin": ["a", "b"]}, "The values for 'margin' cannot be a column"),
        ({"margin": [math.inf, 0.0]}, "The value for 'margin' of row 0 is infinite"),
        ({"chosen": [1, 2]}, "The values for 'chosen' cannot be a column"),
        ({"id": ["a", "a"]}, "duplicate ids"),
        ({"chosen": None}, r"Row 0 \(id 'r0'\): the chosen is empty"),
        ({"prompt": ["p", " "]}, r"Row 1 \(id 'r1'\): the prompt is empty"),
        ({"id": [None, "a"]}, r"Row 0 \(id 'r0'\): the id is empty"),
        ({"rejected": ["x", prefs[1]["chosen"]]}, r"Row 1 \(id 'r1'\): chosen and rejected are the same"),
        ({"topic": [1, "x"]}, "The values for 'topic' cannot be a column"),
    ):
        with pytest.raises(DataError, match=words):
            prefs.with_columns(values)
    assert prefs.with_columns(strength=[1.0, math.nan])[1]["strength"] is None
    assert prefs.with_columns(weight=2).column("weight").tolist() == [2.0, 2.0]
    assert prefs.with_columns(chosen_rating=None)[0]["chosen_rating"] is None
    with pytest.raises(DataError, match=r"mask has shape \(1,\)"):
        prefs.swap([True])
    with pytest.raises(DataError, match="of int64; give one truth value"):
        prefs.swap([1, 0])


def test_a_column_of_numbers_is_read_from_any_type() -> None:
    prefs = load([{"a": 1, "b": "2.5", "c": True, "v": [1, 2], "w": [1], "t": "x"},
                  {"a": None, "b": None, "c": False, "v": [3, 4.5], "w": [1, 2], "t": "y"}])  # fmt: skip
    for name, values in (("a", [1, math.nan]), ("b", [2.5, math.nan]), ("c", [1, 0]), ("strength", [math.nan] * 2)):
        np.testing.assert_array_equal(prefs.column(name), values)
    np.testing.assert_array_equal(prefs.column("v"), [[1, 2], [3, 4.5]])
    with pytest.raises(DataError, match=r"Row 1 \(id 'r1'\), column 'w': has 2 numbers, the first 1"):
        prefs.column("w")
    with pytest.raises(DataError, match=r"Row 0 \(id 'r0'\), column 't': 'x' is not a number"):
        prefs.column("t")
    with pytest.raises(DataError, match=r"no column 'tt'\. Did you mean"):
        prefs.column("tt")


def test_sides_of_different_types_and_of_extension_types_are_exchanged_or_refused() -> None:
    features = datasets.Features(
        {f"{side}_grid": datasets.Array2D((1, 2), "float32") for side in ("chosen", "rejected")}
    )
    grids = datasets.Dataset.from_dict(
        {"chosen_grid": [[[1, 2]]] * 2, "rejected_grid": [[[3, 4]]] * 2}, features=features
    )
    texts = datasets.Dataset.from_dict({"prompt": ["p", "q"], "chosen": ["a"] * 2, "rejected": ["b"] * 2})
    prefs = load_preferences(datasets.concatenate_datasets([texts, grids], axis=1))
    assert prefs.dataset.features["chosen_grid"] == features["chosen_grid"]
    swapped = prefs.swap([False, True])
    assert [row["chosen_grid"] for row in swapped] == [[[1.0, 2.0]], [[3.0, 4.0]]]
    assert swapped.dataset.features["chosen_grid"] == features["chosen_grid"]
    mixed = load([{"chosen_score_raw": 1, "rejected_score_raw": "b"}])
    with pytest.raises(DataError, match=r"'chosen_score_raw' .* have incompatible types"):
        mixed.swap([True])


def test_partners() -> None:
    names = ("Chosen Model", "CHOSEN", "chosen_vs_rejected", "unchosen", "frozen", "rejected2")
    assert [partner(name) for name in names] == [
        "Rejected Model", "REJECTED", "chosen_vs_rejected", "unchosen", "frozen", "chosen2"
    ]  # fmt: skip
    assert all(partner(partner(name)) == name for name in names)


@pytest.mark.parametrize("mask", [[True, False], np.array([True, False]), [0.5]])
def test_a_mask_is_no_list_of_row_numbers(mask: Any) -> None:
    data = load_preferences([{"prompt": name, "chosen": "a", "rejected": "b"} for name in ("p", "q")])
    responses = Responses(["p", "q"], [["a", "b"], ["c"]])
    for one in (data, responses):
        with pytest.raises(DataError, match="is not a row number"):
            one.select(mask)
    assert data.select(np.array([1]))[0]["prompt"] == "q"


def test_square_brackets_take_a_row_or_a_slice() -> None:
    prefs = load([{"topic": name} for name in "xyz"])
    assert prefs[0:2].ids == prefs.select([0, 1]).ids and prefs[::-2].ids == ["r2", "r0"] and len(prefs[3:]) == 0
    assert prefs[-1]["id"] == "r2" and len(list(prefs)) == 3  # the loop ends by an IndexError
    for index, words in (
        (3, "Row 3 does not exist: there are 3"),
        (-4, "Row -4 does not exist"),
        ("topic", "'topic' in square brackets: give a number or a slice there, several numbers to select, and a name"),
        ([0], r"\[0\] in square brackets"),
    ):
        with pytest.raises(DataError, match=words):
            _ = prefs[index]  # type: ignore[index]


def test_a_column_of_matrices_keeps_its_shape() -> None:
    prefs = load([{"others": [[1, 2, 3], [4, 5, 6 + i]], "torn": [[1], [2, 3]]} for i in range(3)])
    assert prefs.column("others").shape == (3, 2, 3) and prefs.column("others")[2, 1, 2] == 8
    with pytest.raises(DataError, match="The column 'torn' does not contain lists of numbers"):
        prefs.column("torn")
