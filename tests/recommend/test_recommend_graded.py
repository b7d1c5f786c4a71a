"""Preferences between graded items: no future, no row lost, and strengths that PoP edges and margins use."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.errors import ConfigError, DataError
from popmargin.recommend.graded_preferences import edges_within_users, graded_rows
from popmargin.recommend.item_sequences import Sequences
from popmargin.recommend.read_sequences import load_sequences
from popmargin.recommend.splitting import Parts, leave_one_out, split_by_time, split_by_user

SPLITS = {"user": split_by_user, "one out": leave_one_out, "time": split_by_time}
GRADE = st.sampled_from([1.0, 2.0, 3.0, float("nan")])
USERS = st.lists(st.lists(st.tuples(st.integers(1, 5), GRADE), min_size=3, max_size=7), min_size=10, max_size=14)


def events(users: list[list[tuple[int, float]]]) -> Sequences:
    """One time for each event; users take turns."""
    rows: list[dict[str, Any]] = []
    for user, sequence in enumerate(users):
        for place, (item, grade) in enumerate(sequence):
            told = {} if grade != grade else {"rating": grade}
            rows.append({"user": f"u{user}", "item": item, "time": 20 * place + user, **told})
    return load_sequences([*rows, {"user": "u0", "item": 5, "time": 900, "rating": 1.0}])


def split(name: str, data: Sequences) -> Parts:
    return SPLITS[name](data)


@pytest.mark.parametrize("name", SPLITS)
@given(users=USERS, every=st.booleans())
@settings(max_examples=15, deadline=None)
def test_no_future_and_no_user_lost(name: str, users: list[list[tuple[int, float]]], every: bool) -> None:
    """Both items are training events of the user, at the places that the id names; the history is all before both."""
    data = events(users)
    try:
        parts = split(name, data)
        rows, step = graded_rows(data, parts, pairs="all" if every else "nearest")
    except DataError as error:
        assert "part is empty" in str(error) or "No preference between graded items" in str(error)
        return
    assert step.rows_in == len(parts.train) == sum(step.kept.values()) + sum(step.left_out.values())
    assert step.kept["users with preferences"] == len({row["cluster"] for row in rows})
    assert len({row["id"] for row in rows}) == len(rows)
    feedback = data.feedback
    assert feedback is not None
    for row in rows:
        user = data.users.index(row["cluster"])
        trained = parts.train[parts.train_users.index(row["cluster"])].tolist()
        higher, lower = map(int, row["id"].partition("/")[2].split(">"))
        own = feedback[data.items.offsets[user] :][: len(trained)]
        names = [data.catalogue.names[item - 1] for item in trained]
        told = json.loads(row["prompt"])
        assert told == {"user": row["cluster"], "history": names[: min(higher, lower)]} and told["history"]
        assert (row["chosen"], row["rejected"]) == (f"item {names[higher]}", f"item {names[lower]}")
        assert row["chosen_rating"] == own[higher] > own[lower] == row["rejected_rating"]
        assert names[higher] != names[lower]
        between = own[min(higher, lower) + 1 : max(higher, lower)]
        assert every or not any(
            grade < own[higher] and names[min(higher, lower) + 1 + place] != names[higher]
            for place, grade in enumerate(between)
        )


def test_all_pairs_by_hand() -> None:
    data = events([[(1, 1.0), (2, 3.0), (3, 2.0), (4, 1.0), (5, 1.0)], *[[(1, 1.0), (2, 1.0), (3, 1.0)]] * 2])
    rows, step = graded_rows(data, leave_one_out(data), pairs="all")
    assert [row["id"] for row in rows] == ["u0/1>2", "u0/1>3", "u0/2>3"]  # not 1>0: no history
    nearest, _ = graded_rows(data, leave_one_out(data))
    assert [row["id"] for row in nearest] == ["u0/1>2", "u0/2>3"]
    assert step.arithmetic == ("3 in = 1 users with preferences + 2 left out (no two items of different grades: 2)")


@given(users=USERS)
@settings(max_examples=15, deadline=None)
def test_edges_join_preferences_of_one_user(users: list[list[tuple[int, float]]]) -> None:
    data = events(users)
    try:
        rows, _ = graded_rows(data, leave_one_out(data), pairs="all")
    except DataError:
        return
    edges = edges_within_users(rows).table.to_pydict()
    of = {row["id"]: (row["cluster"], row["chosen_rating"] - row["rejected_rating"]) for row in rows}
    assert edges["stronger"] == [row["id"] for row in rows]
    for stronger, weaker in zip(edges["stronger"], edges["weaker"], strict=True):
        smaller = [name for name, (user, gap) in of.items() if user == of[stronger][0] and gap < of[stronger][1]]
        assert weaker in smaller if smaller else weaker is None


def test_what_cannot_be_used_is_named() -> None:
    data = events([[(1, 1.0), (2, 3.0), (3, 2.0), (4, 1.0)]] * 2)
    parts = leave_one_out(data)
    with pytest.raises(ConfigError, match="Write 'nearest' or 'all'"):
        graded_rows(data, parts, pairs="near")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="have no feedback"):
        graded_rows(Sequences.of([[1, 2, 3]]), parts)
    with pytest.raises(DataError, match=r"user 'u0' has other items"):
        graded_rows(events([[(2, 1.0), (1, 3.0), (3, 2.0), (4, 1.0)]] * 2), parts)
    with pytest.raises(DataError, match="No preference between graded items"):
        same = events([[(1, 1.0), (2, 1.0), (3, 1.0), (4, float("nan"))]] * 2)
        graded_rows(same, leave_one_out(same))
    np.testing.assert_equal(events([[(1, float("nan")), (2, 1.0), (3, 1.0)]]).feedback[0], np.nan)
