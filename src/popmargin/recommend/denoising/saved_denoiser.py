"""Folders of item denoisers: what a training starts from, and a trained model."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file

from popmargin.errors import ConfigError, RunError, counted
from popmargin.files import whole_file, whole_folder
from popmargin.listed_files import refuse_changed
from popmargin.recommend.denoising.item_denoiser import ItemDenoiser, ItemDenoiserOptions
from popmargin.recommend.item_sequences import Catalogue
from popmargin.registry import make_options
from popmargin.safe_reading import read_json

ITEMS = "items.json"
VECTORS = "vectors.safetensors"
WEIGHTS = "model.safetensors"


def write_start(folder: str | Path, catalogue: Catalogue, vectors: Float[np.ndarray, "I D"] | None = None) -> None:
    """Write what a training starts from: the items, and their vectors if these are not learned.

    Raises:
        ConfigError: vectors of another number of items.
        RunError: the folder is there already, or cannot be written.

    Example:
        >>> write_start("start", Catalogue.of(["a", "b"]), np.eye(2, dtype=np.float32))
        >>> catalogue, vectors = read_start("start")
        >>> catalogue.names, vectors.shape
        (('a', 'b'), (2, 2))
    """
    if vectors is not None and len(vectors) != len(catalogue):
        raise ConfigError(f"There are {counted(len(vectors), 'vector')} for {counted(len(catalogue), 'item')}.")
    with whole_folder(folder) as partial:
        (partial / ITEMS).write_text(json.dumps({"items": catalogue.names}, ensure_ascii=False), encoding="utf-8")
        if vectors is not None:
            save_arrays({"vectors": np.ascontiguousarray(vectors, dtype=np.float32)}, partial / VECTORS)


def read_start(folder: str | Path) -> tuple[Catalogue, Float[np.ndarray, "I D"] | None]:
    """The items of a folder, and their given vectors if there are any.

    Raises:
        RunError: it holds no items, or its files cannot be read.
    """
    told, path = _told(folder), Path(folder) / VECTORS
    if not path.is_file():
        return Catalogue(tuple(told["items"])), None
    try:
        return Catalogue(tuple(told["items"])), load_arrays(path)["vectors"]
    except (OSError, SafetensorError, KeyError) as error:
        raise RunError(f"{path}: cannot be read ({error}). Write the start model again with write_start.") from error


def write_trained(folder: str | Path, catalogue: Catalogue, model: ItemDenoiser) -> None:
    """Write beside a model's weights what it takes to load them: items, options, and whether vectors were given."""
    options = {each.name: getattr(model.options, each.name) for each in fields(ItemDenoiserOptions)}
    told = {"items": catalogue.names, "given": model.given, "options": options}
    with whole_file(Path(folder) / ITEMS) as partial:
        partial.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")


def load_item_denoiser(folder: str | Path) -> tuple[ItemDenoiser, Catalogue]:
    """A trained model, in evaluation mode, and its items.

    Raises:
        RunError: the folder holds no trained model, or one that is not as it was written.
    """
    refuse_changed(Path(folder), remedy="Copy the folder again, or train again.")
    told, path = _told(folder), Path(folder) / WEIGHTS
    if "options" not in told or not path.is_file():
        raise RunError(f"{folder} holds items, but no trained model of them.")
    catalogue = Catalogue(tuple(told["items"]))
    options = make_options(ItemDenoiserOptions, told["options"], str(Path(folder) / ITEMS))
    try:
        weights = load_file(path)
        given = weights["table"][1:].numpy() if told["given"] else None
        dimension = None if told["given"] else weights["table"].shape[1]
        model = ItemDenoiser(len(catalogue), dimension=dimension, vectors=given, options=options)
        model.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise RunError(f"{path}: cannot be read ({error}). Train again.") from error
    return model.eval(), catalogue


def _told(folder: str | Path) -> Mapping[str, Any]:
    path = Path(folder) / ITEMS
    try:
        told = read_json(path)
        return {**told, "items": [str(item) for item in told["items"]]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder} holds no items ({ITEMS}: {error}). Write a start model with "
            "popmargin.recommend.denoising.saved_denoiser.write_start."
        ) from error
