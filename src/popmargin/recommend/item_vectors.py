"""Item vectors: from a file, and whitened."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from popmargin.errors import ConfigError, DataError, counted, did_you_mean, first_few
from popmargin.files import no_such_file
from popmargin.recommend.cooccurrence import fixed_signs
from popmargin.recommend.event_columns import item_id
from popmargin.recommend.item_sequences import Catalogue
from popmargin.safe_reading import check_regular

_FLAT = 1e-10  # a direction with less of the largest variance is rounding


def load_item_vectors(
    path: str | Path, catalogue: Catalogue, *, missing: Literal["refuse", "mean"] = "refuse"
) -> tuple[Float[np.ndarray, "I D"], tuple[str, ...]]:
    """Vectors of a catalogue's items from a file, whatever order the file has.

    A `.npz` has the arrays `ids` (N,) and `vectors` (N, D); a `.safetensors` the tensor `vectors`, and `ids` as a
    tensor or as a JSON list in its metadata; a `.parquet` the columns `item` and `vector` (lists).

    Args:
        path: the file.
        catalogue: the items; vectors of other items are not used.
        missing: "refuse" items without a vector, or give them the "mean" of the others.

    Returns:
        The vectors (I, D), float32, row j of item j + 1, and the names of items without one in the file.

    Raises:
        DataError: unreadable, an item twice, numbers that are not finite, or missing items; the message names them.
    """
    if missing not in ("refuse", "mean"):
        raise ConfigError(f"missing is {missing!r}. {did_you_mean(missing, ('refuse', 'mean'))}")
    file = Path(path)
    if not file.is_file():
        raise DataError(no_such_file(path))
    ids, vectors = _read(file)
    if vectors.ndim != 2 or len(ids) != len(vectors):
        raise DataError(
            f"{path}: {counted(len(ids), 'id')} and vectors of shape {vectors.shape}. Remedy: one row an id."
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        names = first_few([ids[row] for row in bad])
        raise DataError(
            f"{path}: {counted(len(bad), 'vector')} with a number that is not finite, the first in row {bad[0]}: "
            f"{names}. Remedy: compute them again."
        )
    place: dict[str, int] = {}
    for row, name in enumerate(ids):
        if place.setdefault(name, row) != row:
            raise DataError(f"{path}: rows {place[name]} and {row} are both '{name}'. Remedy: give an item one vector.")
    without = tuple(name for name in catalogue.names if name not in place)
    if without and (missing == "refuse" or len(without) == len(catalogue)):
        raise DataError(
            f"{path}: {len(without)} of {counted(len(catalogue), 'item')} have no vector: {first_few(without)}. "
            "Remedy: add them, or give them the mean of the others: missing='mean'."
        )
    known = vectors[[place[name] for name in catalogue.names if name in place]]
    filled = np.broadcast_to(known.mean(axis=0), (len(catalogue), vectors.shape[1])).astype(np.float32)
    filled[[name in place for name in catalogue.names]] = known
    return filled, without


def _read(file: Path) -> tuple[list[str], np.ndarray]:
    readers: Mapping[str, Any] = {".npz": _of_npz, ".safetensors": _of_safetensors, ".parquet": _of_parquet}
    reader = readers.get(file.suffix.lower())
    check_regular(file, DataError)
    if reader is None:
        raise DataError(f"{file}: unknown file type. Remedy: the name must end in {', '.join(readers)}.")
    try:
        ids, vectors = reader(file)
        return [item_id(each) for each in ids], np.asarray(vectors, dtype=np.float32)
    except KeyError as error:
        raise DataError(
            f"{file} lacks {error}. Remedy: it needs ids and vectors (Parquet: item and vector)."
        ) from error
    except DataError:
        raise
    except Exception as error:  # three libraries, each with errors of its own
        raise DataError(f"{file}: cannot be read as vectors of items ({error}). Remedy: write it again.") from error


_MOST_UNPACKED = 2**34
"""Bytes of a packed array: 16 GiB, more than four million vectors of 1024 numbers."""


def _of_npz(file: Path) -> tuple[list[Any], Any]:
    with zipfile.ZipFile(file) as parts:
        unpacked = sum(part.file_size for part in parts.infolist())
    if unpacked > _MOST_UNPACKED:
        raise DataError(f"{file} unpacks to {unpacked:,} bytes. Remedy: write the vectors as .safetensors or .parquet.")
    with np.load(file, allow_pickle=False) as arrays:
        return list(arrays["ids"].tolist()), arrays["vectors"]


def _of_safetensors(file: Path) -> tuple[list[Any], Any]:
    from safetensors import safe_open

    with safe_open(file, "numpy") as tensors:
        listed = (tensors.metadata() or {}).get("ids")
        if listed is None and "ids" not in tensors.keys():  # noqa: SIM118 (a file, not a mapping)
            raise KeyError("ids")
        ids = json.loads(listed) if listed is not None else tensors.get_tensor("ids").tolist()
        return ids, tensors.get_tensor("vectors")


def _of_parquet(file: Path) -> tuple[list[Any], Any]:
    import pyarrow.parquet as pq

    table = pq.read_table(file, columns=["item", "vector"])
    rows = table["vector"].to_pylist()
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        first = next(number for number, row in enumerate(rows) if len(row) != len(rows[0]))
        raise DataError(
            f"{file}, row {first} (from 0), column 'vector': {counted(len(rows[first]), 'number')}, the first row has "
            f"{len(rows[0])}. Remedy: give all vectors one length."
        )
    return table["item"].to_pylist(), np.array(rows, dtype=np.float32)


def whiten(vectors: Float[np.ndarray, "I D"], *, times: int = 1) -> Float[np.ndarray, "I _"]:
    """Vectors with mean 0 and unit variance in every direction, uncorrelated (I, D'), float32.

    The mean comes off, the eigenbasis of the covariance becomes the axes (largest variance first, the largest entry of
    each positive), and every axis is divided by its standard deviation. Directions without variance are dropped, so D'
    may be smaller than D. PreferDiff's text vectors are whitened twice; the second time only mends rounding.

    Args:
        vectors: (I, D).
        times: how often; 0 returns them as they are.

    Raises:
        ConfigError: a negative number of times.
        DataError: all vectors are the same.

    Example:
        >>> white = whiten(np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]]))
        >>> white.tolist()
        [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]
    """
    if times < 0:
        raise ConfigError(f"times is {times}; give 0, 1 or 2.")
    white = np.asarray(vectors, dtype=np.float64)
    for _ in range(times):
        white = white - white.mean(axis=0)  # (I, D)
        variance, axes = np.linalg.eigh(white.T @ white / len(white))
        used = np.flatnonzero(variance > _FLAT * max(variance[-1], np.finfo(np.float64).tiny))[::-1]
        if not variance[-1] > 0:
            raise DataError("All vectors are the same: nothing to whiten. Remedy: check how they were made.")
        white = fixed_signs(white @ axes[:, used] / np.sqrt(variance[used]))
    return white.astype(np.float32)
