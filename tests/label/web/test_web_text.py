"""Rendering is safe, and marks show exactly what differs."""

import re
import time

import pytest

pytest.importorskip("markdown_it")

from hypothesis import given
from hypothesis import strategies as st

from popmargin.label.web.marked_text import plain, render, render_pair

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
    "p", "em", "strong", "code", "pre", "span", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "hr", "br", "a",
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
            assert key in ("href", "rel", "target", "class", "tabindex", "start", "title", "style"), (key, html)
            if key == "href":
                assert re.match(r"(?i)https?://|mailto:", value), html
            if key == "style":
                assert re.fullmatch(r"text-align:(left|right|center)", value), html


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
    assert "<h4>Title</h4>" in html  # below the page's own headings
    assert "one<br" in html and "<strong>three</strong>" in html
    assert 'rel="noopener noreferrer nofollow" target="_blank"' in html
    assert '<span class="k">def</span>' in html and '<pre tabindex="0">' in html


def test_images_are_named_and_not_loaded() -> None:
    html = render("![a cat](https://e.example/cat.png)")
    assert "<img" not in html and "image: a cat</a>" in html


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
