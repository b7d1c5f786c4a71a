"""Reference log-probs: computed once per response and model, cached on disk per token, shared by all runs.

A value is keyed only by what determines it: the token ids of prompt and completion, the reference's
weights and architecture, and how it is scored. Learning rates, objectives, splits, batch sizes and file names do not
matter. Shards are memory-mapped: a run touches only the pages it needs, and several runs share them.
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
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from tqdm.auto import tqdm

from popmargin.data.tokenize import TokenizedPreferences
from popmargin.engine.dropout import draws
from popmargin.engine.logps import ForwardPlan, forward_plan, token_logps
from popmargin.engine.processes import (
    from_first_process,
    is_divided,
    largest_of_all,
    place_of,
    process_count,
    process_number,
    whole,
)
from popmargin.engine.sequences import Layout, make_sequences, sequences_to, split_to_budget
from popmargin.errors import RunError, counted
from popmargin.files import whole_file

_LOG = logging.getLogger(__name__)
_FORMAT = 4  # raise it when the meaning of the stored numbers changes
_PIECE_TOKENS = 32_000  # a killed build loses at most this many tokens of work
# Settings of a configuration besides the architecture: none of them can change a log-prob.
_NO_VALUE = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}
_LABELS = {"bos_token_id", "eos_token_id", "pad_token_id", "id2label", "label2id", "initializer_range"}


@dataclass(frozen=True)
class ReferenceLogps:
    """Reference log-probs of every completion token of some preferences, nats.

    Attributes:
        chosen: one float32 array per preference, as long as its chosen completion.
        rejected: the same for the rejected completions.
    """

    chosen: list[np.ndarray]
    rejected: list[np.ndarray]

    def tokens(self, preferences: Sequence[int] | np.ndarray) -> Tensor:
        """The values of some preferences in the order of a batch's tokens: all chosen ones, then all rejected ones."""
        parts = [self.chosen[int(i)] for i in preferences] + [self.rejected[int(i)] for i in preferences]
        return torch.from_numpy(np.concatenate(parts))

    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Summed log-probs of the chosen and of the rejected completions (P,), nats."""
        return tuple(np.array([part.sum(dtype=np.float64) for part in side]) for side in (self.chosen, self.rejected))  # pyright: ignore[reportReturnType]


def model_fingerprint(model: Any) -> str:
    """Hash (hex) of all weights with their names, and of the architecture in the configuration.

    Settings such as a rotary base or a window change values without changing a weight. Settings that a newer
    transformers adds, at their defaults, do not change the hash. It is the same for a model that is divided among
    processes, which must all call this: they gather one weight at a time for the first one.
    """
    named = model.config.to_diff_dict()
    settings = {key: value for key, value in named.items() if key not in _NO_VALUE | _LABELS and not draws(key)}
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        gathered = whole(tensor)
        if process_number() and isinstance(tensor, DTensor):
            continue
        flat = gathered.cpu().contiguous().flatten()
        raw: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
        digest.update(raw)
    return from_first_process(digest.hexdigest()) if is_divided(model) else digest.hexdigest()


class ReferenceCache:
    """Token log-probs on disk, for one reference model and one way of scoring.

    Any number of processes may use it at once, of one run or of several: they share the work of a build.

    Args:
        directory: folder that holds caches of all models.
        fingerprint: `model_fingerprint` of the reference.
        precision: fp32 or bf16, as in `token_logps`.
        dtype: the dtype the reference's weights are kept in.
        together: whether the reference is divided among processes, which then score in step, each its share.
    """

    def __init__(
        self, directory: Path, fingerprint: str, precision: str, dtype: torch.dtype, *, together: bool = False
    ) -> None:
        settings = {"format": _FORMAT, "model": fingerprint, "precision": precision, "dtype": str(dtype)}
        text = json.dumps(settings, sort_keys=True)
        self.precision, self._together = precision, together
        self.folder = directory / hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        self._settings = text.encode()
        self._values: dict[bytes, np.ndarray] = {}
        self._read: set[str] = set()
        self._read_new_shards()

    def _read_new_shards(self) -> None:
        for shard in sorted(self.folder.glob("shard-*.safetensors")):
            if shard.name in self._read:
                continue
            try:
                self._values.update(_read_shard(shard))
                self._read.add(shard.name)
            except RunError as error:
                _LOG.warning("%s It is not used, and its values are computed again.", error)
                with contextlib.suppress(OSError):
                    shard.unlink(missing_ok=True)

    def responses(
        self,
        prompts: Sequence[np.ndarray],
        completions: Sequence[np.ndarray],
        model: Callable[[], nn.Module],
        *,
        tokens_per_batch: int,
        pad_id: int,
        plan: Callable[[Any], ForwardPlan] = forward_plan,
        progress: bool = True,
    ) -> list[np.ndarray]:
        """Token log-probs of completions, from the cache or computed and stored.

        Args:
            prompts: token ids, one array per response.
            completions: token ids, one array per response.
            model: returns the reference model; called only if something is missing.
            tokens_per_batch: maximum tokens per forward pass.
            pad_id: a padding token.
            plan: returns the model's plan.
            progress: show a progress bar.

        Returns:
            One float32 array per response, nats per token.

        Raises:
            RunError: the model gave a non-finite value, or what is computed cannot be written.
        """
        keys = [_key(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        wanted = {key: number for number, key in enumerate(keys)}
        pieces = [piece for piece in _pieces(wanted, prompts, completions) if self._missing(piece)]
        if self._together:
            pieces = from_first_process(pieces)  # another run may have written some while this process looked
        if pieces:
            self._open_to_write(sum(len(self._missing(piece)) for piece in pieces))
            reference = model()
            scorer = _Scorer(reference, plan(reference), self.precision, prompts, completions, tokens_per_batch, pad_id)
            with tqdm(
                total=sum(len(self._missing(piece)) for piece in pieces),
                desc="reference log-probs",
                unit="response",
                disable=not progress,
            ) as bar:
                if self._together:
                    self._build_together(pieces, wanted, scorer, bar)
                    pieces = []
                # First what no other process is working on, then what others have begun: done by then, unless they were
                # killed.
                begun = [piece for piece in pieces if not self._build(piece, wanted, scorer, bar, wait=False)]
                for piece in begun:
                    self._build(piece, wanted, scorer, bar, wait=True)
        return [self._values[key] for key in keys]

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
                f"The reference cache {self.folder} lacks log-probs of {counted(missing, 'response')}, and cannot be "
                f"written ({error.strerror if isinstance(error, OSError) else error}). Set reference.cache to another "
                "folder."
            ) from error

    def _build_together(self, pieces: list[list[bytes]], wanted: dict[bytes, int], scorer: "_Scorer", bar: Any) -> None:
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
                f"The reference cache {self.folder.parent} is not one folder for all processes, each of which computes "
                "its share of the log-probs. Set reference.cache to a folder on a file system that they share."
            )

    def _missing(self, piece: list[bytes]) -> list[bytes]:
        return [key for key in piece if key not in self._values]

    def _build(self, piece: list[bytes], wanted: dict[bytes, int], scorer: "_Scorer", bar: Any, *, wait: bool) -> bool:
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
        self._values.update(_read_shard(shard))
        self._read.add(shard.name)

    def preferences(
        self,
        tokenized: TokenizedPreferences,
        model: Callable[[], nn.Module],
        *,
        tokens_per_batch: int,
        pad_id: int,
        plan: Callable[[Any], ForwardPlan] = forward_plan,
    ) -> ReferenceLogps:
        """Token log-probs of both completions of all preferences; arguments as in `responses`."""
        count = len(tokenized)
        prompts = [tokenized.prompt[i] for i in range(count)]
        completions = [side[i] for side in (tokenized.chosen, tokenized.rejected) for i in range(count)]
        values = self.responses(
            prompts * 2, completions, model, tokens_per_batch=tokens_per_batch, pad_id=pad_id, plan=plan
        )
        return ReferenceLogps(values[:count], values[count:])


@dataclass(frozen=True)
class _Scorer:
    """Scores responses under the reference model."""

    model: Any
    plan: ForwardPlan
    precision: str
    prompts: Sequence[np.ndarray]
    completions: Sequence[np.ndarray]
    tokens_per_batch: int
    pad_id: int

    def passes(self, numbers: dict[bytes, int]) -> int:
        """How many forward passes `values` makes."""
        batches = self._batches(numbers, self.plan.layout)
        return sum(map(len, batches)) if self.plan.layout == "alone" else len(batches)

    @torch.no_grad()
    def values(
        self, numbers: dict[bytes, int], *, passes: int = 0, idle: Mapping[bytes, int] = {}
    ) -> dict[bytes, np.ndarray]:
        """Token log-probs of the responses with these numbers.

        Args:
            numbers: key -> number of the response.
            passes: forward passes to make at least, because other processes make them too.
            idle: a response for those without an own one.
        """
        self.model.eval()
        result: dict[bytes, np.ndarray] = {}
        for batch in self._batches(numbers, self.plan.layout):
            result |= self._score(batch, numbers)
        for _ in range(passes - self.passes(numbers)):
            self._score(list(idle), idle)
        return result

    def _score(self, batch: list[bytes], numbers: Mapping[bytes, int]) -> dict[bytes, np.ndarray]:
        prompts, completions = ([texts[numbers[key]] for key in batch] for texts in (self.prompts, self.completions))
        sequences = make_sequences(prompts, completions, self.pad_id, self.plan.layout)
        sequences = sequences_to(sequences, place_of(self.model))
        values = token_logps(self.model, sequences, precision=self.precision, plan=self.plan).float().cpu().numpy()
        if not np.isfinite(values).all():
            raise RunError("The reference model gives non-finite log-probs: are its weights intact?")
        ends = np.cumsum([len(completion) for completion in completions])
        return dict(zip(batch, np.split(values, ends[:-1]), strict=True))

    def _batches(self, numbers: dict[bytes, int], layout: Layout) -> list[list[bytes]]:
        """Forward passes; responses to a prompt stay together as long as they fit, so packed rows share the prompt."""
        groups: list[list[bytes]] = []
        tokens: list[int] = []
        last: dict[bytes, int] = {}
        for key, number in numbers.items():
            prompt, completion = self.prompts[number], len(self.completions[number])
            more = completion + (0 if layout == "packed" else len(prompt))
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


def _read_shard(shard: Path) -> dict[bytes, np.ndarray]:
    """Values of a shard, memory-mapped; its name is the digest of its content.

    Raises:
        RunError: it is damaged.
    """
    try:
        with shard.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        if shard.stem.removeprefix("shard-") != digest:
            raise RunError(f"The reference cache {shard} is damaged.")
        tensors = load_file(shard)
    except (SafetensorError, OSError) as error:
        raise RunError(f"The reference cache {shard} cannot be read ({error}).") from error
    keys, lengths, values = (tensors[name].numpy() for name in ("keys", "lengths", "values"))
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


def _key(prompt: np.ndarray, completion: np.ndarray) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.int64(len(prompt)).tobytes())
    digest.update(np.ascontiguousarray(prompt, dtype=np.int64).tobytes())
    digest.update(np.ascontiguousarray(completion, dtype=np.int64).tobytes())
    return digest.digest()
