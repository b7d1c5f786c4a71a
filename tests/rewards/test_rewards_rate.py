"""Ratings by a reward: what is asked, what is written, and what happens where it disagrees with a label."""

from pathlib import Path
from typing import Any

import pytest

from popmargin.data.load import load_preferences
from popmargin.data.schema import Preferences
from popmargin.errors import DataError
from popmargin.rewards.load import load_reward
from popmargin.rewards.rate import rate_preferences, response_ratings


def length(prompts: list[Any], completions: list[str]) -> list[float]:
    return [float(len(text)) for text in completions]


LENGTH = load_reward(length)


@pytest.fixture
def preferences() -> Preferences:
    return load_preferences(
        [
            {"id": "long", "prompt": "a", "chosen": "xxx", "rejected": "x", "strength": 9.0, "soft_label": 0.7},
            {"id": "short", "prompt": "b", "chosen": "x", "rejected": "xxx", "chosen_rating": 5, "rejected_rating": 1,
             "soft_label": 0.9},
            {"id": "equal", "prompt": "c", "chosen": "xy", "rejected": "yx"},
        ]
    )  # fmt: skip


def test_a_disagreement_needs_an_answer(preferences: Preferences) -> None:
    assert response_ratings(preferences, LENGTH).gap.tolist() == [2, -2, 0]
    with pytest.raises(DataError, match=r"in 1 of 3 preferences \(first: 'short'\).*`equal`.*`swap`.*`drop`"):
        rate_preferences(preferences, LENGTH)


def test_equal(preferences: Preferences) -> None:
    rated = rate_preferences(preferences, LENGTH, disagree="equal")
    assert rated.strength.tolist() == [2, 0, 0]  # the data's own strength of 9 gave way
    assert rated[1]["chosen"] == "x" and rated[1]["chosen_rating"] == rated[1]["rejected_rating"] == 2
    assert rated.soft_label.tolist()[:2] == [0.7, 0.9] and rated.ids == preferences.ids


def test_swap(preferences: Preferences, tmp_path: Path) -> None:
    rated = rate_preferences(preferences, LENGTH, disagree="swap")
    assert rated.strength.tolist() == [2, 2, 0] and rated[1]["chosen"] == "xxx" and rated[1]["chosen_rating"] == 3
    assert rated[0]["soft_label"] == 0.7 and rated[1]["soft_label"] is None  # 0.9 said the opposite
    assert preferences[1]["chosen"] == "x"
    rated.save(tmp_path / "rated.jsonl")
    assert load_preferences(tmp_path / "rated.jsonl").fingerprint() == rated.fingerprint()


def test_drop(preferences: Preferences, tmp_path: Path) -> None:
    rated = rate_preferences(preferences, LENGTH, disagree="drop")
    assert rated.ids == ["long", "equal"]
    rated.save(tmp_path / "rated.parquet")
    assert load_preferences(tmp_path / "rated.parquet").strength.tolist() == [2, 0]
    with pytest.raises(DataError, match="disagrees with every label"):
        rate_preferences(preferences.select([1]), LENGTH, disagree="drop")


def test_what_a_reward_is_asked_of_conversations() -> None:
    asked: list[tuple[Any, str]] = []

    def note(prompts: list[Any], completions: list[str]) -> list[float]:
        asked.extend(zip(prompts, completions, strict=True))
        return [0.0] * len(prompts)

    def turn(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    ask, begun = turn("user", "Hi"), turn("assistant", "He")
    several = [turn("assistant", "llo"), turn("user", "So?"), turn("assistant", "Well.")]
    data = [
        {"prompt": [ask], "chosen": [turn("assistant", "Hello")], "rejected": several},
        {"prompt": [ask, begun], "chosen": [turn("assistant", "llo")], "rejected": several},
    ]
    response_ratings(load_preferences(data), load_reward(note))
    assert asked == [
        ([ask], "Hello"),
        ([ask, begun], "llo"),
        ([ask, *several[:2]], "Well."),
        ([ask, turn("assistant", "Hello"), several[1]], "Well."),
    ]


def test_a_completion_that_ends_with_the_user_cannot_be_scored() -> None:
    row = {
        "id": "odd",
        "prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "assistant", "content": "a"}],
        "rejected": [{"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
    }
    with pytest.raises(DataError, match="preference 'odd' ends with a 'user' turn"):
        response_ratings(load_preferences([row]), LENGTH)
