"""From a file of events to what recommenders are fitted and trained on: a split on disk, rows, and start models."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from popmargin.account import Step
from popmargin.errors import DataError, PopmarginError, RunError, counted
from popmargin.files import digest, folder_digest, whole_file, whole_folder
from popmargin.recommend.cooccurrence import cooccurrence_vectors
from popmargin.recommend.denoising.saved_denoiser import write_start
from popmargin.recommend.item_preferences import case_rows, training_rows
from popmargin.recommend.item_sequences import Sequences
from popmargin.recommend.item_vectors import load_item_vectors, whiten
from popmargin.recommend.read_sequences import load_sequences
from popmargin.recommend.saved_parts import parts_digest, save_parts
from popmargin.recommend.splitting import Parts, leave_one_out, split_by_time, split_by_user
from popmargin.safe_reading import read_json
from popmargin.study.recommenders.recommend_config import EventsConfig, VectorsConfig

SETTINGS = "events.json"
TRAIN, VALID = "train.jsonl", "valid.jsonl"
_OF_ROWS = ("path", "columns", "grades", "bad_rows")


def read_events(settings: EventsConfig) -> Sequences:
    """The sequences of a file.

    Raises:
        DataError: the message names file, row, column and remedy.
    """
    try:
        return load_sequences(
            settings.path, columns=settings.columns, grades=settings.grades, bad_rows=settings.bad_rows
        )
    except DataError as error:
        said = str(error)
        for ours, flag in (("bad_rows='drop'", "data.bad_rows: drop"), ("columns={", "data.columns: {")):
            said = said.replace(ours, flag)
        raise DataError(said) from error


def split_events(data: Sequences, settings: EventsConfig) -> Parts:
    """The split of some sequences, with the account of reading in front of its own.

    Raises:
        ConfigError, DataError: there are no times, or a part is empty.
    """
    shares = (settings.shares[0], settings.shares[1], settings.shares[2])
    try:
        if settings.split == "time":
            parts = split_by_time(data, shares=shares)
        elif settings.split == "leave_one_out":
            parts = leave_one_out(data)
        else:
            parts = split_by_user(data, seed=settings.seed, shares=shares)
    except DataError as error:
        raise DataError(f"{settings.path}, split {settings.split}: {error}") from error
    read = () if data.report is None else (data.report.step,)
    return replace(parts, account=(*read, *parts.account))


def prepare(parts: Parts, settings: EventsConfig, folder: Path, *, overwrite: bool) -> str:
    """Write the split and the rows of models into a folder, unless it has them; returns the digest of the split.

    Raises:
        RunError: the folder holds other data, or something else.
    """
    found = parts_digest(parts)
    told = {"digest": found, "settings": asdict(settings) | {"path": str(Path(settings.path).absolute())}}
    if folder.exists():
        changed = _changed(read_settings(folder), told)
        if not changed:
            return found
        if not overwrite:
            raise RunError(
                f"{folder} was made from other data:\n"
                + "".join(f"  {sentence}\n" for sentence in changed)
                + "Restore them, choose another output, or pass --overwrite to train again what depends on them."
            )
    train, valid = training_rows(parts, prefixes=settings.prefixes), case_rows(parts, parts.valid)
    if not train:
        raise DataError(
            f"{settings.path}: no training sequence has two items, so that a model has nothing to learn from. "
            "Give longer sequences."
        )
    with whole_folder(folder, replace=overwrite) as partial:
        save_parts(partial, parts)
        for name, rows in ((TRAIN, train), (VALID, valid)):
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (partial / name).write_text(lines, encoding="utf-8")
        (partial / SETTINGS).write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
    return found


def read_settings(folder: Path) -> dict[str, Any]:
    """The digest and the settings that a prepared folder was made with.

    Raises:
        RunError: it is no such folder.
    """
    try:
        told = read_json(folder / SETTINGS)
        return {"digest": str(told["digest"]), "settings": dict(told["settings"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder} is there, and holds no prepared events ({SETTINGS}: {error}). Choose another output, or remove "
            "the folder."
        ) from error


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How two preparations differ in what they mean: the split itself, and how rows are made from it."""
    old, new = before["settings"], now["settings"]
    names = [name for name in new if name not in _OF_ROWS and old.get(name) != new[name]]
    if before["digest"] == now["digest"]:
        names = [name for name in names if name == "prefixes"]  # the rest made no difference
    sentences = [f"data.{name}: {old.get(name)} → {new[name]}" for name in names]
    if before["digest"] != now["digest"] and not sentences:
        same = old.get("path") == new["path"]
        sentences.append(f"the events of {new['path']} are not those of {'before' if same else old.get('path')}")
    return sentences


def start_model(parts: Parts, vectors: VectorsConfig, folder: Path) -> tuple[Path, float, list[str]]:
    """The start model for some vectors, written unless it is there.

    Args:
        parts: the split; vectors from co-occurrence see its training part alone.
        vectors: where they come from.
        folder: of start models.

    Returns:
        Its folder, the seconds that it took to make, and sentences on items without a vector.

    Raises:
        DataError: a file that cannot be read, or lacks items.
        ConfigError: a dimension that is too large.
    """
    learned = vectors.source == "learned"
    wanted = {"source": "learned"} if learned else asdict(vectors)
    if vectors.source == "file":
        wanted["digest"] = _file_digest(Path(vectors.path))
        wanted.pop("dimension")
    key = json.dumps([wanted, parts_digest(parts)], sort_keys=True)
    place = folder / f"{vectors.source}-{digest(key.encode())[:12]}"
    note = place.with_suffix(".json")
    if place.is_dir() and note.is_file():
        told = read_json(note)
        return place, float(told["seconds"]), list(told["notes"])
    began, notes = time.perf_counter(), list[str]()
    found = None
    try:
        if vectors.source == "file":
            found, without = load_item_vectors(vectors.path, parts.catalogue, missing=vectors.missing)
            if without:
                notes.append(f"{counted(len(without), 'item')} without a vector in {vectors.path} got the mean")
        elif not learned:
            found = cooccurrence_vectors(parts.train, len(parts.catalogue), vectors.dimension)
        if found is not None and vectors.whiten:
            found = whiten(found, times=vectors.whiten)
    except PopmarginError as error:
        said = str(error).replace("missing='mean'", "vectors.missing: mean")
        raise type(error)(f"vectors: {said}") from error
    if not place.is_dir():
        write_start(place, parts.catalogue, found)
    seconds = time.perf_counter() - began
    with whole_file(note) as partial:
        partial.write_text(json.dumps({"seconds": seconds, "notes": notes, "vectors": wanted}), encoding="utf-8")
    return place, seconds, notes


def start_digest(folder: Path) -> str:
    """Digest of a start model's items and vectors."""
    return folder_digest(folder, (".json", ".safetensors"))


def _file_digest(path: Path) -> str:
    return digest(path.read_bytes()) if path.is_file() else ""


def tell(steps: tuple[Step, ...]) -> list[str]:
    """The account of the events, line by line."""
    return [line for step in steps for line in step.lines()]
