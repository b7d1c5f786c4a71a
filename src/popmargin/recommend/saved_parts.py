"""A split of item sequences on disk: what every process of a study reads, and the digest that tells it from others."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.account import Step
from popmargin.data.ragged import Ragged
from popmargin.errors import RunError
from popmargin.files import digest, whole_file
from popmargin.recommend.item_sequences import Catalogue
from popmargin.recommend.splitting import Cases, Parts
from popmargin.safe_reading import read_json

ARRAYS, NAMES = "parts.npz", "parts.json"


def parts_digest(parts: Parts) -> str:
    """Digest (hex) of everything that a recommender is fitted on or measured with.

    Example:
        >>> from popmargin.recommend.item_sequences import Sequences
        >>> from popmargin.recommend.splitting import leave_one_out
        >>> one, other = (leave_one_out(Sequences.of([[1, 2, 3, last]])) for last in (4, 5))
        >>> parts_digest(one) == parts_digest(one), parts_digest(one) == parts_digest(other)
        (True, False)
    """
    names = json.dumps([parts.catalogue.names, parts.valid.users, parts.test.users], ensure_ascii=False)
    arrays = [np.ascontiguousarray(array, dtype=np.int64).tobytes() for array in _arrays(parts).values()]
    return digest(names.encode(), *arrays)


def save_parts(folder: Path, parts: Parts) -> None:
    """Write a split into a folder that is there."""
    with whole_file(folder / ARRAYS) as partial, partial.open("wb") as file:
        np.savez(file, **_arrays(parts))
    told = {
        "items": parts.catalogue.names,
        "valid": parts.valid.users,
        "test": parts.test.users,
        "train": parts.train_users,
        "account": [step.to_dict() for step in parts.account],
    }
    with whole_file(folder / NAMES) as partial:
        partial.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")


def load_parts(folder: Path) -> Parts:
    """The split in a folder.

    Raises:
        RunError: its files are missing or cannot be read.

    Example:
        >>> from popmargin.recommend.item_sequences import Sequences
        >>> from popmargin.recommend.splitting import leave_one_out
        >>> Path("split").mkdir()
        >>> save_parts(Path("split"), leave_one_out(Sequences.of([["a", "b", "c", "d"]])))
        >>> parts = load_parts(Path("split"))
        >>> parts.catalogue.names, parts.train[0].tolist(), parts.test.users, parts.test.targets.tolist()
        (('a', 'b', 'c', 'd'), [1, 2], ('0',), [4])
    """
    try:
        told = read_json(folder / NAMES)
        with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
            ragged = {
                name: Ragged(arrays[name], arrays[f"{name} offsets"])
                for name in ("train", "known", "valid histories", "test histories")
            }
            cases = {
                name: Cases(tuple(told[name]), ragged[f"{name} histories"], arrays[f"{name} targets"])
                for name in ("valid", "test")
            }
        account = tuple(Step.from_dict(step) for step in told["account"])
        catalogue, users = Catalogue(tuple(told["items"])), tuple(told["train"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise RunError(f"{folder} holds no split that can be read ({error}). Delete it, and run again.") from error
    return Parts(catalogue, ragged["train"], ragged["known"], cases["valid"], cases["test"], account, users)


def _arrays(parts: Parts) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for name, sequences in (
        ("train", parts.train),
        ("known", parts.known),
        ("valid histories", parts.valid.histories),
        ("test histories", parts.test.histories),
    ):
        arrays |= {name: sequences.values, f"{name} offsets": sequences.offsets}
    return arrays | {"valid targets": parts.valid.targets, "test targets": parts.test.targets}
