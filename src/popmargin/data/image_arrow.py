"""Columns of images in tables, each `{bytes, path}` as `datasets.Image` stores it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from popmargin.data.images import COLUMNS

pc: Any = pyarrow.compute
IMAGE_TYPE: Any = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""An image's bytes, or else its path."""


def image_array(images: Sequence[Mapping[str, Any] | None]) -> Any:
    """Images as an Arrow column."""
    return pa.chunked_array([pa.array(images, IMAGE_TYPE)])


def images_by_path(schema: Any, tables: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """Tables for JSON: image columns that hold only paths, without their empty field of bytes."""
    for name in COLUMNS:
        place = schema.get_field_index(name)
        if place < 0 or schema.field(place).type != IMAGE_TYPE:
            continue
        if any(pc.struct_field(table[name], "bytes").null_count < len(table) for table in tables):
            continue
        kind = pa.struct([("path", pa.string())])
        schema = schema.set(place, pa.field(name, kind))
        tables = [table.set_column(table.schema.get_field_index(name), name, _paths(table[name])) for table in tables]
    return schema, tables


def _paths(column: Any) -> Any:
    paths = pc.struct_field(column, "path").combine_chunks()
    return pa.chunked_array([pa.StructArray.from_arrays([paths], ["path"])])
