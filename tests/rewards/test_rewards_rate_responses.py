"""Scores of responses: under a name, in order, and missing where the reward has none."""

import math
from typing import Any

import numpy as np
import pytest

from popmargin.data.responses import Responses
from popmargin.errors import DataError, RunError
from popmargin.rewards.rate_responses import rate_responses

ASK = [{"role": "user", "content": "Hi"}]
RESPONSES = Responses(["a", "b"], [["x", "xx", ""], ["xxx"]], {"old": [1, 2, 3, 4]}, finished=True)


def test_every_response_gets_a_score_in_order() -> None:
    def length(prompts: list[str], completions: list[str]) -> list[int]:
        return [len(prompt + text) for prompt, text in zip(prompts, completions, strict=True)]

    rated = rate_responses(RESPONSES, length, name="length")
    assert rated.responses.score("length").tolist() == [2, 3, 1, 4] and rated.missing == 0
    assert rated.responses.score_names == ("old", "length") and rated.responses.field("finished") == [True] * 4


@pytest.mark.parametrize("none", [None, math.nan])
def test_what_has_no_score_stays_without_and_makes_no_pair(none: Any) -> None:
    rated = rate_responses(RESPONSES, lambda prompts, completions: [len(c) or none for c in completions], name="s")
    np.testing.assert_array_equal(rated.responses.score("s"), [1, 2, math.nan, 3])
    assert rated.missing == 1
    (pair,) = rated.responses.pairs("best_vs_worst", by="s")
    assert (pair["chosen"], pair["rejected"]) == ("xx", "x")


def test_conversations_are_asked_as_preferences_are() -> None:
    asked: list[Any] = []

    def note(prompts: list[Any], completions: list[str]) -> list[float]:
        asked.extend(zip(prompts, completions, strict=True))
        return [0.0] * len(prompts)

    turn = {"role": "assistant", "content": "Hello"}
    rate_responses(Responses([ASK], [["Hello"]]), note, name="s")
    rate_responses(Responses([ASK], [[[turn]]]), note, name="s")
    assert asked == [(ASK, "Hello")] * 2


def test_many_responses_are_asked_in_batches() -> None:
    sizes: list[int] = []

    def count(prompts: list[Any], completions: list[str]) -> list[float]:
        sizes.append(len(prompts))
        return [float(text) for text in completions]

    many = Responses(["p"], [[str(i) for i in range(600)]])
    assert rate_responses(many, count, name="s").responses.score("s").tolist() == list(range(600))
    assert sizes == [256, 256, 88]


@pytest.mark.parametrize(
    ("reward", "name", "error", "words"),
    [
        (lambda prompts, completions: [None] * len(prompts), "s", DataError, "None of 4 responses got a score"),
        (lambda prompts, completions: [math.inf] * len(prompts), "s", RunError, "returned inf for completion 0"),
        (lambda prompts, completions: [1.0], "s", RunError, "return one number each"),
        (lambda prompts, completions: ["good"] * len(prompts), "s", RunError, "not numbers"),
        (lambda prompts, completions: [1.0] * len(prompts), "old", DataError, "have 'old' already.*--name"),
        (lambda prompts, completions: [1.0] * len(prompts), "finished", DataError, "have 'finished' already"),
    ],
)
def test_mistakes_are_answered_in_words(reward: Any, name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        rate_responses(RESPONSES, reward, name=name)
