"""Which numbers a field takes: said once, as its type; checked wherever it is set, and shown in help, docs and schema.

Numbers are numbers: neither true nor the text '8' is one.

Example:
    >>> from pydantic import TypeAdapter
    >>> TypeAdapter(Count).json_schema()
    {'minimum': 0, 'type': 'integer'}
"""

from typing import Annotated

from pydantic import AfterValidator, Field, Strict
from pydantic_core import PydanticCustomError


def _whole(value: float) -> float:
    if value >= 1 and value != int(value):
        raise PydanticCustomError("share_or_count", "Input should be below 1 or a whole number")
    return value


Count = Annotated[int, Strict(), Field(ge=0)]
"""A number of things that may be none."""
Size = Annotated[int, Strict(), Field(ge=1)]
"""A number of things of which there must be one."""
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**32)]
"""What random generators start from."""
NotNegative = Annotated[float, Strict(), Field(ge=0)]
Positive = Annotated[float, Strict(), Field(gt=0)]
PartialShare = Annotated[float, Strict(), Field(ge=0, lt=1)]
"""A share or probability that is never all."""
PositiveShare = Annotated[float, Strict(), Field(gt=0, le=1)]
"""A share or probability that is never none."""
Share = Annotated[float, Strict(), Field(ge=0, le=1)]
"""A share or probability."""
ShareOrCount = Annotated[float, Strict(), Field(ge=0, json_schema_extra={"wholeFrom": 1}), AfterValidator(_whole)]
"""A share below 1, or a whole number from 1 on."""
SomeShareOrCount = Annotated[float, Strict(), Field(gt=0, json_schema_extra={"wholeFrom": 1}), AfterValidator(_whole)]
"""The same, and never none."""
