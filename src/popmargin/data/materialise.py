"""Streaming data sets, written to disk once: a next epoch, run or resume must find the same rows."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import lazy_loader

from popmargin.errors import DataError
from popmargin.files import user_cache

if TYPE_CHECKING:
    import datasets
else:  # it takes a second, and many commands need none of it
    datasets = lazy_loader.load("datasets")


def materialised(stream: "datasets.IterableDataset", name: str) -> "datasets.Dataset":
    """The rows of a stream, memory-mapped from the user's cache folder.

    They are read from the stream the first time only. `datasets` recognizes a stream by a hash of how it was made: of
    a hub data set that includes its revision; of a generator, its code and arguments.

    Args:
        stream: rows, each read once.
        name: of the stream, for messages.

    Raises:
        DataError: the stream fails, or its rows have different columns.
    """
    whole: Any = datasets
    try:
        found: Any = datasets.Dataset.from_generator(
            _rows, features=stream.features, cache_dir=str(user_cache() / "streams"), gen_kwargs={"stream": stream}
        )
    except (whole.exceptions.DatasetGenerationError, OSError) as error:
        cause = error.__cause__ or error
        raise DataError(
            f"{name}: the stream could not be written to {user_cache() / 'streams'} ({cause}). Remedy: look at its "
            "rows, which must have the same columns and types, or set POPMARGIN_CACHE to a folder with room."
        ) from error
    return found


def _rows(stream: "datasets.IterableDataset") -> Iterator[dict[str, Any]]:
    yield from stream
