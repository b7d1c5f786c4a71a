"""Rendering is safe, and marks show exactly what differs."""

import re
import time

import pytest

pytest.importorskip("markdown_it")

from hypothesis import given
from hypothesis import strategies as st

from popmargin.label.web.marked_text import common_share, plain, render, render_pair, written

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<iframe src=javascript:alert(1)></iframe>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\nscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](vbscript:msgbox(1))",
    "[x](//evil.example/x)",
    "![x](javascript:alert(1))",
    "![x](http://evil.example/track.png)",
    '![x"onerror="alert(1)](http://e.example/"onerror="alert(1))',
    '[x](http://e.example/"onmouseover="alert(1))',
    '[x](http://e.example "t\\" onclick=\\"alert(1)")',
    "<javascript:alert(1)>",
    "```<script>alert(1)</script>\n</code></pre><script>alert(1)</script>\n```",
    '```python"onload=alert(1)\nx\n```',
    "<style>*{display:none}</style>",
    "</textarea><script>alert(1)</script>",
    "</main><form action=//evil.example><button>",
    "{{ 7*7 }}{% raw %}",
    "<a href=\"javascript&colon;alert(1)\">x</a>",
    "\x00<script>alert(1)</script>",
    "<mark><script>alert(1)</script>",
]  # fmt: skip
TAG = re.compile(r"<(/?)([a-zA-Z0-9]+)([^>]*)>")
ATTRIBUTE = re.compile(r' ([a-z-]+)="([^"]*)"')
ALLOWED = {
    "p", "em", "strong", "code", "pre", "span", "h3", "ul", "ol", "li", "blockquote", "hr", "br", "a",
    "table", "thead", "tbody", "tr", "th", "td", "s", "div", "mark",
}  # fmt: skip


def tags(html: str) -> list[tuple[str, str]]:
    """(tag, attributes) of everything a browser could take for a tag."""
    found = TAG.findall(html)
    # Whatever is left of < would be a tag that the pattern does not know.
    assert "<" not in TAG.sub("", html)
    return [(name, attributes) for _, name, attributes in found]


def assert_safe(html: str) -> None:
    for name, attributes in tags(html):
        assert name in ALLOWED, (name, html)
        assert ATTRIBUTE.sub("", attributes).strip() in ("", "/"), (attributes, html)
        for key, value in ATTRIBUTE.findall(attributes):
            assert key in ("href", "rel", "target", "class", "tabindex", "start", "title", "value"), (key, html)
            if key == "href":
                assert re.match(r"(?i)https?://|mailto:", value), html
            if key == "value":
                assert value.isdigit(), html


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_become_text(attack: str) -> None:
    assert_safe(str(render(attack)))
    for html in render_pair(attack, attack + " more"):
        assert_safe(str(html))


@given(st.text(alphabet="<>&\"'`*_[]()!#|-\n \\ax:/1;", max_size=80), st.text(alphabet="<>&\"'`[]() ax", max_size=40))
def test_any_text_is_safe_and_only_gains_marks(first: str, second: str) -> None:
    html = str(render(first))
    assert_safe(html)
    marked = str(render_pair(first, second)[0])
    assert_safe(marked)
    assert re.sub("</?mark>", "", marked) == html


def test_markdown_and_code() -> None:
    html = render("# Title\n\none\ntwo **three** [site](https://e.example)\n\n```python\ndef f(): return 'a'\n```")
    assert '<h3 class="rank1">Title</h3>' in html  # below the page's own headings
    assert "one<br" in html and "<strong>three</strong>" in html
    assert 'rel="noopener noreferrer nofollow" target="_blank"' in html
    assert '<span class="k">def</span>' in html and '<pre tabindex="0">' in html


def test_images_are_named_and_not_loaded() -> None:
    html = render("![a cat](https://e.example/cat.png)")
    assert "<img" not in html and "![a cat]</a>" in html


def test_unknown_language_is_plain_code() -> None:
    assert render("```nosuch\n<b>\n```") == '<pre tabindex="0"><code>&lt;b&gt;</code></pre>\n'


def test_messages_show_their_roles_only_if_there_are_several() -> None:
    one = [{"role": "user", "content": "Hi"}]
    assert render(one) == "<p>Hi</p>\n"
    assert '<p class="role">system</p>' in render([{"role": "system", "content": "S"}, *one])


def test_differences_are_words_that_one_side_has() -> None:
    first, second = render_pair("The cat sat on the red mat.", "The cat sat on a blue mat today.")
    assert re.findall("<mark>(.*?)</mark>", first) == ["the red"]
    assert re.findall("<mark>(.*?)</mark>", second) == ["a blue", "today"]


def test_equal_texts_have_no_marks_and_entities_stay_whole() -> None:
    assert "<mark>" not in render_pair("a < b", "a < b")[0]
    assert render_pair("a < b", "a > b")[0] == "<p>a <mark>&lt;</mark> b</p>\n"


def test_long_texts_are_compared_quickly() -> None:
    text = " ".join(f"word{i % 700} of the" for i in range(3000))
    start = time.perf_counter()
    render_pair(text, text.replace("word3 ", "other "))
    assert time.perf_counter() - start < 5


def test_plain_is_one_short_line() -> None:
    assert plain("a\n\n b   c") == "a b c"
    assert plain("word " * 50, 20) == "word word word word…"
    assert plain([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]) == "U"


WRITTEN = [
    r"Let \(a_1\) be \, thin, \{x\} and C:\*, C:\temp\_x",
    "\\[ \\frac{a}{b} \\]",
    "\\[\na\n+ b\n- c\n= d\n\\]",
    "$$\n# x\n1. y\n$$",
    "\\begin{align*}\na &= b \\\\\n- c\n\\end{align*}",
    "$a*b*c$ and $x_1$ cost $5 and $6",
    "2*3*4 = 24, a*b*c",
    "def __init__(self): __all__ = f(*args, **kwargs)",
    "&lt;b&gt; &amp; &copy; &#65;",
    "[ref]: https://e.example 'a title'",
    "3. three\n7. seven",
    r"one \* two \* three \_ four \_ five",
    "a \\\nb",
]


def shown(html: str) -> str:
    """What a reader sees, numbers of lists included."""
    html = re.sub(r'<li value="(\d+)">', r"\1. ", html)
    for name, sign in (("lt", "<"), ("gt", ">"), ("quot", '"'), ("#34", '"'), ("#39", "'"), ("amp", "&")):
        html = TAG.sub("", html) if name == "lt" else html
        html = html.replace(f"&{name};", sign)
    return " ".join(html.split())


@pytest.mark.parametrize("text", WRITTEN)
def test_layout_changes_no_text(text: str) -> None:
    assert shown(str(render(text))) == " ".join(text.split())


@given(st.text(alphabet="ab1 \\()[]{}$&;_,.^=", max_size=60))
def test_no_character_of_a_text_without_layout_is_lost(text: str) -> None:
    """Of anything that is no emphasis, code, heading, rule, quote, link or table."""
    if re.search(r"_\S|\[[^\]]*\]\(", text):
        return
    assert shown(str(render(text))).replace(" ", "") == "".join(text.split())


def test_layout_is_still_layout() -> None:
    assert render("**bold** and *soft*, __strong words__, a_b_c") == (
        "<p><strong>bold</strong> and <em>soft</em>, <strong>strong words</strong>, a_b_c</p>\n"
    )
    assert written([{"role": "user", "content": "a *b*"}]) == "a *b*"
    assert written([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]) == "system: S\n\nuser: U"


def test_alignment_and_headings_need_no_styles_and_skip_no_rank() -> None:
    html = str(render("# A\n\n#### B\n\n| l | r |\n|:--|--:|\n| 1 | 2 |"))
    assert re.findall(r"<h(\d) class=\"rank(\d)\">", html) == [("3", "1"), ("3", "4")]
    assert html.count('class="left"') == html.count('class="right"') == 2 and "style" not in html


def test_how_much_two_responses_have_in_common() -> None:
    assert common_share(*map(str, render_pair("the cat sat", "the cat ran"))) == pytest.approx(2 / 3)
    assert common_share(*map(str, render_pair("one two", "three four"))) == 0.0
