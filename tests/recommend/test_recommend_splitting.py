"""Splits: who lands where, and that nothing later than a target is known."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popmargin.errors import ConfigError, DataError
from popmargin.recommend.item_sequences import Sequences
from popmargin.recommend.read_sequences import load_sequences
from popmargin.recommend.splitting import Cases, Parts, leave_one_out, split_by_time, split_by_user


def lists(parts: Parts) -> tuple[list[list[int]], list[list[int]]]:
    return [each.tolist() for each in parts.train], [each.tolist() for each in parts.known]  # type: ignore[attr-defined]


def cases(found: Cases) -> list[tuple[str, list[int], int]]:
    return [
        (user, found.histories[place].tolist(), int(found.targets[place])) for place, user in enumerate(found.users)
    ]


def test_as_published() -> None:
    data = Sequences.of([[1, 2, 3], [2, 3], [3, 1, 2], [1]], splits=["train", "valid", "test", "test"])
    parts = split_by_user(data)
    train, known = lists(parts)
    assert train == [[1, 2, 3]] and known == [[1, 2, 3], [2, 3], [3, 1]]
    assert cases(parts.valid) == [("1", [2], 3)] and cases(parts.test) == [("2", [3, 1], 2)]
    assert parts.account[0].arithmetic == (
        "4 in = 1 training users + 1 validation users + 1 test users + 1 left out (no history before the target: 1)"
    )


def test_shuffled_by_the_seed() -> None:
    """The cut of the published files: 22,363 users are 17,890, 2,236 and 2,237."""
    data = Sequences.of([[1, 2]] * 223)
    parts = [split_by_user(data, seed=seed) for seed in (0, 0, 1)]
    assert [(len(each.train), len(each.valid), len(each.test)) for each in parts] == [(178, 22, 23)] * 3
    assert parts[0].test.users == parts[1].test.users != parts[2].test.users
    assert not set(parts[0].test.users) & set(parts[0].valid.users)
    with pytest.raises(ConfigError, match="shares are"):
        split_by_user(data, shares=(0.8, 0.1, 0.2))
    with pytest.raises(DataError, match=r"The validation part is empty \(3 in = 2 training users"):
        split_by_user(Sequences.of([[1, 2]] * 3))


def test_leave_one_out() -> None:
    parts = leave_one_out(Sequences.of([[1, 2, 3, 4], [4, 1], [2, 1, 4]]))
    train, known = lists(parts)
    assert train == [[1, 2], [4, 1], [2]] and known == [[1, 2, 3], [4, 1], [2, 1]]
    assert cases(parts.valid) == [("0", [1, 2], 3), ("2", [2], 1)]
    assert cases(parts.test) == [("0", [1, 2, 3], 4), ("2", [2, 1], 4)]
    assert parts.account[0].arithmetic == "3 in = 2 users with both targets + 1 training users alone"
    with pytest.raises(DataError, match="validation part is empty"):
        leave_one_out(Sequences.of([[1, 2]]))


EVENTS = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 6), st.integers(0, 30)), min_size=12, max_size=40)


@given(EVENTS)
@settings(max_examples=20)
def test_nothing_later_than_a_target_is_known(events: list[tuple[str, int, int]]) -> None:
    data = load_sequences([dict(zip(("user", "item", "time"), event, strict=True)) for event in events])
    times = {user: data.times[data.items.offsets[place] : data.items.offsets[place + 1]]  # type: ignore[index]
             for place, user in enumerate(data.users)}  # fmt: skip
    try:
        parts = split_by_time(data, shares=(0.5, 0.25, 0.25))
    except DataError as error:
        assert "part is empty" in str(error)
        return
    trained = sum(len(each) for each in lists(parts)[0])
    cut = np.sort(data.times)[trained]  # type: ignore[arg-type]
    for found in (parts.valid, parts.test):
        for user, history, _ in cases(found):
            own = times[user]
            assert own[len(history)] >= cut and own[len(history) - 1] < own[len(history)]
    assert sum(parts.account[0].kept.values()) == len(data.items.values)
    assert Counter(parts.train.values.tolist()) <= Counter(data.items.values[data.times < cut].tolist())  # type: ignore[operator]


def test_by_time_says_what_is_new() -> None:
    events = [("a", 1, 1), ("a", 2, 2), ("b", 2, 3), ("b", 1, 7), ("a", 1, 8), ("b", 9, 9), ("c", 1, 10)]
    data = load_sequences([dict(zip(("user", "item", "time"), event, strict=True)) for event in events])
    parts = split_by_time(data, shares=(0.5, 0.2, 0.3))
    assert cases(parts.valid) == [("b", [2], 1)]
    assert cases(parts.test) == [("a", [1, 2], 1), ("b", [2, 1], 3)]  # item 9 is number 3
    assert parts.account[0].notes == (
        "validation: 1 active user, 1 with a history; 0 targets not in training",
        "test: 3 active users, 2 with a history; 1 target not in training",
    )
    with pytest.raises(DataError, match="The data have no times"):
        split_by_time(Sequences.of([[1, 2]]))
