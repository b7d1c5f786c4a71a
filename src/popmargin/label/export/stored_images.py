"""The images of preferences, from a label store."""

from typing import Any

import pyarrow as pa

from popmargin.data.image_arrow import IMAGE_TYPE
from popmargin.data.images import COLUMNS
from popmargin.label.store.label_store import LabelStore

_ROWS = 256  # an Arrow array holds at most 2 GB


def image_features() -> dict[str, Any]:
    """What `datasets` is told of the columns."""
    import datasets

    return {name: datasets.Image() for name in COLUMNS}


def images_of_table(store: LabelStore, table: Any) -> dict[str, Any]:
    """The columns with the images that `chosen` and `rejected` of a table name: their files, as they were imported.

    Raises:
        DataError: the store lacks one.
    """
    columns: dict[str, Any] = {}
    for column in COLUMNS:
        names: list[str] = table[column.removesuffix("_image")].to_pylist()
        chunks: list[Any] = []
        for start in range(0, len(names), _ROWS):
            part = names[start : start + _ROWS]
            files = store.images(sorted(set(part)))
            chunks.append(pa.array([{"bytes": files[name], "path": None} for name in part], IMAGE_TYPE))
        columns[column] = pa.chunked_array(chunks, IMAGE_TYPE)
    return columns
