"""Labels from ratings and from a reward."""

import itertools
import math
from pathlib import Path

import pytest

from popmargin.data.conversation import Text
from popmargin.data.load import load_preferences
from popmargin.data.questions import PreferenceText
from popmargin.errors import DataError
from popmargin.judges.labeller import Account, Question
from popmargin.label.labellers.labelling import label_pairs
from popmargin.label.labellers.load import load_labeller
from popmargin.label.labellers.numeric import RatingLabeller


def texts(name: str, prompt: Text, chosen: Text, rejected: Text) -> PreferenceText:
    return PreferenceText(id=name, prompt=prompt, chosen=chosen, rejected=rejected)


A, B, C, D = (texts(name, "p", chosen, "no") for name, chosen in zip("abcd", ("aei", "ae", "aei", "x"), strict=True))


def test_ratings_label_by_strength_and_count_what_has_none() -> None:
    labeller, account = RatingLabeller({"a": 2.0, "b": 1.0, "c": 2.0, "d": math.nan}), Account()
    questions = [Question("pop", A, B), Question("pop", B, A), Question("pop", A, C), Question("pop", A, D)]
    verdicts = [opinion.verdict for opinion in labeller.label([*questions, Question("preference", B)], account)]
    assert verdicts == ["first", "second", "tie", "unsure", "first"]
    assert (account.questions, account.labels, account.unsure) == (5, 4, 1)
    assert str(account) == "5 questions = 4 labels + 1 unsure"


def test_ratings_come_from_the_data(data_path: str) -> None:
    preferences = load_preferences(data_path)
    strengths = dict(zip(preferences.ids, preferences.strength.tolist(), strict=True))
    rows = preferences.dataset.to_list()
    rated = [texts(row["id"], row["prompt"], row["chosen"], row["rejected"]) for row in rows]
    edges = label_pairs(load_labeller("ratings", strengths=strengths), list(itertools.pairwise(rated)))
    assert all(strengths[row["stronger"]] >= strengths[row["weaker"]] for row in edges.table.to_pylist())
    assert set(edges.table["source"].to_pylist()) == {"ratings"} and len(edges) == len(rows) - 1
    with pytest.raises(DataError, match="No preference has ratings"):
        load_labeller("ratings")


def test_a_reward_labels_by_gaps_and_scores_each_preference_once(reward_path: str) -> None:
    """Shares of vowels: a, c 1 − ½, b 1 − ½, d 0 − ½; "no" has one vowel of two letters."""
    labeller, account = load_labeller(f"reward:{reward_path}"), Account()
    edges = label_pairs(labeller, [(D, A), (A, C)], account)
    assert edges.table["stronger"].to_pylist() == ["a", "a"] and edges.table["tie"].to_pylist() == [False, True]
    assert labeller.label([Question("preference", D)], account)[0].verdict == "second"
    assert (account.asked, account.cached) == (6, 2)
    assert Path(labeller.name).name == "rewards.py:vowels" and labeller.kind == "reward"
    chat = texts(
        "m",
        *([{"role": role, "content": text}] for role, text in zip(["user", *["assistant"] * 2], "qab", strict=True)),
    )
    assert labeller.label([Question("pop", chat, D)], account)[0].verdict == "first"
