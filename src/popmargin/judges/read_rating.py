"""Ratings from 1 to 10 in a judge's words."""

import re

from popmargin.judges.final_answer import SENTENCE, blank, final_answer, plain_signs, without_runs

_NUMBER = r"(?P<number>(?<![\w.,-])-?\d+(?:\.\d+)?)(?!\w|[.,]\d)(?P<scale>\s*(?:/|out\s+of)\s*\d+)?"
_RANGE = re.compile(r"\d+\s*(?:[-–—…]|\.\.+|to|or|and)\s*(?:an?\s+)?\d+(?!\s*/)", re.IGNORECASE)
_GAP = r"(?:[ \t']+[a-z'-]+){0,6}?[ \t']*(?:\([^)\n]*\))?"
_RATINGS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b(?:rating|score|grade|mark|verdict|answer|overall|final|result)\b{_GAP}\s*(?::|=|>|\bis\b|\bof\b|\bwould\s+be\b|\s-\s|\s)[\s:\[('<]*(?:(?:an?|about)\s+)?{_NUMBER}",
        rf"\b(?:rate|give|score|grade|assign|award)\b[^\d\n.;]{{0,60}}?\b(?:an?\s+|at\s+|as\s+|with\s+)?{_NUMBER}",
        rf"(?:\[\[|\\boxed)\s*{_NUMBER}",
        r"(?P<number>(?<![\w.,-])-?\d+(?:\.\d+)?)(?P<scale>\s*(?:/|out\s+of)\s*10)(?!\d)",
    )
)
_BARE_RATING = re.compile(rf"\W*{_NUMBER}\W*")


def parse_rating(text: str) -> float | None:
    """The rating from 1 to 10 in a judge's answer: a bare number, or the last one called a rating; otherwise None.

    Two different ones in a sentence, numbers outside 1 … 10 and those on another scale ("3/5") do not count.

    Example:
        >>> parse_rating("Rating: 7"), parse_rating("8/10."), parse_rating("I like it. 3 reasons."), parse_rating("11")
        (7.0, 8.0, None, None)
    """
    short, _ = without_runs(final_answer(text))
    short = _RANGE.sub(blank, plain_signs(short))
    bare = _BARE_RATING.fullmatch(short)
    if bare:
        return _rating(bare)
    last: set[float | None] = {None}
    for sentence in SENTENCE.finditer(short):
        found = {_rating(one) for pattern in _RATINGS for one in pattern.finditer(sentence[0])}
        if found and not sentence[0].rstrip().endswith("?"):
            last = found
    return last.pop() if len(last) == 1 else None


def _rating(found: re.Match[str]) -> float | None:
    scale = found["scale"]
    number = float(found["number"])
    return number if 1 <= number <= 10 and (scale is None or re.search(r"\d+", scale)[0] == "10") else None  # pyright: ignore
