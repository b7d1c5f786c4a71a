"""The demo's gold reward: VADER's compound sentiment of a text."""

from functools import cache

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer  # pyright: ignore[reportMissingTypeStubs]


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    return SentimentIntensityAnalyzer()


def sentiment(completion: str) -> float:
    """VADER's compound score of one text, in [-1, 1] reward units (Hutto & Gilbert 2014)."""
    return float(_analyzer().polarity_scores(completion)["compound"])  # pyright: ignore[reportUnknownMemberType]


def sentiment_reward(prompts: list[object], completions: list[str]) -> list[float]:
    """The gold reward as evaluation wants it: sentiment of every completion, whatever its prompt."""
    return [sentiment(completion) for completion in completions]
