"""Tools and tool calls: how messages store them, how chat templates take them, and how people read them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from popmargin.data.conversation import Message
from popmargin.data.validate import RowError

_REMEDY = (
    'write calls as [{"type": "function", "function": {"name": "…", "arguments": {…}}}], tools as transformers takes '
    "them, or leave the row out (--bad-rows drop)."
)


def call_fields(fields: Mapping[str, Any], role: str, column: str) -> Message:
    """The parts of a message besides role and content, as stored in our messages: calls and their results.

    Raises:
        RowError: the calls are not a list of named functions.
    """
    kept: dict[str, str] = {}
    calls = _calls(fields)
    if calls:
        kept["tool_calls"] = _json([_call(call, column) for call in calls])
    if fields.get("tools"):
        kept["tools"] = tools_text(fields["tools"], column)
    for name in ("name", "tool_call_id"):
        if role == "tool" and fields.get(name):
            kept[name] = str(fields[name])
    return cast(Message, kept)


def tools_text(tools: object, column: str) -> str:
    """The tools that a row offers to the model, as JSON text; empty if there are none.

    Raises:
        RowError: they are not a list of objects.
    """
    value = _known(_read(tools))
    if isinstance(value, Mapping):
        value = [value]
    if value in (None, [], ""):
        return ""
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in cast(list[object], value)):
        message = f"the tools are {str(cast(object, value))[:40]!r}, not a list of objects."
        raise RowError("tools", message, _REMEDY, column=column)
    return _json(value)


def for_template(turns: Sequence[Message]) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """Messages and tools as `apply_chat_template` takes them.

    Example:
        >>> for_template([{"role": "user", "content": "Hi", "tools": '[{"name": "f"}]'}])
        ([{'role': 'user', 'content': 'Hi'}], [{'name': 'f'}])
    """
    tools = [tool for turn in turns for tool in json.loads(turn.get("tools", "[]"))]
    plain: list[dict[str, Any]] = []
    for turn in turns:
        fields: dict[str, Any] = {name: value for name, value in turn.items() if name != "tools"}
        if "tool_calls" in fields:
            fields["tool_calls"] = json.loads(fields["tool_calls"])
        plain.append(fields)
    return plain, tools or None


def without(turns: Sequence[Message], name: str) -> list[Message]:
    """The messages without one of their tool fields."""
    return [cast(Message, {key: value for key, value in turn.items() if key != name}) for turn in turns]


def said(turn: Message) -> str:
    """The text of a message for people, rewards and judges, with each call below it.

    Example:
        >>> said({"role": "assistant", "content": "", "tool_calls": '[{"function": {"name": "f", "arguments": {}}}]'})
        'f({})'
    """
    calls = [call["function"] for call in json.loads(turn.get("tool_calls", "[]"))]
    written = [f"{call['name']}({_json(call.get('arguments', {}))})" for call in calls]
    return "\n".join([turn["content"], *written] if turn["content"] else written)


def _calls(fields: Mapping[str, Any]) -> list[Any]:
    if fields.get("tool_calls"):
        calls = _read(fields["tool_calls"])
        return cast(list[Any], calls if isinstance(calls, list) else [calls])
    if fields.get("function_call"):  # an older format for a single call
        return [{"type": "function", "function": _read(fields["function_call"])}]
    return []


def _call(call: object, column: str) -> dict[str, Any]:
    """A call with its arguments as an object, as templates expect; a bare function becomes a call."""
    fields = dict(cast(Mapping[str, Any], call)) if isinstance(call, Mapping) else {}
    if "function" not in fields and "name" in fields:
        fields = {"type": "function", "function": fields}
    function = fields.get("function")
    if not isinstance(function, Mapping) or not isinstance(cast(Mapping[str, Any], function).get("name"), str):
        message = f"the {column} has a tool call without a function's name: {str(call)[:60]!r}."
        raise RowError("tools", message, _REMEDY, column=column)
    inner = dict(cast(Mapping[str, Any], function))
    inner["arguments"] = _read(inner.get("arguments") or {})
    return _known({**fields, "function": inner})


def _known(value: object) -> Any:
    """A value without the null entries of its objects: Arrow gives every object the keys of all."""
    if isinstance(value, Mapping):
        items = cast(Mapping[str, Any], value).items()
        return {name: _known(item) for name, item in items if item is not None}
    return [_known(item) for item in cast(list[object], value)] if isinstance(value, list) else value


def _read(value: object) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
