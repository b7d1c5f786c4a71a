"""Types for external input: bounded, and storable in every database."""

import secrets
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field


def _no_boolean(value: object) -> object:
    """JSON's true is no 1."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, not a boolean")  # noqa: TRY004 (pydantic answers ValueError with 422)
    return value


RowId = Annotated[int, Field(ge=1, le=2**53 - 1), BeforeValidator(_no_boolean)]
"""Row number, up to the largest integer that JavaScript can represent."""
RequestKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
"""Chosen by the client; repeating a key saves nothing new."""


def _storable(text: str) -> str:
    """The text without NUL, which PostgreSQL refuses, and with lone surrogates replaced."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


Note = Annotated[str, Field(max_length=4000), AfterValidator(_storable)]
Words = Annotated[str, Field(max_length=100_000), AfterValidator(_storable)]
Confidence = Annotated[float | None, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0.0, le=1e8, allow_inf_nan=False)]
Revision = Annotated[int | None, Field(ge=0, le=2**31 - 1)]
"""The revision that a page shows; None replaces whatever stands."""
Name = Annotated[str, Field(min_length=1, max_length=80), AfterValidator(_storable)]


_Short = Annotated[str, Field(max_length=30)]
Choices = Annotated[dict[_Short, _Short], Field(max_length=20)]
"""Criterion -> answer; which ones there are depends on the project."""
Search = Annotated[str, Field(max_length=200), AfterValidator(_storable)]


def new_request() -> str:
    """A fresh request key."""
    return secrets.token_urlsafe(12)
