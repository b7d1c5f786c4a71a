"""Words for answers, as people and tools write them, and the verdict that each means."""

from collections.abc import Mapping
from typing import Any

from popmargin.data.formats.winner import side_of_word
from popmargin.data.questions import RATINGS, VERDICTS, Kind, Verdict, verdicts_of
from popmargin.errors import ConfigError, did_you_mean

_UNSURE = ("unsure", "cant tell", "can't tell", "cannot tell", "not sure", "dont know", "don't know", "skip")
_OWN = {"chosen": "first", "rejected": "second", "about equal": "tie", "wrong": "wrong"}
_BOTH_BAD = ("both bad", "bothbad", "both are bad", "tie both bad", "tie (bothbad)")
_SIDES: dict[float, Verdict] = {0.0: "first", 0.5: "tie", 1.0: "second"}


def verdict_of(value: Any, kind: Kind, scale: int | None, answers: Mapping[str, str]) -> Verdict | None:
    """The verdict that a value means for items of this kind; None if it is unknown.

    Args:
        value: a word or a number.
        kind: what was asked.
        scale: the highest rating.
        answers: the caller's own words, as of `check_answers`.

    Example:
        >>> [verdict_of(word, "preference", None, {"oui": "first"}) for word in ("Response B", 1, "oui", "=", 7)]
        ['second', 'first', 'first', None, None]
        >>> [verdict_of(word, "rating", 5, {}) for word in (4.0, "5", 6, "a")]
        ['4', '5', None, None]
    """
    if isinstance(value, bool) or value is None:
        return None
    whole = isinstance(value, float) and value.is_integer()
    word = str(int(value) if whole else value).strip()
    if word in answers:
        return next(verdict for verdict in VERDICTS if verdict == answers[word])
    plain = " ".join(word.lower().replace("_", " ").replace("-", " ").split())
    if plain in _UNSURE:
        return "unsure"
    if kind == "rating":
        return next((number for number in RATINGS[:scale] if number == plain.removesuffix(".0")), None)
    if kind == "preference" and plain in _BOTH_BAD:
        return "both_bad"
    if plain in _OWN:
        return next(verdict for verdict in VERDICTS if verdict == _OWN[plain])
    share = side_of_word(plain.removeprefix("pair ") if kind == "pop" else plain)
    return None if share is None else _SIDES[share]


def check_answers(answers: Mapping[str, str], kind: Kind, scale: int | None) -> None:
    """Raise a ConfigError if a word is said to mean something that is no answer to items of this kind."""
    known = verdicts_of(kind, scale)
    for word, verdict in answers.items():
        if verdict not in known:
            raise ConfigError(f"--answer {word}={verdict}: '{verdict}' is no answer. {did_you_mean(verdict, known)}")
