"""Sides that a judge numbers ("Response 2", "the first one", `{"better": "second"}`), as the letters A and B."""

import re

NOUN = (
    r"(?:option|response|answer|assistant|model|output|candidate|system|text|completion|reply|summary|choice|comparison|"
    r"pair|preference|argument|solution|translation|essay|story|version|side|chatbot|agent|letter|item|case|number|one)"
)
"""A judge's words for a side."""
AFTER_LETTER = (
    r"to|is|was|are|isn't|has|wins|won|beats|because|since|as|for|by|over|due|in|on|with|and|but|or|rather|instead|than|"
    r"given|it|this|which|here|overall|please|simply|again|provides|gives|offers|does|performs|answers|serves|shows|seems|"
    r"appears|looks|feels|remains|outperforms|surpasses|exceeds|prevails|dominates|edges|tops|trumps|loses|gets|takes|comes"
)
"""Words that may follow a side's letter, but not an article."""

_ENDS = rf"(?=\s*(?:$|[^\w\s.,/%–-]|[.,](?!\d)|[–-](?!\s*\d)|\b(?:{AFTER_LETTER})\b))"
_NUMBER = r"(?:[12]|one|two|first|second|1st|2nd)"
_SIDE = re.compile(
    rf"\b(?P<ordinal>first|second|1st|2nd)\s+(?:(?:AI|given|provided|proposed|possible|assistant's|model's)\s+)?"
    rf"(?:of\s+the\s+(?:two\s+)?{NOUN}s|(?P<noun>{NOUN}))\b"
    rf"|\b(?P<before>{NOUN})\s*(?:number\s+|no\.\s*|#\s*|[(\[]\s*)?(?:(?P<digit>[12])(?![\w]|[.,]\d|\s*(?:/|%|out\b|points?\b|stars?\b))"
    rf"|(?P<word>one|two){_ENDS})"
    r"|(?:^|[\n.])[^\w\n]*(?P<first>[12])(?=\s+(?:is|wins|beats)\b)"
    rf"|\b(?:choose|chose|pick|select|prefer|than)\s+(?P<chosen>{_NUMBER}){_ENDS}"
    rf"|\bthe\s+(?P<the>{_NUMBER}){_ENDS}"
    rf"|\[\[\s*(?P<marked>{_NUMBER}){_ENDS}",
    re.IGNORECASE,
)
_KEYED = re.compile(
    r"\b(?:winner|preferred|preference|choice|chosen|better|best|verdict|pick|decision|selection|selected|vote|judge?ment|"
    rf"ruling|rejected|worse|worst|loser)\b(?:\s+(?:{NOUN}|index|id))?\s*(?::|=|->|→|>|\bis\b)\s*[(\['#]*\s*(?P<value>{_NUMBER}){_ENDS}",
    re.IGNORECASE,
)
_WHOLE = re.compile(
    rf"\W*(?:(?:my|the|final|overall|correct|boxed|answer)\W+)*(?:is\W+)?(?P<value>{_NUMBER}){_ENDS}\W*(?:/\s*answer\W*)?",
    re.IGNORECASE,
)
_MORE = re.compile(rf"\b{NOUN}\s*(?:number\s+|#\s*)?(?:0|[3-9])\b", re.IGNORECASE)
_LETTER = re.compile(rf"\bB\b|\bA\b(?!\s+(?!(?:{AFTER_LETTER})\b)[A-Za-z])")


def in_letters(text: str) -> str | None:
    """The text at its original length, with numbered sides as A and B; None if it also names letters, if numbers do not
    start at 1 or go beyond 2, or if no side has a number.

    Example:
        >>> in_letters("Response 2 is better."), in_letters("The second response")
        ('Response B is better.', 'The      response B')
        >>> in_letters("A is better than response 2"), in_letters("Response 1 beats response 0")
        (None, None)
    """
    if _LETTER.search(text) or _MORE.search(text):
        return None
    whole = _WHOLE.fullmatch(text)
    if whole is not None:
        return _put(text, whole, "value")
    lettered = text
    for pattern in (_SIDE, _KEYED):
        for found in list(pattern.finditer(lettered)):
            group = found.lastgroup if found.lastgroup != "noun" else "ordinal"
            lettered = _put(lettered, found, group or "")
    return lettered if lettered != text else None


def _put(text: str, found: re.Match[str], group: str) -> str:
    """The text with the letter in place of the number, after its noun if the number came before it."""
    letter = "A" if found[group].lower() in ("1", "one", "first", "1st") else "B"
    if group == "ordinal":
        names = found.groupdict().get("noun")
        said, (start, end) = f"{names} {letter}" if names else letter, found.span()
    elif group in ("digit", "word") and not re.fullmatch(r"\W{1,3}", text[found.end("before") : found.start(group)]):
        said, (start, end) = f"{found['before']} {letter}", found.span()
        said = said if len(said) <= end - start else letter
    else:
        said, (start, end) = letter, found.span(group)
    return text[:start] + said.rjust(end - start) + text[end:]
