"""A model's answer, prepared for parsing: without reasoning or emphasis, in plain characters."""

import re

_THINK = r"think|thinking|thought|thoughts|reasoning|reason|reflection|analysis|scratchpad"
_OPENED = re.compile(rf"<(?:{_THINK})>|\[THINK\]|◁think▷|<\|channel\|>analysis<\|message\|>", re.IGNORECASE)
_CLOSED = re.compile(
    rf"</(?:{_THINK})>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>|<\|end_of_thought\|>", re.IGNORECASE
)


def final_answer(text: str) -> str:
    """The text with its reasoning replaced by as many spaces, to keep positions; unfinished reasoning covers
    the rest.

    Example:
        >>> final_answer("<think>B?</think>A").strip(), final_answer("<think>B, because").strip()
        ('A', '')
    """
    closed = [found.end() for found in _CLOSED.finditer(text)]
    start = closed[-1] if closed else 0
    opened = _OPENED.search(text, start)
    end = opened.start() if opened else len(text)
    return " " * start + text[start:end] + " " * (len(text) - end)


_RUNS = re.compile(r"[^\S\n]{3,}(?![^\w\n])|\s*\n\s*\n\s*|[^\w\n]{8,}")


def without_runs(text: str) -> tuple[str, list[int]]:
    """The text with long runs of blanks and symbols shortened, and the original position of each character."""
    places: list[int] = []
    start = 0
    for run in _RUNS.finditer(text):
        inside = list(range(*run.span()))
        kept = [place for place in inside if text[place] == "\n"][:2]
        places += [*range(start, run.start()), *(kept or inside[:2] + inside[-2:])]
        start = run.end()
    places += range(start, len(text))
    return "".join(text[place] for place in places), places


_LOOK_ALIKES = str.maketrans("ＡＢＣａｂｃ：（）［］＞＜＝。，！？’‘“”＊", "ABCabc:()[]><=.,!?''\"\"*")
_DECORATION = re.compile(r"[*`#\"_$|{}]|\\(?:text|math|operatorname)\w*|\\[()\[\]]|&nbsp;|<\|\w+\|>")
_HEADED = re.compile(r"([:=>])([ \t]*\n)+(?=[\W_]*\w)")  # a heading and the text below it
SENTENCE = re.compile(r"(?:[^.!?;\n]|[.!?;](?![\s\]\)'>]|$))+(?:[.!?;]+|\n|$)")
"""A sentence, list item or line; a decimal point does not end a sentence."""


def plain_signs(text: str) -> str:
    """The text at its original length: ASCII for look-alike characters, blanks for emphasis and quotes, and headings on
    one line with the text below them.

    Example:
        >>> plain_signs("**Verdict:**\\nＡ")
        '  Verdict:   A'
    """
    text = _DECORATION.sub(blank, text.translate(_LOOK_ALIKES))
    return _HEADED.sub(lambda found: found[1] + " " * (len(found[0]) - 1), text)


def blank(found: re.Match[str]) -> str:
    """A match as blanks, keeping its line breaks."""
    return "".join("\n" if sign == "\n" else " " for sign in found[0])
