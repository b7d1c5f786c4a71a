"""Texts and messages as stored in the data, and the key by which prompts are equal."""

import json
from collections.abc import Sequence
from typing import Any, NotRequired, TypeAlias, TypedDict, cast

TOOL_FIELDS = ("tool_calls", "name", "tool_call_id", "tools")


class Message(TypedDict):
    """One turn of a conversation, as chat templates take it.

    Tool calls, and the tools that a prompt's first message offers, are JSON text.
    """

    role: str
    content: str
    tool_calls: NotRequired[str]
    name: NotRequired[str]
    tool_call_id: NotRequired[str]
    tools: NotRequired[str]


Text: TypeAlias = str | list[Message]
"""A prompt or a completion: plain text, or messages."""


def prompt_key(prompt: Text) -> str:
    """Canonical text of a prompt: two prompts are equal if and only if their keys are.

    Example:
        >>> prompt_key([{"role": "user", "content": "Hi"}])
        '[["user", "Hi"]]'
    """
    if isinstance(prompt, str):
        return prompt
    return json.dumps([_turn_key(turn) for turn in prompt], ensure_ascii=False)


def _turn_key(turn: Message) -> list[Any]:
    tools = {name: value for name, value in turn.items() if name in TOOL_FIELDS}
    return [turn["role"], turn["content"], *([tools] if tools else [])]


def is_blank(text: Text) -> bool:
    """Whether a text, or every message of it, is empty or whitespace."""
    if isinstance(text, str):
        return not text.strip()
    return not any((message["content"] or "").strip() or message.get("tool_calls") is not None for message in text)


def holds_tools(texts: Sequence[Any]) -> bool:
    """Whether any message has tools or tool calls."""
    return any(name in turn for text in texts if isinstance(text, list) for turn in text for name in TOOL_FIELDS)


def prompt_of_key(key: str) -> list[Message]:
    """The messages of a key; the inverse of `prompt_key`.

    Example:
        >>> prompt_of_key('[["user", "Hi"]]')
        [{'role': 'user', 'content': 'Hi'}]
    """
    turns: list[list[Any]] = json.loads(key)
    return [cast(Message, {"role": turn[0], "content": turn[1], **dict(*turn[2:])}) for turn in turns]
