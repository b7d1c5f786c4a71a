"""Allowed numbers of fields, defined once, as types; checked wherever set, and shown in help, docs and schema.

Only numbers count as numbers: neither true nor the text '8' does.

Example:
    >>> from pydantic import TypeAdapter
    >>> TypeAdapter(Count).json_schema()
    {'minimum': 0, 'type': 'integer'}
"""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, Strict
from pydantic_core import PydanticCustomError


def _whole(value: float) -> float:
    if value >= 1 and value != int(value):
        raise PydanticCustomError("share_or_count", "Input should be below 1 or a whole number")
    return value


def _without_password(value: str) -> str:
    if re.match(r"[\w+.-]+://[^/@:]*:[^/@]+@", value):
        raise PydanticCustomError(
            "password",
            "holds a password, which would be stored with the run and its report. Leave it out, and set the "
            "environment variable PGPASSWORD",
        )
    return value


Count = Annotated[int, Strict(), Field(ge=0)]
"""A count, possibly 0."""
Size = Annotated[int, Strict(), Field(ge=1)]
"""A count of at least 1."""
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**32)]
"""A seed of random generators."""
MOST_PIXELS = 178_956_970
"""Pillow opens no larger image."""
Pixels = Annotated[int, Strict(), Field(ge=1, le=MOST_PIXELS)]
"""A limit of an image's width times height."""
Address = Annotated[str, AfterValidator(_without_password)]
"""The name of a file or the URL of a database, without a password."""
NotNegative = Annotated[float, Strict(), Field(ge=0)]
Positive = Annotated[float, Strict(), Field(gt=0)]
PartialShare = Annotated[float, Strict(), Field(ge=0, lt=1)]
"""A share or probability below 1."""
PositiveShare = Annotated[float, Strict(), Field(gt=0, le=1)]
"""A share or probability that is never none."""
RightShare = Annotated[float, Strict(), Field(gt=0.5, lt=1)]
"""A share of two answers that is better than chance, and not all."""
Goal = Annotated[float, Strict(), Field(ge=1, le=10)]
"""A score that a prompt asks for."""
Share = Annotated[float, Strict(), Field(ge=0, le=1)]
"""A share or probability."""
ShareOrCount = Annotated[float, Strict(), Field(ge=0, json_schema_extra={"wholeFrom": 1}), AfterValidator(_whole)]
"""A share below 1, or a whole number from 1 on."""
SomeShareOrCount = Annotated[float, Strict(), Field(gt=0, json_schema_extra={"wholeFrom": 1}), AfterValidator(_whole)]
"""The same, but above 0."""
