"""`Responses` as an Arrow table: one row a prompt, with its responses as a list of objects; and back, as they were."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from popmargin.data.conversation import holds_tools
from popmargin.data.response_parts import Flat, ResponseParts
from popmargin.data.saving import known_fields
from popmargin.data.schema import arrow_schema
from popmargin.errors import DataError

_SCORES_KEY = b"popmargin.scores"
"""Of the table's metadata: which numbers of a response are scores. A table that has it is one of ours."""
_KINDS: dict[str, Any] = {"finished": pa.bool_(), "tokens": pa.int64(), "source": pa.string(), "round": pa.int64()}


def table_of(rows: Sequence[Mapping[str, Any]], parts: ResponseParts) -> Any:
    """The table that `Responses.save` writes.

    Args:
        rows: one a prompt, as `Responses` gives them.
        parts: what they are made of; scores and fields flat.

    Raises:
        DataError: prompts or responses that are partly texts and partly messages.
    """
    texts = [text for of_prompt in parts.responses for text in of_prompt]
    tools = holds_tools([*parts.prompts, *texts])
    of_prompt, of_response = (
        arrow_schema(conversational=any(not isinstance(text, str) for text in some), tools=tools).field("prompt").type
        for some in (parts.prompts, texts)
    )
    fields = [("text", of_response)] + [(name, pa.float64()) for name in parts.scores]
    fields += [(name, _KINDS.get(name) or pa.array(values).type) for name, values in parts.fields.items()]
    columns = [(name, pa.array(values).type) for name, values in parts.columns.items()]
    schema = pa.schema([("prompt", of_prompt), *columns, ("responses", pa.list_(pa.struct(fields)))])
    try:
        table = pa.Table.from_pylist(list(rows), schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"The responses cannot be a table ({error}). Give all prompts as texts or all as messages, and all "
            "responses likewise."
        ) from error
    return table.replace_schema_metadata({_SCORES_KEY: json.dumps(list(parts.scores)).encode()})


def is_ours(table: Any) -> bool:
    """Whether `table_of` made a table (or what a file holds of it)."""
    return _SCORES_KEY in (table.schema.metadata or {})


def of_table(table: Any) -> ResponseParts:
    """What `table_of` made a table of; texts stay as they are, even if they look like messages."""
    names: list[str] = json.loads(table.schema.metadata[_SCORES_KEY])
    columns = table.to_pydict()
    prompts, listed = map(known_fields, columns.pop("prompt")), columns.pop("responses")
    flat = [response for of_prompt in listed for response in of_prompt]
    struct = table.schema.field("responses").type.value_type
    known = [struct.field(place).name for place in range(struct.num_fields)]
    values: dict[str, list[Any]] = {name: [response[name] for response in flat] for name in known if name != "text"}
    return ResponseParts(
        list(prompts),
        [[known_fields(response["text"]) for response in of_prompt] for of_prompt in listed],
        {name: [math.nan if value is None else value for value in values[name]] for name in names},
        {name: Flat(of) for name, of in values.items() if name not in names},
        columns,
    )
