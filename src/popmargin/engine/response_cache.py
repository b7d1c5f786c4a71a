"""Numbers of whole responses under one frozen model: computed once, kept on disk, shared by all runs.

A value is keyed only by what determines it: the token ids of prompt and completion, and the settings of a cache, such
as the model's weights and architecture. Learning rates, objectives, splits, batch sizes and file names do not matter.
Shards are named by the digest of their content, and memory-mapped: a run touches only the pages it needs, and several
runs share them.
"""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.numpy import save
from safetensors.torch import load_file
from tqdm.auto import tqdm

from popmargin.engine.processes import from_first_process, largest_of_all, place_of, process_count, process_number
from popmargin.engine.sequences import Layout, Sequences, make_sequences, sequences_to, split_to_budget
from popmargin.errors import RunError, counted
from popmargin.files import whole_file

_LOG = logging.getLogger(__name__)
_PIECE_TOKENS = 32_000  # a killed build loses at most this many tokens of work


@dataclass(frozen=True)
class ResponseScorer:
    """Computes the values of responses.

    Attributes:
        model: the frozen model.
        layout: of its rows.
        compute: from sequences to one float32 array per response.
        prompts, completions: token ids of all responses.
        tokens_per_batch: maximum tokens per forward pass.
        pad_id: a padding token.
        whole: make sequences of whole responses, with their last tokens.
    """

    model: Any
    layout: Layout
    compute: Callable[[Sequences], list[np.ndarray]]
    prompts: Sequence[np.ndarray]
    completions: Sequence[np.ndarray]
    tokens_per_batch: int
    pad_id: int
    whole: bool = False

    def passes(self, numbers: dict[bytes, int]) -> int:
        """How many forward passes `values` makes."""
        batches = self._batches(numbers)
        return sum(map(len, batches)) if self.layout == "alone" else len(batches)

    @torch.no_grad()
    def values(
        self, numbers: dict[bytes, int], *, passes: int = 0, idle: Mapping[bytes, int] = {}
    ) -> dict[bytes, np.ndarray]:
        """Values of the responses with these numbers.

        Args:
            numbers: key -> number of the response.
            passes: forward passes to make at least, because other processes make them too.
            idle: a response for those without an own one.
        """
        self.model.eval()
        result: dict[bytes, np.ndarray] = {}
        for batch in self._batches(numbers):
            result |= self._score(batch, numbers)
        for _ in range(passes - self.passes(numbers)):
            self._score(list(idle), idle)
        return result

    def _score(self, batch: list[bytes], numbers: Mapping[bytes, int]) -> dict[bytes, np.ndarray]:
        prompts, completions = ([texts[numbers[key]] for key in batch] for texts in (self.prompts, self.completions))
        sequences = make_sequences(prompts, completions, self.pad_id, self.layout, whole=self.whole)
        return dict(zip(batch, self.compute(sequences_to(sequences, place_of(self.model))), strict=True))

    def _batches(self, numbers: dict[bytes, int]) -> list[list[bytes]]:
        """Forward passes; responses to a prompt stay together as long as they fit, so packed rows share the prompt."""
        groups: list[list[bytes]] = []
        tokens: list[int] = []
        last: dict[bytes, int] = {}
        for key, number in numbers.items():
            prompt, completion = self.prompts[number], len(self.completions[number])
            more = completion + (0 if self.layout == "packed" else len(prompt))
            place = last.get(prompt.tobytes())
            if place is None or tokens[place] + more > self.tokens_per_batch:
                last[prompt.tobytes()] = len(groups)
                groups.append([key])
                tokens.append(len(prompt) + completion)
            else:
                groups[place].append(key)
                tokens[place] += more
        parts = split_to_budget(tokens, self.tokens_per_batch)
        return [[key for place in part for key in groups[place]] for part in parts]


class ResponseCache:
    """Float32 arrays of responses on disk, for one model and one way of computing them.

    Any number of processes may use it at once, of one run or of several: they share the work of a build.

    Args:
        directory: folder that holds caches of all models.
        settings: what determines the values besides the tokens.
        name: of the cache, for messages.
        holds: what its values are, for messages.
        together: whether the model is divided among processes, which then score in step, each its share.
    """

    def __init__(
        self, directory: Path, settings: Mapping[str, Any], *, name: str, holds: str, together: bool = False
    ) -> None:
        text = json.dumps(settings, sort_keys=True)
        self.folder = directory / hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        self._settings = text.encode()
        self._name, self._holds, self._together = name, holds, together
        self._values: dict[bytes, np.ndarray] = {}
        self._read: set[str] = set()
        self._read_new_shards()

    def _read_new_shards(self) -> None:
        for shard in sorted(self.folder.glob("shard-*.safetensors")):
            if shard.name in self._read:
                continue
            try:
                self._values.update(_read_shard(shard, self._name))
                self._read.add(shard.name)
            except RunError as error:
                _LOG.warning("%s It is not used, and its values are computed again.", error)
                with contextlib.suppress(OSError):
                    shard.unlink(missing_ok=True)

    def look_up(
        self,
        prompts: Sequence[np.ndarray],
        completions: Sequence[np.ndarray],
        scorer: Callable[[], ResponseScorer],
        *,
        progress: str = "",
    ) -> dict[bytes, np.ndarray]:
        """Values of responses, from the cache or computed and stored.

        Args:
            prompts: token ids, one array per response.
            completions: token ids, one array per response.
            scorer: returns what computes the values of these responses; called only if something is missing.
            progress: label of a progress bar; empty for none.

        Returns:
            The value of each distinct response by its `response_key`, in the order of their first appearance.

        Raises:
            RunError: what is computed cannot be written.
        """
        keys = [response_key(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        wanted = {key: number for number, key in enumerate(keys)}
        pieces = [piece for piece in _pieces(wanted, prompts, completions) if self._missing(piece)]
        if self._together:
            pieces = from_first_process(pieces)  # another run may have written some while this process looked
        if pieces:
            self._open_to_write(sum(len(self._missing(piece)) for piece in pieces))
            found = scorer()
            with tqdm(
                total=sum(len(self._missing(piece)) for piece in pieces),
                desc=progress,
                unit="response",
                disable=not progress,
            ) as bar:
                if self._together:
                    self._build_together(pieces, wanted, found, bar)
                    pieces = []
                # First what no other process is working on, then what others have begun: done by then, unless they were
                # killed.
                begun = [piece for piece in pieces if not self._build(piece, wanted, found, bar, wait=False)]
                for piece in begun:
                    self._build(piece, wanted, found, bar, wait=True)
        return {key: self._values[key] for key in keys}

    def _open_to_write(self, missing: int) -> None:
        """Make the folder, only now that something is stored: a complete cache may be on a read-only disk."""
        file = self.folder / "settings.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (file.is_file() and file.read_bytes() == self._settings):
                _write_whole(file, self._settings)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except (OSError, RunError) as error:
            raise RunError(
                f"The {self._name} {self.folder} lacks {self._holds} of {counted(missing, 'response')}, and cannot be "
                f"written ({error.strerror if isinstance(error, OSError) else error}). Set reference.cache to another "
                "folder."
            ) from error

    def _build_together(
        self, pieces: list[list[bytes]], wanted: dict[bytes, int], scorer: ResponseScorer, bar: Any
    ) -> None:
        """Compute and store pieces with a model that is divided among processes: each scores its share of them.

        Every forward pass is one of all processes, so one with fewer passes than another repeats a short one.
        """
        number, processes = process_number(), process_count()
        for start in range(0, len(pieces), processes):
            mine = pieces[start + number] if start + number < len(pieces) else []
            missing = {key: wanted[key] for key in self._missing(mine)}
            passes = largest_of_all(scorer.passes(missing))
            values = scorer.values(missing, passes=passes, idle={pieces[-1][-1]: wanted[pieces[-1][-1]]})
            if values:
                self._store(values)
            bar.update(sum(len(piece) for piece in pieces[start : start + processes]))
        largest_of_all(0)  # every process has written its share
        self._read_new_shards()
        lost = sum(key not in self._values for key in wanted)
        if largest_of_all(lost):
            raise RunError(
                f"The {self._name} {self.folder.parent} is not one folder for all processes, each of which computes "
                f"its share of the {self._holds}. Set reference.cache to a folder on a file system that they share."
            )

    def _missing(self, piece: list[bytes]) -> list[bytes]:
        return [key for key in piece if key not in self._values]

    def _build(
        self, piece: list[bytes], wanted: dict[bytes, int], scorer: ResponseScorer, bar: Any, *, wait: bool
    ) -> bool:
        """Compute and store what is missing of a piece, under a lock that the system releases if the process dies.

        Returns:
            Whether it is there now; False if another process is working on it and this one does not wait.
        """
        file = self.folder / f"{_digest(b''.join(piece))}.lock"
        lock = FileLock(file)
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            return False
        before = len(self._missing(piece))
        try:
            self._read_new_shards()
            if missing := self._missing(piece):
                self._store(scorer.values({key: wanted[key] for key in missing}))
        finally:
            file.unlink(missing_ok=True)
            lock.release()
        bar.update(before)
        return True

    def _store(self, entries: dict[bytes, np.ndarray]) -> None:
        content = save({
            "keys": np.frombuffer(b"".join(entries), dtype=np.uint8).reshape(len(entries), -1),
            "lengths": np.array([len(values) for values in entries.values()], dtype=np.int64),
            "values": np.concatenate(list(entries.values())),
        })  # fmt: skip
        shard = self.folder / f"shard-{_digest(content)}.safetensors"
        _write_whole(shard, content)
        self._values.update(_read_shard(shard, self._name))
        self._read.add(shard.name)


def response_key(prompt: np.ndarray, completion: np.ndarray) -> bytes:
    """The key of a response: a digest of its tokens, and of where its completion begins."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.int64(len(prompt)).tobytes())
    digest.update(np.ascontiguousarray(prompt, dtype=np.int64).tobytes())
    digest.update(np.ascontiguousarray(completion, dtype=np.int64).tobytes())
    return digest.digest()


def _pieces(
    wanted: dict[bytes, int], prompts: Sequence[np.ndarray], completions: Sequence[np.ndarray]
) -> list[list[bytes]]:
    """Pieces to build and store: whole prompts of similar length, the longest first.

    They depend only on the data, so several processes cut the same pieces; running out of memory shows at once.
    """
    groups: dict[bytes, list[bytes]] = {}
    for key, number in wanted.items():
        groups.setdefault(prompts[number].tobytes(), []).append(key)

    def tokens(group: list[bytes]) -> int:
        return len(prompts[wanted[group[0]]]) + sum(len(completions[wanted[key]]) for key in group)

    pieces: list[list[bytes]] = []
    room = 0
    for group in sorted(groups.values(), key=lambda group: (-tokens(group), group)):
        if tokens(group) > room:
            pieces.append([])
            room = _PIECE_TOKENS
        pieces[-1] += group
        room -= tokens(group)
    return pieces


def _read_shard(shard: Path, name: str) -> dict[bytes, np.ndarray]:
    """Values of a shard, memory-mapped; its name is the digest of its content.

    Raises:
        RunError: it is damaged.
    """
    try:
        with shard.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        if shard.stem.removeprefix("shard-") != digest:
            raise RunError(f"The {name} {shard} is damaged.")
        tensors = load_file(shard)
    except (SafetensorError, OSError) as error:
        raise RunError(f"The {name} {shard} cannot be read ({error}).") from error
    keys, lengths, values = (tensors[part].numpy() for part in ("keys", "lengths", "values"))
    ends = np.cumsum(lengths)
    return {
        key.tobytes(): values[end - length : end] for key, length, end in zip(keys, lengths, ends, strict=True)
    }  # fmt: skip


def _write_whole(file: Path, content: bytes) -> None:
    """Write a file atomically, even if the process is killed; several processes may write it at once."""
    with whole_file(file) as partial, partial.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
