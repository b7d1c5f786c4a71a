"""Texts of a preference as safe HTML: Markdown, highlighted code, and marks on words in only one response.

Everything that leaves this module is built from escaped text: raw HTML in a response is shown, never interpreted.
"""

import difflib
import functools
import re
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup, escape
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from popmargin.data.conversation import Text
from popmargin.data.tools import said
from popmargin.label.language.page_texts import PageTexts
from popmargin.label.web.as_written import as_written

_SCHEMES = re.compile(r"(?i)^(https?://|mailto:)")
_PARTS = re.compile(r"<[^>]*>|&[#\w]+;|\w+|\s+|[^\w\s]")
_ROLE = re.compile(r'<p class="role">(\w+)</p>')
_LONGEST = 20_000
"""Above this many words in total, two responses are not compared: nobody reads marks in such long texts."""


def render(text: Text) -> Markup:
    """A prompt or a completion as HTML; messages below one another, with their roles if there are several.

    Example:
        >>> render("*Hi* <b>")
        Markup('<p><em>Hi</em> &lt;b&gt;</p>\\n')
    """
    if isinstance(text, str):
        return _markdown(text)
    if len(text) == 1:
        return _markdown(said(text[0]))
    turns = [
        Markup('<div class="turn"><p class="role">{}</p>\n{}</div>\n').format(message["role"], _markdown(said(message)))
        for message in text
    ]
    return Markup("").join(turns)


def render_pair(first: Text, second: Text) -> tuple[Markup, Markup]:
    """Two responses as HTML, with <mark> around the words that only one of them has.

    Example:
        >>> [str(html) for html in render_pair("one two", "one three")]
        ['<p>one <mark>two</mark></p>\\n', '<p>one <mark>three</mark></p>\\n']
    """
    return _marked(str(render(first)), str(render(second)))


def with_roles(html: Markup, texts: PageTexts) -> Markup:
    """A rendered conversation with its roles in the language of the page."""

    def named(found: re.Match[str]) -> str:
        key = f"role_{found[1]}"
        return f'<p class="role">{texts(key) if key in texts.by_key else found[1]}</p>'

    return Markup(_ROLE.sub(named, html))


def plain(text: Text, length: int = 120) -> str:
    """The start of a text on one line."""
    content = text if isinstance(text, str) else " ".join(said(message) for message in text[-1:])
    line = " ".join(content[: 4 * length].split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def document(text: str) -> Markup:
    """A text written as Markdown, such as guidelines: a newline is not a line break."""
    return Markup(_parser(judged=False).render(text))


def written(text: Text) -> str:
    """A prompt or a completion as it is written, without any layout."""
    if isinstance(text, str):
        return text
    if len(text) == 1:
        return said(text[0])
    return "\n\n".join(f"{message['role']}: {said(message)}" for message in text)


def common_share(first: str, second: str) -> float:
    """Share of the words of two rendered responses that are not marked; 1 without words.

    Example:
        >>> common_share(*map(str, render_pair("one two", "one three")))
        0.5
    """
    marked, every = 0, 0
    for html in (first, second):
        inside = False
        for part in _PARTS.findall(html):
            if part in ("<mark>", "</mark>"):
                inside = part == "<mark>"
            elif not _silent(part):
                every, marked = every + 1, marked + inside
    return 1.0 - marked / every if every else 1.0


@functools.lru_cache(maxsize=256)
def _markdown(text: str) -> Markup:
    return Markup(_parser(judged=True).render(text))


@functools.cache
def _parser(*, judged: bool) -> MarkdownIt:
    """Markdown for texts that are judged, which it must not change, or for guidelines, which are written in it."""
    parser = MarkdownIt("commonmark", {"html": False, "breaks": judged}).enable(["table", "strikethrough"])
    if judged:
        as_written(parser)
    parser.validateLink = lambda url: _SCHEMES.match(url) is not None  # pyright: ignore[reportAttributeAccessIssue]
    for name, rule in (
        ("link_open", _link_open),
        ("image", _image),
        ("fence", _fence),
        ("code_block", _fence),
        ("heading_open", _heading),
        ("heading_close", _heading),
        ("table_open", _table_open),
        ("table_close", _table_close),
        ("th_open", _cell),
        ("td_open", _cell),
    ):
        parser.add_render_rule(name, rule)
    return parser


def _link_open(renderer: Any, tokens: Sequence[Any], index: int, options: Any, _: Any) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    tokens[index].attrSet("target", "_blank")
    return str(renderer.renderToken(tokens, index, options, _))


def _image(renderer: Any, tokens: Sequence[Any], index: int, options: Any, environment: Any) -> str:
    """Images are linked, with the name as it is written, and never loaded: a response must not track its readers."""
    token = tokens[index]
    name = renderer.renderInlineAsText(token.children or [], options, environment)
    link = '<a href="{}" rel="noopener noreferrer nofollow" target="_blank">![{}]</a>'
    return str(Markup(link).format(token.attrGet("src"), name))


def _fence(_: Any, tokens: Sequence[Any], index: int, *rest: Any) -> str:
    token = tokens[index]
    language = token.info.split()[0] if token.info.split() else ""
    try:
        code = highlight(token.content, get_lexer_by_name(language), HtmlFormatter(nowrap=True))
    except ClassNotFound:
        code = str(escape(token.content))
    return f'<pre tabindex="0"><code>{code.rstrip()}</code></pre>\n'


def _heading(renderer: Any, tokens: Sequence[Any], index: int, options: Any, environment: Any) -> str:
    """Headings of a response have one rank, below those of the page, so that no rank is left out whatever they are."""
    return f'<h3 class="rank{tokens[index].tag[1]}">' if tokens[index].nesting == 1 else "</h3>\n"


def _table_open(*_: Any) -> str:
    return '<div class="scroll" tabindex="0"><table>\n'


def _table_close(*_: Any) -> str:
    return "</table></div>\n"


def _cell(_: Any, tokens: Sequence[Any], index: int, *rest: Any) -> str:
    """Alignment is a class: the content policy allows no styles in a page."""
    token = tokens[index]
    side = str(token.attrGet("style") or "").removeprefix("text-align:")
    return f'<{token.tag} class="{side}">' if side in ("left", "right", "center") else f"<{token.tag}>"


@functools.lru_cache(maxsize=256)
def _marked(first: str, second: str) -> tuple[Markup, Markup]:
    sides = [_PARTS.findall(html) for html in (first, second)]
    words = [[part for part in parts if not _silent(part)] for parts in sides]
    if sum(map(len, words)) > _LONGEST:
        return Markup(first), Markup(second)
    # Frequent words are not anchors in long texts, or articles and commas would decide the alignment.
    matcher = difflib.SequenceMatcher(a=words[0], b=words[1], autojunk=True)
    only: tuple[set[int], set[int]] = (set(range(len(words[0]))), set(range(len(words[1]))))
    for block in matcher.get_matching_blocks():
        only[0].difference_update(range(block.a, block.a + block.size))
        only[1].difference_update(range(block.b, block.b + block.size))
    return _mark(sides[0], only[0]), _mark(sides[1], only[1])


def _silent(part: str) -> bool:
    return part.startswith("<") or part.isspace()


def _mark(parts: Sequence[str], only: set[int]) -> Markup:
    """The parts with <mark> around each run of the words numbered in `only`; no mark crosses a tag."""
    out = list[str]()
    run = list[str]()
    word = 0

    def close() -> None:
        if run:
            marked = "".join(run)
            kept = marked.rstrip()
            out.append(f"<mark>{kept}</mark>{marked[len(kept) :]}")
            run.clear()

    for part in parts:
        if _silent(part):
            if run and not part.startswith("<"):
                run.append(part)
                continue
            close()
            out.append(part)
            continue
        if word in only:
            run.append(part)
        else:
            close()
            out.append(part)
        word += 1
    close()
    return Markup("".join(out))
