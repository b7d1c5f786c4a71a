"""Markdown that changes no text: formulas, backslashes, entities, products and dunder names stay as they are written.

CommonMark takes a backslash before punctuation away, reads 2*3*4 as emphasis, numbers lists anew and drops reference
definitions. What people judge must be what the response says, so these parts of it are replaced or left out here.
"""

import re
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import escape

_SPANS = re.compile(
    r"\\\(.+?\\\)|\\\[.+?\\\]|\$\$.+?\$\$|\\begin\{(\w+\*?)\}.+?\\end\{\1\}"
    r"|\$(?![\s$])(?:\\.|[^$\\\n])*?(?<![\s\\])\$(?!\d)",
    re.DOTALL,
)
"""Formulas: between dollars only on one line, without a space inside, and not before a digit, as pandoc reads them."""
_BLOCKS = ((re.compile(r"\\\["), re.compile(r"\\\]")), (re.compile(r"\$\$"), re.compile(r"\$\$")),
           (re.compile(r"\\begin\{\w+\*?\}"), re.compile(r"\\end\{\w+\*?\}")))  # fmt: skip
_DUNDER = re.compile(r"__\w+__(?!\w)")


def as_written(parser: MarkdownIt) -> MarkdownIt:
    """Let a parser of Markdown change nothing but the layout of a text."""
    parser.disable(["entity", "reference"])
    parser.inline.ruler.at("escape", _backslash)
    parser.inline.ruler.before("escape", "formula", _formula)
    parser.inline.ruler.before("emphasis", "inside_words", _inside_words)
    ends = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    parser.block.ruler.before("code", "formula", _formula_block, ends)
    parser.add_render_rule("formula", _render_formula)
    parser.add_render_rule("formula_block", _render_formula)
    parser.add_render_rule("list_item_open", _list_item)
    return parser


def _backslash(state: Any, silent: bool) -> bool:
    """A backslash and the punctuation after it, which then has no meaning of its own."""
    if state.src[state.pos] != "\\":
        return False
    after = state.src[state.pos + 1 : state.pos + 2]
    both = bool(after) and after != "\n" and not after.isalnum()
    if not silent:
        state.pending += "\\" + (after if both else "")
    state.pos += 2 if both else 1
    return True


def _formula(state: Any, silent: bool) -> bool:
    if state.src[state.pos] not in "\\$":
        return False
    found = _SPANS.match(state.src, state.pos)
    if found is None:
        return False
    if not silent:
        state.push("formula", "", 0).content = found[0]
    state.pos = found.end()
    return True


def _inside_words(state: Any, silent: bool) -> bool:
    """Asterisks between letters or digits, and names such as __init__."""
    if state.src[state.pos] not in "*_":
        return False
    before = state.src[state.pos - 1 : state.pos]
    dunder = _DUNDER.match(state.src, state.pos)
    if dunder is not None and not before.isalnum():
        end = dunder.end()
    else:
        end = state.pos
        while state.src[end : end + 1] == "*":
            end += 1
        if end == state.pos or not before.isalnum() or not state.src[end : end + 1].isalnum():
            return False
    if not silent:
        state.pending += state.src[state.pos : end]
    state.pos = end
    return True


def _formula_block(state: Any, start: int, end: int, silent: bool) -> bool:
    """A formula over several lines, whose signs would otherwise begin lists, headings and rules."""
    if state.is_code_block(start):
        return False

    def line(number: int) -> str:
        return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]

    for opens, closes in _BLOCKS:
        found = opens.match(line(start))
        if found is None:
            continue
        last, place = start, found.end()
        while last < end and closes.search(line(last), place) is None:
            last, place = last + 1, 0
        if last >= end or last == start:
            return False  # none, or on one line, where it is read in the text
        if not silent:
            token = state.push("formula_block", "", 0)
            token.content, token.map = state.getLines(start, last + 1, state.blkIndent, False), [start, last + 1]
            state.line = last + 1
        return True
    return False


def _render_formula(_: Any, tokens: Any, index: int, *__: Any) -> str:
    token = tokens[index]
    text = f'<span class="formula">{escape(token.content.strip())}</span>'
    return f"<p>{text}</p>\n" if token.type == "formula_block" else text


def _list_item(_: Any, tokens: Any, index: int, *__: Any) -> str:
    """An item of a numbered list has the number that is written."""
    number = tokens[index].info
    return f'<li value="{int(number)}">' if number.isdigit() else "<li>"
