"""Judge prompts: text files with placeholders, which users can replace."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from popmargin.data.conversation import Text
from popmargin.data.questions import Kind, PreferenceText
from popmargin.errors import ConfigError
from popmargin.files import no_such_file
from popmargin.safe_reading import read_text

HERE = Path(__file__).parent
FILES: dict[Kind, str] = {"pop": "pop_pair.txt", "preference": "preference.txt"}
PLACEHOLDERS: dict[Kind, frozenset[str]] = {
    "pop": frozenset(f"{side}_{part}" for side in ("first", "second") for part in ("prompt", "chosen", "rejected")),
    "preference": frozenset({"prompt", "first", "second"}),
}
_BRACES = re.compile(r"\{([a-z_]+)\}")


def load_prompt(kind: Kind, path: str | Path | None = None) -> str:
    """The judge's prompt for a kind of question: the built-in one, or a user's file.

    A template asks for a reply that begins with A or B ("tie", "=" or C mean neither).

    Raises:
        ConfigError: the file cannot be read, lacks a placeholder or has an unknown one.

    Example:
        >>> "{first_chosen}" in load_prompt("pop")
        True
    """
    file = HERE / FILES[kind] if path is None else Path(path)
    try:
        text = read_text(file, ConfigError, what="Judge prompt")
    except FileNotFoundError as error:
        raise ConfigError(f"Judge prompt {file} cannot be read: {no_such_file(file)}") from error
    found, needed = frozenset[str](_BRACES.findall(text)), PLACEHOLDERS[kind]
    if found != needed:
        missing, unknown = sorted(needed - found), sorted(found - needed)
        problems = [f"{what} {', '.join(f'{{{name}}}' for name in names)}" for what, names in
                    (("lacks", missing), ("has unknown", unknown)) if names]  # fmt: skip
        raise ConfigError(
            f"Judge prompt {file} {' and '.join(problems)}. A prompt for kind '{kind}' needs exactly: "
            f"{', '.join(f'{{{name}}}' for name in sorted(needed))}."
        )
    return text


def fill(template: str, parts: Mapping[str, Text]) -> str:
    """The template with its placeholders replaced in one pass, so braces inside a text are not filled in."""
    return _BRACES.sub(lambda match: readable(parts[match[1]]), template)


def pop_parts(first: PreferenceText, second: PreferenceText) -> dict[str, Text]:
    """Values for the placeholders of a PoP prompt, with `first` shown as A."""
    return {
        f"{side}_{part}": getattr(preference, part)
        for side, preference in (("first", first), ("second", second))
        for part in ("prompt", "chosen", "rejected")
    }


def readable(prompt: str | Sequence[Mapping[str, object]]) -> str:
    """A text, or the turns of a conversation below one another."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)
