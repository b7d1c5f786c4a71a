"""Reading a judge's verdict: which of A and B it finally names, and where; shared by all judges that compare.

A judge is asked for one letter and often writes more. `read_verdict` looks for what people and models say when they
decide ("The answer is A", "B wins", "[[A]]", "A > B", "It is a tie"), ignores anything else (reasoning in a think
block, questions, conditions, negations, "A" as an article, "A or B", "better at style"), and takes the last one. An
unclear answer has no verdict: callers count it and never guess.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from popmargin.judges.final_answer import SENTENCE, blank, final_answer, plain_signs, without_runs
from popmargin.judges.numbered import AFTER_LETTER, NOUN, in_letters

Place = Literal["A", "B", "="]

_OTHER: dict[str, Place] = {"A": "B", "B": "A"}


@dataclass(frozen=True)
class Verdict:
    """A judge's decision.

    Attributes:
        place: the side it names, "=" for a tie.
        start: position of the letter in the text; None if there is no letter ("a tie", "A is worse",
            "Response 2").
    """

    place: Place
    start: int | None


def read_verdict(text: str) -> Verdict | None:
    """The last clear verdict in a judge's answer; None if there is none.

    Example:
        >>> read_verdict("The answer is **B**."), read_verdict("It is a tie")
        (Verdict(place='B', start=16), Verdict(place='=', start=None))
        >>> read_verdict("A careful reading shows that neither is wrong."), read_verdict("A or B")
        (None, None)
    """
    short, places = without_runs(final_answer(text))
    signs = plain_signs(short)
    best = _decision(_plain(signs))
    if best is not None:
        return Verdict(best.place, None if best.start is None else places[best.start])
    numbered = in_letters(signs)
    best = None if numbered is None else _decision(_plain(numbered))
    return None if best is None else Verdict(best.place, None)


def _decision(plain: str) -> "_Found | None":
    """The last clear verdict in a text of plain characters."""
    best: _Found | None = None
    for clause in _clauses(plain):
        found = list(_without_negated(clause, _find(clause, plain)))
        if len({one.place for one in found}) == 1:  # two different ones in a clause are not clear
            last = max(found, key=lambda one: one.end)
            if best is None or (clause.weight, last.end) >= (best.weight, best.end):
                best = last
    return best


# Positions stay the same: meaningless symbols and words become blanks.

_EITHER = r"[^\w\n.;!?]*(?:\b(?:or|and|nor|vs\.?|versus|against)\b|/|&)[^\w\n.;!?]*"
_LISTED = re.compile(
    rf"\b(?:(A){_EITHER}(?i:the\s+)?(?i:{NOUN}\s+)?\W?B|B{_EITHER}(?i:the\s+)?(?i:{NOUN}\s+)?\W?A|a{_EITHER}b|b{_EITHER}a)(?![\w'])"
)
_BESIDE = re.compile(
    r"\b(?:no|without(?: a| any)?|beyond(?: a| any)?) (?:doubt|question)\b|\bnot only\b|\bhands down\b|"
    rf"(?:,|\band)\s*not\s+(?:{NOUN}\s+)?[AB]\b,?|"
    r"\b(?:plan|vitamin|hepatitis|type|grade|part|section|appendix|figure|table|step|class|group|exhibit)\s+[AB]\b",
    re.IGNORECASE,
)


def _plain(signs: str) -> str:
    return _BESIDE.sub(blank, _LISTED.sub(blank, signs))


@dataclass(frozen=True)
class _Clause:
    """A part of a sentence that may hold a verdict; concessions ("although …") count less than the rest."""

    text: str  # padded to keep positions in the whole text
    start: int
    weight: int


_CONTRAST = re.compile(r"\b(?:but|yet|nevertheless|nonetheless)\b", re.IGNORECASE)
_ASIDE = re.compile(
    r"\b(?:(?P<conceded>(?:even )?though|although|while|whereas|despite)|because|since|"
    r"(?:even )?if|unless|whether|when|suppose|assuming)\b(?P<rest>[^,\n]*)",
    re.IGNORECASE,
)
_CONDITION = re.compile(r"\b(?:if|unless|whether|assuming)\b", re.IGNORECASE)


def _clauses(text: str) -> Iterator[_Clause]:
    """The clauses of all sentences that are statements."""
    for sentence in SENTENCE.finditer(text):
        if sentence[0].rstrip().endswith("?"):
            continue
        start = sentence.start()
        for part in _split(sentence[0], _CONTRAST):
            begin, words = start + part[0], part[1]
            kept = words
            conditional = False
            for aside in _ASIDE.finditer(words):
                blank = " " * len(aside[0])
                kept = kept[: aside.start()] + blank + kept[aside.end() :]
                if aside["conceded"]:
                    yield _Clause(text[: begin + aside.start("rest")] + aside["rest"], begin + aside.start("rest"), 0)
                # "A is better if you like short answers" decides nothing; "If I must choose, A" does
                conditional |= bool(_CONDITION.match(aside[0])) and not words[aside.end() :].startswith(",")
            if not conditional:
                yield _Clause(text[:begin] + kept, begin, 1)


def _split(words: str, at: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    start = 0
    for found in at.finditer(words):
        yield start, words[start : found.start()]
        start = found.end()
    yield start, words[start:]


@dataclass(frozen=True)
class _Found:
    """A verdict in a clause: its start and end, and the position of its letter."""

    place: Place
    start: int | None
    begin: int
    end: int
    weight: int
    negates: bool = False


# Letters. A lone "a" or a sentence's first "A" may be an article: then it counts only where no noun can follow.
_LETTER = rf"(?P<letter>B|(?:A|a)(?!\s+(?!(?:{AFTER_LETTER})\b)[A-Za-z])|b)(?![\w+]|-(?!\s))"
_NAMED = rf"(?:(?:[Tt]he|to|in|with|of)\s+)*(?:(?i:{NOUN})\W{{1,3}}|['(\[<]{{0,2}}){_LETTER}"
_TIE = (
    r"(?:(?:a|an)\s+)?(?:tie|tied|draw|toss-?up|equal|equals|equally\s+good|the\s+same|same|even|neither|both)"
    r"(?=\s*(?:$|[^\w\s]))"
)
_VALUE = rf"['(\[<\s]*(?:{_NAMED}(?!'s)|(?P<tie>(?i:{_TIE})|C(?![\w'])|=(?=\W*$)))"

_WORD = r"(?:[A-Za-z'-]+\s+)"
_BETTER = (
    r"(?:better|best|superior|stronger|strongest|preferable|preferred|favou?red|winner|victor|larger|largest|bigger|"
    r"biggest|greater|greatest|wider|widest|more\s+(?:helpful|convincing|persuasive|suitable|appropriate|compelling))"
)
_WORSE = r"(?:worse|worst|inferior|weaker|weakest|loser|smaller|smallest|narrower|narrowest|less\s+helpful)"
# What may follow "better" in an overall verdict; "better at style" and "better structured" are partial ones.
_ALL = (
    r"(?=\s*(?:$|[^\w\s]|(?:than(?!\s+(?:I|expected|average|usual|most|nothing|before|ever)\b)|overall|because|as|here|"
    rf"by|and|to\s+(?:me|(?:(?:the\s+)?(?i:{NOUN})\s+)?[ABab])|choice|pick|one|of|all|job|fit|gap|margin|difference|quality|(?i:{NOUN})s?|"
    r"for\s+(?:this|me|the\s+user|the\s+request)|in\s+(?:every|all|general|total|my|both|most|this|comparison|quality|"
    r"the\s+(?:end|comparison))|on\s+(?:balance|the\s+whole|all|every))\b))(?!\W*(?:false|no)\b)"
)
_KEY = (
    r"(?:answer|ans|verdict|winner|loser|choice|pick|preference|preferred|decision|judge?ment|conclusion|selection|vote|"
    rf"result|outcome|ruling|chosen|rejected|one|final|overall|response|option|comparison|gap|edge|nod|point|win|{_BETTER}|{_WORSE})"
)
_LINK = (
    r"(?:\s*(?::|=>|->|→|=(?!=)|>)\s*|\s+[-–—]+\s+|\s*\b(?:is|was|would\s+be|should\s+be|must\s+be|has\s+to\s+be|remains|goes|"
    r"lies|belongs|are)\b\s*:?\s*)"
)
_IN_BETWEEN = r"(?:(?:clearly|definitely|probably|obviously|therefore|thus|likely|simply|just|still|that|found)\s+)*"
_ADVERBS = r"(?:\s*,[^,\n]*,)?(?:\s+(?:\w+ly|also|still|just|even|overall|here|thus|therefore|would|will))*\s+"

_COMPARED = re.compile(
    r"\b(?P<one>[AB])\b[\])'\s]*(?P<sign>>{1,3}|≻|≫|<{1,3}|≺|≪|={1,3}|≈|~|(?:equals|is\s+equal\s+to|ties\s+with|is\s+tied\s+"
    rf"with|is\s+on\s+par\s+with|is\s+as\s+good\s+as)(?=\W))(?![=>])[\[('\s]*(?:(?i:{NOUN})\s+)?(?P<two>[AB])\b"
)
_MARKED = re.compile(rf"(?:\[\[\s*|\\boxed\s*){_VALUE}\s*(?=[\]\s]|$)")
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            rf"\b{_NAMED}(?:'s(?:\s+\w+)?)?{_ADVERBS}(?:is|was|seems|appears|looks|feels|remains|has|provides|gives|offers|"
            rf"does|performs|answers|serves|shows|comes\s+out)\s+(?!than\b){_WORD}{{0,6}}?"
            rf"(?:(?P<worse>(?i:{_WORSE}))|(?i:{_BETTER})|on\s+top|ahead|my\s+(?:choice|pick|answer|verdict|preference|"
            rf"vote)|the\s+(?:\w+\s+)?(?:answer|choice|verdict|edge|one)(?=\W*$)){_ALL}"
        ),
        "named",
    ),
    (
        re.compile(
            rf"\b{_NAMED}(?:'s(?:\s+\w+)?)?{_ADVERBS}(?:(?P<worse>loses)|wins|won|beats|outperforms|surpasses|exceeds|"
            rf"prevails|dominates|edges|tops|trumps|it\s+is|gets\s+my\s+vote|takes\s+it)\b"
        ),
        "named",
    ),
    (
        re.compile(
            rf"\b(?P<key>(?i:{_KEY}))\b(?P<gap>(?:[\s']+(?![ABab]\b)[\w'-]+){{0,8}}?[\s']*(?:\([^)\n]*\)\s*)?){_LINK}{_IN_BETWEEN}{_VALUE}"
        ),
        "key",
    ),
    (re.compile(rf"\b(?i:{_BETTER})\s+(?:in|for|with)\s+{_NAMED}"), "named"),
    (
        re.compile(
            r"\b(?i:choose|choosing|chose|pick|picking|select|prefer|favou?r|vote\s+for|go\s+with|going\s+with|went\s+with|"
            r"opt\s+for|lean\s+towards?|lean\s+to|leaning\s+towards?|settle\s+on|side\s+with|decide\s+(?:on|for)|in\s+"
            rf"favou?r\s+of|(?:preference|vote\s+is)\s+for|(?:edge|nod|win|point|victory|vote)\s+to)\s+{_NAMED}(?!'s)"
        ),
        "named",
    ),
    (
        re.compile(rf"\b(?i:it's|it\s+is|say|think|believe)\s+{_NAMED}(?!'s)(?=\W*$|\s*,)"),
        "named",
    ),
    (
        re.compile(rf"\b(?i:rate|rank|score|put|place)\s+{_NAMED}\s+(?:higher|above|first|ahead)"),
        "named",
    ),
)
_LEAD = (
    r"(?:so|therefore|thus|hence|overall|finally|in conclusion|in short|in sum|to conclude|clearly|definitely|probably|"
    r"certainly|yes|final|okay|ok|sure|well|and|then|it's|it is|it has to be|it must be|i(?:'d| would)? say|i think|"
    r"i believe|i answer|my answer|consequently|conclusion|→|=>)"
)
_ALONE = re.compile(rf"[\W_]*(?P<lead>(?i:{_LEAD}[\s,:]+)*){_VALUE}[\W_]*$")
_FIRST = re.compile(
    rf"[\W_]*(?:{_NAMED}|(?P<tie>(?i:(?:a\s+)?(?:tie|draw))))(?P<sign>\s*[:.(–—)\]]+(?=[\s)]|$)|\s+-+\s|\s*,\s*(?=(?:because|since|as|due|given|for|by|it|its|this|"
    r"that|not|clearly|definitely|easily|slightly|no)\b)|\s+(?=(?:because|since|over|due|as|rather|instead)\b))"
)
_TIES = re.compile(
    r"\b(?:(?:is|'s|be|it|call|declare|say|have|are|as|in)\s+(?:\w+\s+){0,3}?(?:tie|tied|draw|toss-?up)\b(?=\W*(?:$|[^\w\s]|between\b))"
    r"|equally\s+(?:good|bad|strong|weak|helpful|well|matched|correct|valid|poor|capable|effective|convincing|large|wide|"
    r"great|useful)\b"
    r"|(?:are|is|have|of)\s+(?:(?:\w+ly|about|almost|the|an?)\s+)*(?:equal|same|identical|equivalent|comparable|on\s+par|on\s+a\s+par|"
    r"indistinguishable|even)(?:\s+(?:in\s+)?(?:overall\s+)?(?:quality|size|gap|gaps|value|strength))?(?=\s*(?:$|[^\w\s]))"
    r"|(?P<negates>neither\b(?:\s+[\w']+){0,4}?\s+(?:is|are|has|wins|serves|seems)\b|neither\s+wins|"
    r"no\s+(?:\w+\s+)?(?:winner|preference|difference(?!\s+in\s+(?!quality)))))",
    re.IGNORECASE,
)
_ABOVE = re.compile(
    r"\b(?:better|best|superior|stronger|preferable|wins|larger|bigger|winner|preference|difference)\b", re.I
)


def _find(clause: _Clause, whole: str) -> Iterator[_Found]:
    """Everything that reads like a verdict; text matched by one pattern is hidden from the others."""
    words = clause.text
    start = clause.start

    def taken(found: re.Match[str]) -> None:
        nonlocal words
        words = words[: found.start()] + "x" * len(found[0]) + words[found.end() :]

    for found in list(_COMPARED.finditer(words, start)):
        if found["one"] == found["two"]:
            continue
        place: Place = "="
        letter = None
        if found["sign"][0] in ">≻≫":
            place, letter = _place(found["one"]), found.start("one")
        elif found["sign"][0] in "<≺≪":
            place = _place(found["two"])
        yield _Found(place, letter, found.start(), found.end(), clause.weight)
        taken(found)
    for found in list(_MARKED.finditer(words, start)):
        yield _named(found, clause.weight)
        taken(found)
    for pattern, kind in _PATTERNS:
        for found in list(pattern.finditer(words, start)):
            flipped = bool(found["worse"]) if "worse" in found.groupdict() else False
            if kind == "key":
                said = f"{found['key']} {found['gap']}"
                flipped = bool(re.search(rf"\b{_WORSE}\b|\brejected\b", said, re.IGNORECASE))
            yield _named(found, clause.weight, flipped=flipped)
            taken(found)
    for found in list(_TIES.finditer(words, start)):
        if not found["negates"] or _ABOVE.search(words, found.start()):
            yield _Found("=", None, found.start(), len(words), clause.weight, bool(found["negates"]))
            taken(found)
    yield from _alone(words, clause, whole)


def _alone(words: str, clause: _Clause, whole: str) -> Iterator[_Found]:
    """A clause that is only a verdict, or an answer that begins with a letter and then explains it."""
    first = not whole[: clause.start].strip(" \n\t'([<-")
    found = _ALONE.match(words, clause.start)
    if found:
        last = not whole[found.end() :].strip(" \n\t'.!)]>-")
        if last and re.search(rf"(?:^|\n)\W*{_OTHER.get((found['letter'] or '').upper())}\W*$", whole[: clause.start]):
            return  # both letters, one below the other
        if last or found["lead"].strip() or (first and not _labels_both(whole, found["letter"])):
            yield _named(found, clause.weight)
        return
    found = _FIRST.match(words, clause.start) if first else None
    if found and not _labels_both(whole, found["letter"]):
        yield _named(found, clause.weight)


def _labels_both(whole: str, letter: str | None) -> bool:
    """Whether the other letter also starts a line or an entry, so that the letters are headings."""
    if letter is None:
        return False
    other = _OTHER[letter.upper()]
    heads = rf"(?:^|[\n,;])[\W_]*(?:{NOUN}\s+)?{other}(?:\s*[:.)\]–—-]|\s*$)"
    return bool(re.search(heads, whole[1:], re.IGNORECASE | re.MULTILINE))


def _named(found: re.Match[str], weight: int, *, flipped: bool = False) -> _Found:
    letter = found["letter"]
    if letter is None:
        neither = found["tie"].lower().startswith("neither")
        return _Found("=", None, found.start(), found.end(), weight, negates=neither)
    place = _place(letter)
    if flipped:
        return _Found(_OTHER[place], None, found.start(), found.end(), weight)
    return _Found(place, found.start("letter"), found.start(), found.end(), weight)


def _place(letter: str) -> Place:
    return "A" if letter in "Aa" else "B"


_NOT = re.compile(
    r"\b(?:not|no|never|neither|nor|nobody|none|cannot|hardly|doubt|wrong|false|incorrect|unlikely|disagree|rather\s+than|instead\s+of)\b|n't\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:may|might|could|at\s+first|initially|originally|at\s+least|first\s+thought|some\s+(?:people|would|may|might))\b",
    re.IGNORECASE,
)


def _without_negated(clause: _Clause, found: Iterator[_Found]) -> Iterator[_Found]:
    for one in found:
        before = clause.text[clause.start : one.begin]
        scope = re.split(r"[,:]", before)[-1]
        inside = "" if one.negates else clause.text[one.begin : one.end]
        if not _NOT.search(scope) and not _NOT.search(inside) and not _HEDGE.search(before + inside):
            yield one
