"""Texts and conversations: read from the formats found in practice, and split into prompt and completions."""

import ast
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from popmargin.data.conversation import Message, Text
from popmargin.data.tools import call_fields, tools_text
from popmargin.data.validate import RowError
from popmargin.errors import a_kind

Notes = Counter[str]
"""What was changed in kept rows: sentence -> number of rows."""

_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "observation": "tool"}
_WRITTEN = re.compile(r"\s*\[?\s*\{\s*['\"](role|content|from|value)['\"]\s*:")
_TRANSCRIPT_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]?")
_TEXT_REMEDY = 'write a text, or messages like [{"role": "user", "content": "…"}].'
# Scripts above this do not separate words by spaces, so a common prefix may end anywhere.
_FIRST_UNSPACED = 0x2E80


def as_text(value: object, column: str, notes: Notes) -> Text:
    """A cell as plain text or as messages.

    Messages may be a list of {"role", "content"}, one such message, a struct of lists (how `datasets` used to store
    them), ShareGPT's {"from", "value"}, or {"messages": […]}; any of these also as JSON or Python text, as in CSV.
    Contents may be text parts.

    Raises:
        RowError: missing, of another type, with non-text content, or with calls that do not name a function.
    """
    tools = ""
    if isinstance(value, str):
        written = _written_messages(value, column)
        if written is None:
            return value
        notes[f"messages written as text (JSON or Python) were read as messages: {column}"] += 1
        value = written
    if value is None:
        raise RowError("missing", f"the {column} is missing.", _TEXT_REMEDY, column=column)
    if isinstance(value, Mapping):
        fields = cast(Mapping[str, Any], value)
        if isinstance(fields.get("messages"), list):  # a provider's export
            tools = tools_text(fields.get("tools"), column)
            value = fields["messages"]
        else:
            value = _turns_of_struct(fields)
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        message = f"the {column} is {a_kind(value)} ({str(value)[:40]!r}), neither text nor messages."
        raise RowError("type", message, _TEXT_REMEDY, column=column)
    return offer([_message(turn, column, notes) for turn in cast(Sequence[object], value)], tools)


def offer(prompt: list[Message], tools: str) -> list[Message]:
    """A prompt whose first message offers the tools, if there are any."""
    return [{**prompt[0], "tools": tools}, *prompt[1:]] if prompt and tools else prompt


def as_values(value: object) -> object:
    """A list or object parsed from JSON or Python text; anything else unchanged.

    Example:
        >>> as_values("[1, None]"), as_values("[see above]")
        ([1, None], '[see above]')
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _written_messages(text: str, column: str) -> object:
    """Messages parsed from JSON or Python text; None if it is plain text.

    Raises:
        RowError: it looks like messages from start to end, but is neither JSON nor Python.
    """
    if not _WRITTEN.match(text):
        return None
    value = as_values(text)
    if isinstance(value, str):
        if text.rstrip().endswith(("]", "}")):
            message = (
                f"the {column} looks like messages written as text, but is neither JSON nor Python: {text[:40]!r}."
            )
            raise RowError("type", message, "write the messages as JSON (json.dumps).", column=column)
        return None
    items = cast(list[object], value if isinstance(value, list) else [value])
    keys = ({"role", "content"}, {"from", "value"}, {"role", "tool_calls"})
    whole = all(isinstance(item, Mapping) and any(known <= item.keys() for known in keys) for item in items)
    return value if whole else None


def _turns_of_struct(value: Mapping[str, Any]) -> object:
    lists = [name for name, items in value.items() if isinstance(items, list)]
    if not {"role", "content"} <= set(lists):
        return [value]
    count = len(value["role"])
    return [{name: value[name][i] for name in lists if i < len(value[name])} for i in range(count)]


def _message(turn: object, column: str, notes: Notes) -> Message:
    if not isinstance(turn, Mapping):
        message = f"the {column} contains {a_kind(turn)} instead of a message."
        raise RowError("type", message, _TEXT_REMEDY, column=column)
    fields = cast(Mapping[str, Any], turn)
    share_gpt = "role" not in fields and "from" in fields
    role, content = (
        (fields.get("from"), fields.get("value")) if share_gpt else (fields.get("role"), fields.get("content"))
    )
    if role == "function_call":  # ShareGPT's
        role, content, fields = "assistant", None, {"function_call": content}
    kept = call_fields(fields, _ROLES.get(str(role), str(role)) if share_gpt else str(role), column)
    if content is None and "tool_calls" in kept:
        content = ""
    if isinstance(content, list):
        content = _join_parts(cast(list[object], content))
    if not isinstance(role, str) or not role or not isinstance(content, str):
        message = f"the {column} has a message without text: role {role!r}, content {str(content)[:40]!r}."
        raise RowError("type", message, _TEXT_REMEDY, column=column)
    known = ("role", "content", "from", "value", "function_call", *kept)
    extra = [str(name) for name, item in fields.items() if item and name not in known]
    if extra:
        notes[f"message fields other than role and content are dropped ({', '.join(sorted(extra))})"] += 1
    return {"role": _ROLES.get(role, role) if share_gpt else role, "content": content, **kept}


def _join_parts(parts: list[object]) -> str | None:
    """Text of content given in parts; None if one of them is not text (such as an image)."""
    texts: list[str] = []
    for part in parts:
        fields = cast(Mapping[str, Any], part) if isinstance(part, Mapping) else {}
        text = fields.get("text")
        if fields.get("type", "text") != "text" or not isinstance(text, str):
            return None
        texts.append(text)
    return "".join(texts)


def harmonise(prompt: Text, chosen: Text, rejected: Text, notes: Notes) -> tuple[Text, Text, Text]:
    """Make the three of one kind: all texts, or all messages with completions that do not repeat the prompt.

    Raises:
        RowError: one completion is text and the other messages, or the completions contain another prompt.
    """
    if isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str):
        return prompt, chosen, rejected
    if isinstance(chosen, str) != isinstance(rejected, str):
        message = "one completion is text, the other is messages."
        raise RowError("mixed", message, "use the same form for both.", column="rejected")
    if isinstance(chosen, str) or isinstance(rejected, str):
        notes["text completions to a conversation became assistant messages"] += 1
        chosen, rejected = _assistant(chosen), _assistant(rejected)
    if isinstance(prompt, str):
        prompt, chosen, rejected = _under_text_prompt(prompt, chosen, rejected, notes)
    elif len(prompt) and chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:
        notes["completions repeated the prompt; it was removed"] += 1
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    elif prompt and prompt[0]["role"] != "assistant" and any(turns[:1] == prompt[:1] for turns in (chosen, rejected)):
        message = "a completion starts like the prompt but does not contain all of it."
        remedy = "give only the completions, or the whole conversation; format='implicit_prompt' splits conversations."
        raise RowError("prompt_mismatch", message, remedy, column="prompt")
    _check_turns(chosen, rejected, notes)
    return prompt, chosen, rejected


def _assistant(text: Text) -> list[Message]:
    return [{"role": "assistant", "content": text}] if isinstance(text, str) else text


def _under_text_prompt(
    prompt: str, chosen: list[Message], rejected: list[Message], notes: Notes
) -> tuple[list[Message], list[Message], list[Message]]:
    """Text prompt with conversations: either they answer it, or they already contain it (UltraFeedback's layout)."""
    if not any(turns and turns[0]["role"] != "assistant" for turns in (chosen, rejected)):
        notes["text prompts of conversations became user messages"] += 1
        return [{"role": "user", "content": prompt}], chosen, rejected
    shared, chosen, rejected = split_messages(chosen, rejected)
    if not any(prompt.strip() == turn["content"].strip() for turn in shared):
        message = "chosen and rejected begin with turns that do not contain the prompt's text."
        remedy = "format='implicit_prompt' uses the conversations' own prompt."
        raise RowError("prompt_mismatch", message, remedy, column="prompt")
    notes["the prompt column repeats the conversation's; the conversation was split instead"] += 1
    return shared, chosen, rejected


def _check_turns(chosen: list[Message], rejected: list[Message], notes: Notes) -> None:
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if turns and all(turn["role"] != "assistant" for turn in turns):
            message = f"the {name} completion has no assistant message."
            raise RowError("no_assistant", message, "give the assistant's answer as the completion.", column=name)
    if len(chosen) > 1 or len(rejected) > 1:
        notes["completions of several messages are trained on in full, including user turns"] += 1


def split_implicit(chosen: Text, rejected: Text, notes: Notes) -> tuple[Text, Text, Text]:
    """Prompt, chosen and rejected from two texts or conversations that both begin with the prompt.

    Raises:
        RowError: of different kinds, or without a common beginning.
    """
    if isinstance(chosen, str) and isinstance(rejected, str):
        return split_texts(chosen, rejected)
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise RowError(
            "mixed", "one completion is text, the other is messages.", "use the same form for both.", column="rejected"
        )
    prompt, chosen, rejected = split_messages(chosen, rejected)
    if not prompt:
        message = "chosen and rejected share no first message, so there is no prompt."
        raise RowError(
            "no_prompt", message, "give a prompt column, or conversations that begin with it.", column="chosen"
        )
    _check_turns(chosen, rejected, notes)
    return prompt, chosen, rejected


def split_messages(
    chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """Split off the common leading messages; each side keeps at least its last message."""
    count = 0
    while count < min(len(chosen), len(rejected)) - 1 and chosen[count] == rejected[count]:
        count += 1
    return chosen[:count], chosen[count:], rejected[count:]


def split_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Split off the longest common prefix, cut back so that no word is split and a space goes to the completions.

    The space rule is TRL's; TRL does cut inside words ("bl" + "ue" / "ack"), which teaches tokens that models never
    write.

    Raises:
        RowError: no common prefix.

    Example:
        >>> split_texts("The sky is blue.", "The sky is black.")
        ('The sky is', ' blue.', ' black.')
    """
    limit = min(len(chosen), len(rejected)) - 1
    count = _common_length(chosen, rejected, max(limit, 0))
    while count and (_in_word(chosen, count) or _in_word(rejected, count)):
        count -= 1
    if count and chosen[count - 1] == " ":
        count -= 1
    if not chosen[:count].strip() and chosen != rejected:
        remedy = "give a prompt column, or texts that both begin with the prompt."
        message = "chosen and rejected have no common beginning, so there is no prompt."
        raise RowError("no_prompt", message, remedy, column="chosen")
    return chosen[:count], chosen[count:], rejected[count:]


def _common_length(left: str, right: str, limit: int) -> int:
    """Length of the common prefix up to `limit`, by bisection: comparing slices is far faster than a loop."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if left[:middle] == right[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _is_word(character: str) -> bool:
    return character.isalnum() and ord(character) < _FIRST_UNSPACED


def _in_word(text: str, at: int) -> bool:
    return _is_word(text[at - 1]) and at < len(text) and _is_word(text[at])


def parse_transcript(text: str) -> list[Message]:
    """Messages of a transcript with `Human:` and `Assistant:` turns, as in HH-RLHF.

    A turn's marker includes the empty line before it and one space after it; all other white space belongs to the text.

    Raises:
        RowError: it does not begin with such a turn.

    Example:
        >>> [turn["role"] for turn in parse_transcript("\\n\\nHuman: Hi\\n\\nAssistant: Hello")]
        ['user', 'assistant']
    """
    marks = list(_TRANSCRIPT_TURN.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        message = f"the transcript does not begin with 'Human:' or 'Assistant:' but with {text[:40]!r}."
        raise RowError("transcript", message, "mark turns as '\\n\\nHuman: …' and '\\n\\nAssistant: …'.")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        {"role": "user" if mark[1] == "Human" else "assistant", "content": text[mark.end() : end]}
        for mark, end in zip(marks, ends, strict=True)
    ]
