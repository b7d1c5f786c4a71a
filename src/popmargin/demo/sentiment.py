"""The demo's gold reward: VADER's compound sentiment of a text."""

from functools import cache
from typing import Any

from popmargin.errors import import_extra


@cache
def _analyzer() -> Any:
    return import_extra("vaderSentiment.vaderSentiment", "demo").SentimentIntensityAnalyzer()


def sentiment(completion: str) -> float:
    """VADER's compound score of one text, in [-1, 1] reward units (Hutto & Gilbert 2014).

    Raises:
        MissingExtraError: vaderSentiment is not installed.
    """
    return float(_analyzer().polarity_scores(completion)["compound"])


def sentiment_reward(prompts: list[object], completions: list[str]) -> list[float]:
    """The gold reward for evaluation: sentiment of every completion, regardless of its prompt."""
    return [sentiment(completion) for completion in completions]
