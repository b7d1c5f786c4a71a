"""Verdicts and ratings in what judges write."""

import re

import pytest
from verdict_corpus import CORPUS, NUMBERED

from popmargin.judges.comparing import parse_letter
from popmargin.judges.read_rating import parse_rating
from popmargin.judges.read_verdict import read_verdict


def test_the_corpus_holds_each_answer_once() -> None:
    assert len({text for text, _ in CORPUS}) == len(CORPUS) > 300
    assert {place for _, place in CORPUS} == {"A", "B", "=", "?"}


@pytest.mark.parametrize(("text", "place"), CORPUS)
def test_verdicts_in_answers(text: str, place: str) -> None:
    """The place, and where a letter says it: the letter of that place stands there."""
    found = read_verdict(text)
    assert parse_letter(text) == place
    if found is not None and found.start is not None:
        assert text[found.start].upper() in (place, {"A": "Ａ", "B": "Ｂ"}[place])


@pytest.mark.parametrize(("text", "place"), [(text, place) for text, place in CORPUS if place in "AB?="][::7])
def test_reasoning_in_front_changes_no_verdict(text: str, place: str) -> None:
    for start in ("<think>\nA is better. [[B]] It is a tie.\n</think>\n\n", " \n\n\n"):
        assert parse_letter(start + text) == place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        row
        for row in CORPUS
        if row[1] in "AB" and not re.search(r"(\b|_)[abＡ]\b|A (careful|good|clear)|\btwo\b", row[0])
    ],
)
def test_the_other_letter_is_read_alike(text: str, place: str) -> None:
    swaps = [("A", "B"), ("1", "2"), ("first", "second"), ("First", "Second"), ("1st", "2nd")]
    other = dict([*swaps, *(pair[::-1] for pair in swaps)])
    if (text, place) in NUMBERED:
        swapped = re.sub(r"1st|2nd|[12]|[Ff]irst|[Ss]econd", lambda f: other[f[0]], text)
    else:
        swapped = re.sub(r"\b[AB]\b", lambda found: other[found[0]], text)
    assert parse_letter(swapped) == {"A": "B", "B": "A"}[place]


@pytest.mark.parametrize(
    "part",
    [
        "(",
        " ",
        "\n",
        "' ",
        "A ",
        "A, is ",
        "the answer to the ",
        "[[",
        "A > ",
        "<answer>",
        "-A",
        "first ",
        "response #",
        "of the two ",
    ],
)
def test_long_answers_of_nothing_are_read(part: str) -> None:
    assert parse_letter(part * 3000) == "?"


@pytest.mark.parametrize(
    ("answer", "rating"),
    [
        ("Rating (1-10): 7", 7.0),
        ("Rating: [[5]]", 5.0),
        ("[[5]]", 5.0),
        ("\\boxed{7}", 7.0),
        ('{"rating": 7}', 7.0),
        ('{"score": 8.5, "reason": "3 facts"}', 8.5),
        ("<rating>7</rating>", 7.0),
        ("My rating is 7.", 7.0),
        ("I'd rate it 8.", 8.0),
        ("I give this a 6 out of 10.", 6.0),
        ("On a scale from 1 to 10, I rate it 6.", 6.0),
        ("Rating:\n\n8", 8.0),
        ("Final rating: **9/10**", 9.0),
        ("Rating: 7, because it has 2 errors.", 7.0),
        ("<think>Rating: 3</think>9", 9.0),
        ("Rating: 3. On reflection: Rating: 4", 4.0),
        ("<think>Rating: 3", None),
        ("Rating: -5", None),
        ("Rating: 3/5", None),
        ("Rating: 7/100", None),
        ("7-8", None),
        ("Is it a 7?", None),
        ("The rating should be from 1 to 10.", None),
        ("Step 1: read. Step 2: rate.", None),
        ("2024", None),
    ],
)
def test_ratings_in_answers(answer: str, rating: float | None) -> None:
    assert parse_rating(answer) == rating
