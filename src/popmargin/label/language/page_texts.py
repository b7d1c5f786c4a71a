"""The words of the annotators' pages in one language: read from a file, and refused unless they are complete.

A file is YAML (or JSON) of keys and texts. The English one is the template: it says which keys there are, and which
places in braces each of them has.
"""

import difflib
import functools
import json
import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from popmargin.errors import ConfigError, counted
from popmargin.yaml_file import parse_yaml, read_mapping

ENGLISH = "en"
SHIPPED = (ENGLISH, "de")
"""Languages that come with popmargin, by their tags."""
_TAG = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{1,8})*")
_DIRECTIONS = ("ltr", "rtl")
_NAMED = 8
_MOST_CHARACTERS = 20_000


@dataclass(frozen=True)
class PageTexts:
    """Texts by key; called with a key and values it gives safe HTML.

    Example:
        >>> texts = shipped("en")
        >>> texts("task", number=3), texts.said("answer_of", side="Response 1", wording="<better>")
        (Markup('Task 3'), 'Response 1 is <better>')
    """

    by_key: Mapping[str, str] = field(repr=False)

    @property
    def lang(self) -> str:
        """The language's tag, such as "de"."""
        return self.by_key["lang"]

    @property
    def rtl(self) -> bool:
        """Whether it is written from right to left."""
        return self.by_key["dir"] == "rtl"

    def __call__(self, key: str, **values: object) -> Markup:
        """A text as HTML; values are escaped unless they are Markup."""
        return Markup(escape(self.by_key[key])).format(**values)

    def said(self, key: str, **values: object) -> str:
        """A text as it is."""
        return self.by_key[key].format(**values)

    def around(self, key: str, place: str, **values: object) -> tuple[str, str]:
        """What stands before and after one of the places of a text.

        Example:
            >>> shipped("en").around("answer_graded", "grade", side="Response 1", wording="better")
            ('Response 1 is ', ' better')
        """
        before, _, after = self.by_key[key].partition(f"{{{place}}}")
        return before.format(**values), after.format(**values)


def read_language(given: str) -> str:
    """A language as a project keeps it, from the tag of a shipped one or the name of a file.

    Raises:
        ConfigError: neither, or a file that is no complete language.
    """
    if given in SHIPPED:
        return given
    if not Path(given).exists():
        raise ConfigError(
            f"--language {given}: there is no such file, and popmargin has {' and '.join(SHIPPED)} only. Write the "
            f"English texts with: popmargin label language --write {Path(given).stem}.yaml, translate them, and give "
            "that file."
        )
    found = read_mapping(Path(given))
    check(found, given)
    return json.dumps(found, ensure_ascii=False)


def kept_language(given: str | Mapping[str, Any], source: str) -> str:
    """A language as a project keeps it, from the tag of a shipped one or from all its texts.

    Raises:
        ConfigError: neither; a name of a file is none, since it would be one of the machine that reads it.
    """
    if isinstance(given, str):
        if given not in SHIPPED:
            raise ConfigError(
                f"{source} {given!r}: popmargin has {' and '.join(SHIPPED)}. For another one give all its texts, as "
                "`popmargin label language` prints those of English."
            )
        return given
    check(given, source)
    return json.dumps(dict(given), ensure_ascii=False)


def texts_of(kept: str, whose: str = "") -> PageTexts:
    """The texts of a language as a project keeps it.

    Args:
        kept: as of `read_language`.
        whose: named in an error.

    Raises:
        ConfigError: it was complete once, and lacks what was added since.
    """
    if kept in SHIPPED:
        return shipped(kept)
    return _kept(kept, whose)


@functools.lru_cache(maxsize=64)
def _kept(kept: str, whose: str) -> PageTexts:
    found = json.loads(kept)
    check(found, f"the language of {whose or 'a project'}", f"Complete its file, and give it to: {_SET}.")
    return PageTexts(found)


_SET = "popmargin label set --language FILE"


@functools.cache
def shipped(tag: str) -> PageTexts:
    """A language that comes with popmargin."""
    found = parse_yaml(shipped_file(tag))
    if tag != ENGLISH:
        check(found, f"{tag}.yaml")
    return PageTexts(found)


def shipped_file(tag: str) -> str:
    """The file of a language that comes with popmargin."""
    return files("popmargin.label.language").joinpath(f"{tag}.yaml").read_text(encoding="utf-8")


def check(found: Mapping[Any, Any], source: str, remedy: str = "") -> None:
    """Refuse texts unless they have exactly the keys of English, each with the same places in braces.

    Raises:
        ConfigError: it names the source, and up to eight keys with what is wrong with each.
    """
    wrong = list(_wrong(found))
    if wrong:
        more = [f"and {len(wrong) - _NAMED} more"] if len(wrong) > _NAMED else []
        said = "\n  ".join([*wrong[:_NAMED], *more])
        raise ConfigError(
            f"{source}: {counted(len(wrong), 'text')} cannot be used:\n  {said}\n"
            f"{remedy or 'The English texts are in: popmargin label language.'}"
        )


def _wrong(found: Mapping[Any, Any]) -> Iterator[str]:
    english = shipped(ENGLISH).by_key
    for key in found:
        if key not in english:
            near = difflib.get_close_matches(str(key), list(english), n=1)
            yield f"{key}: no such text. {f'Did you mean {near[0]}?' if near else 'Remove it.'}"
    for key, model in english.items():
        text = found.get(key)
        if key not in found:
            yield f"{key}: missing. In English: {_short(model)}"
        elif not isinstance(text, str):
            yield f"{key}: {text!r} is no text. Put it in quotes."
        elif not text.strip():
            yield f"{key}: empty. In English: {_short(model)}"
        elif len(text) > _MOST_CHARACTERS:
            yield f"{key}: {counted(len(text), 'character')}; the limit is {_MOST_CHARACTERS}."
        elif key == "lang" and not _TAG.fullmatch(text):
            yield f"lang: {text!r} is no tag of a language. Give one such as fr, pt-BR or ar."
        elif key == "dir" and text not in _DIRECTIONS:
            yield f"dir: {text!r}. Give ltr, or rtl for a language that is written from right to left."
        else:
            yield from _wrong_places(key, text, model)


def _wrong_places(key: str, text: str, model: str) -> Iterator[str]:
    try:
        given = _places(text)
    except ValueError as error:
        yield f"{key}: {error}. Write a brace that is part of the text twice, as {{{{ or }}}}."
        return
    wanted = _places(model)
    for place in sorted(set(given) - set(wanted)):
        known = ", ".join(f"{{{name}}}" for name in sorted(wanted)) or "none"
        yield f"{key}: there is no place {{{place}}}. Places of this text: {known}."
    for place in sorted(set(wanted) - set(given)):
        yield f"{key}: the place {{{place}}} is missing. In English: {_short(model)}"
    for place in sorted(place for place in set(given) if given.count(place) > 1):
        yield f"{key}: the place {{{place}}} stands there twice. Keep one."


def _places(text: str) -> list[str]:
    """The names in braces.

    Raises:
        ValueError: a brace without its partner, or more than a name in braces.
    """
    found: list[str] = []
    for _, name, how, conversion in string.Formatter().parse(text):
        if name is None:
            continue
        if how or conversion or not name.isidentifier():
            raise ValueError(f"{{{name}}} is no name of a place")
        found.append(name)
    return found


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:100]}…"
