"""Preferences between images as inputs of a denoising model: latents and encoded prompts, computed once.

Axis suffixes: N preferences, P those of a batch, U distinct images or prompts, K fixed draws.
"""

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float32
from tqdm.auto import tqdm

from popmargin.data.images import COLUMNS, decode, image_bytes, is_image_name, pillow
from popmargin.data.schema import Preferences
from popmargin.engine.diffusion.draws import pair_key
from popmargin.errors import DataError
from popmargin.files import digest, whole_folder
from popmargin.listed_files import LISTED, fault_of, write_list
from popmargin.models.pipelines import Pipeline

_LOG = logging.getLogger(__name__)
_BATCH = 32  # images or prompts that are encoded at once


@dataclass(frozen=True)
class ImageReport:
    """How preferences between images were encoded.

    Attributes:
        rows_in: preferences.
        rows_kept: those that are used.
        dropped: (id, reason) of each other one.
        size: height and width of the images in pixels, as they are trained on.
        resized: images of another size, which are scaled and cut.
    """

    rows_in: int
    rows_kept: int
    dropped: tuple[tuple[str, str], ...] = ()
    size: int = 0
    resized: int = 0

    def notes(self) -> list[str]:
        """What happened to the images, as sentences."""
        return [f"images scaled and cut to {self.size} × {self.size} pixels: {self.resized}"] if self.resized else []

    def to_dict(self) -> dict[str, Any]:
        """For run.json."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class ImagePreferences:
    """Preferences between images (N,).

    Attributes:
        ids: of the preferences.
        index: their rows among the input preferences.
        report: how they were encoded.
        keys: of their draws (N,).
        latents: of the distinct images (U, C, h, w), memory-mapped.
        chosen: which of them is chosen (N,).
        rejected: which is rejected (N,).
        text: encoded distinct prompts by name (U, …), memory-mapped; the last row is the empty prompt.
        prompts: which of them belongs to each preference (N,).
        fingerprint: of everything here.
    """

    ids: list[str]
    index: list[int]
    report: ImageReport
    keys: np.ndarray
    latents: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    text: Mapping[str, np.ndarray]
    prompts: np.ndarray
    fingerprint: str

    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Images have no lengths."""
        return np.zeros(len(self)), np.zeros(len(self))

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class ImageInputs:
    """Preferences between images as batches.

    Attributes:
        encoded: the preferences.
        errors: the reference's errors of both images under the fixed draws (N, K, 2); None for other draws.
        live: whether the reference scores with the model.
    """

    encoded: ImagePreferences
    errors: np.ndarray | None = None
    live: bool = False

    @property
    def ids(self) -> list[str]:
        """Of the preferences (N,)."""
        return self.encoded.ids

    def costs(self) -> np.ndarray:
        """Patches of 2 × 2 latents of both images of each preference (N,), which count as tokens."""
        height, width = self.encoded.latents.shape[-2:]
        return np.full(len(self), 2 * max(1, height * width // 4), dtype=np.int64)

    def work(self) -> np.ndarray:
        """Images: two a preference (N,)."""
        return np.full(len(self), 2, dtype=np.int64)

    def collate(self, preferences: np.ndarray) -> dict[str, Any]:
        """Latents, encoded prompts and keys of some preferences (P,), and the reference's errors if they are known."""
        encoded = self.encoded
        prompts = encoded.prompts[preferences]
        batch: dict[str, Any] = {
            "chosen": torch.from_numpy(encoded.latents[encoded.chosen[preferences]]),
            "rejected": torch.from_numpy(encoded.latents[encoded.rejected[preferences]]),
            "text": {name: torch.from_numpy(values[prompts]) for name, values in encoded.text.items()},
            "empty": {name: torch.from_numpy(values[-1:].copy()) for name, values in encoded.text.items()},
            "keys": encoded.keys[preferences],
            "live": self.live,
        }
        if self.errors is not None:
            batch["errors"] = torch.from_numpy(self.errors[preferences])
        return batch

    def __len__(self) -> int:
        return len(self.encoded)


def encode_preferences(preferences: Preferences, pipeline: Pipeline, cache: Path) -> ImagePreferences:
    """Preferences between images as latents and encoded prompts, from the cache or computed and stored.

    Args:
        preferences: their responses are images.
        pipeline: encodes them.
        cache: folder of encodings.

    Raises:
        DataError: a response is no image, an image cannot be read, or a prompt is a conversation; it names the row.
    """
    names, prompts = _texts(preferences)
    images = {name: place for place, name in enumerate(dict.fromkeys(names[0] + names[1]))}
    texts = [*dict.fromkeys(prompts), ""]
    places = {text: place for place, text in enumerate(texts)}
    key = digest(str(pipeline.size).encode(), pipeline.fingerprint("vae").encode(), *map(str.encode, images))
    folder = cache / f"latents-{key}"
    with _built(folder) as partial:
        if partial is not None:
            _store_latents(partial, preferences, names, images, pipeline)
    text_key = digest(pipeline.fingerprint(*pipeline.conditioning).encode(), *(text.encode() for text in texts))
    text_folder = cache / f"text-{text_key}"
    with _built(text_folder) as partial:
        if partial is not None:
            _store_text(partial, texts, pipeline)
    resized = int(np.load(folder / "resized.npy"))
    return ImagePreferences(
        ids=preferences.ids,
        index=list(range(len(preferences))),
        report=ImageReport(len(preferences), len(preferences), size=pipeline.size, resized=resized),
        keys=np.array([pair_key(name) for name in preferences.ids], dtype=np.int64),
        latents=np.load(folder / "latents.npy", mmap_mode="r"),
        chosen=np.array([images[name] for name in names[0]], dtype=np.int64),
        rejected=np.array([images[name] for name in names[1]], dtype=np.int64),
        text={file.stem: np.load(file, mmap_mode="r") for file in sorted(text_folder.glob("*.npy"))},
        prompts=np.array([places[text] for text in prompts], dtype=np.int64),
        fingerprint=digest(key.encode(), text_key.encode(), *(f"{i}{a}{b}{p}".encode() for i, a, b, p in zip(
            preferences.ids, *names, prompts, strict=True))),
    )  # fmt: skip


def _texts(preferences: Preferences) -> tuple[tuple[list[str], list[str]], list[str]]:
    """Names of the chosen and of the rejected images, and the prompts."""
    columns = preferences.columns
    missing = [name for name in COLUMNS if name not in columns]
    chosen, rejected, prompts = list[str](), list[str](), list[str]()
    for batch in preferences.batches("id", "prompt", "chosen", "rejected"):
        for name, prompt, better, worse in zip(*(batch[key] for key in ("id", "prompt", "chosen", "rejected")),
                                               strict=True):  # fmt: skip
            if missing or not (is_image_name(better) and is_image_name(worse)):
                raise DataError(
                    f"Preference '{name}' is between texts: {better!r:.40}. A text-to-image model is trained on "
                    "preferences between images, in the columns chosen and rejected or chosen_image and "
                    "rejected_image; for texts, set task: policy."
                )
            if not isinstance(prompt, str):
                raise DataError(f"Preference '{name}': the prompt is a conversation; for images it must be a text.")
            chosen.append(better)
            rejected.append(worse)
            prompts.append(prompt)
    return (chosen, rejected), prompts


@contextmanager
def _built(folder: Path) -> Generator[Path | None]:
    """A folder of the cache, built by one process while others wait; None if it is there and as it was written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if folder.is_dir():
            fault = fault_of(folder) if (folder / LISTED).exists() else None  # older versions made no list
            if fault is None:
                yield None
                return
            _LOG.warning("%s is not used: %s. It is made again.", folder, fault)
        with whole_folder(folder, replace=True) as partial:
            yield partial
            write_list(partial, list(partial.iterdir()))


def _store_latents(
    folder: Path,
    preferences: Preferences,
    names: tuple[list[str], list[str]],
    images: Mapping[str, int],
    pipeline: Pipeline,
) -> None:
    stored = np.lib.format.open_memmap(folder / "latents.npy", "w+", np.float32, (len(images), *pipeline.shape))
    waiting: list[tuple[int, np.ndarray]] = []
    resized = 0

    def flush() -> None:
        if waiting:
            pixels = torch.from_numpy(np.stack([image for _, image in waiting])).to(pipeline.device)
            stored[[place for place, _ in waiting]] = pipeline.encode_images(pixels).float().cpu().numpy()
            waiting.clear()

    for place, name, cell, where in tqdm(_cells(preferences, names, images), total=len(images), desc="latents",
                                         disable=pipeline.vae is None):  # fmt: skip
        pixels = decode(image_bytes(cell, name=name, where=where), where=where)
        resized += pixels.shape[:2] != (pipeline.size, pipeline.size)
        waiting.append((place, as_model_sees(pixels, pipeline.size)))
        if len(waiting) == _BATCH:
            flush()
    flush()
    stored.flush()
    np.save(folder / "resized.npy", np.int64(resized))


def _cells(
    preferences: Preferences, names: tuple[list[str], list[str]], images: Mapping[str, int]
) -> Iterator[tuple[int, str, Any, str]]:
    """Every distinct image once: its place, name, cell of the data, and row."""
    seen: set[str] = set()
    row = 0
    for batch in preferences.batches("id", *COLUMNS):
        for number, identity in enumerate(batch["id"]):
            for side, column in zip(names, COLUMNS, strict=True):
                name = side[row]
                if name not in seen:
                    seen.add(name)
                    yield images[name], name, batch[column][number], f"preference '{identity}', column '{column}'"
            row += 1


def as_model_sees(pixels: np.ndarray, size: int) -> Float32[np.ndarray, "3 size size"]:
    """RGB pixels, 0 to 255 (H, W, 3), scaled to `size` along the shorter side, cut in the middle, from −1 to 1.

    Example:
        >>> as_model_sees(np.full((4, 6, 3), 255, np.uint8), 4).shape
        (3, 4, 4)
    """
    height, width = pixels.shape[:2]
    if (height, width) != (size, size):
        scale = size / min(height, width)
        wide, high = max(size, round(width * scale)), max(size, round(height * scale))
        module = pillow()
        image = module.fromarray(pixels).resize((wide, high), module.Resampling.LANCZOS, reducing_gap=3.0)
        left, top = (wide - size) // 2, (high - size) // 2
        pixels = np.asarray(image.crop((left, top, left + size, top + size)))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / 127.5 - 1


def _store_text(folder: Path, texts: Sequence[str], pipeline: Pipeline) -> None:
    stored: dict[str, Any] = {}
    for start in tqdm(range(0, len(texts), _BATCH), desc="prompts", disable=len(texts) <= _BATCH):
        text = pipeline.encode_prompts(texts[start : start + _BATCH])
        for name, values in text.items():
            rows = values.float().cpu().numpy() if values.is_floating_point() else values.cpu().numpy()
            if name not in stored:
                shape = (len(texts), *rows.shape[1:])
                stored[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", rows.dtype, shape)
            stored[name][start : start + len(rows)] = rows
    for values in stored.values():
        values.flush()


def stored_errors(folder: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The reference's errors from a folder of the cache, or computed and stored there."""
    with _built(folder) as partial:
        if partial is not None:
            np.save(partial / "errors.npy", compute())
    return np.load(folder / "errors.npy")
