"""Reference log-probs: computed once per response and model, kept on disk per token, shared by all runs.

A value is found again by what determines it and nothing else: the token ids of prompt and completion, the reference's
weights, and how it is scored. Learning rates, objectives, splits and file names do not matter.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from popmargin.data.tokenize import TokenizedPreferences
from popmargin.engine.batch import pad_sequences
from popmargin.engine.logps import token_logps
from popmargin.errors import RunError

_FORMAT = 2  # raise it when the meaning of the stored numbers changes
_SHARD_TOKENS = 200_000  # a killed build loses at most so many tokens' work


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


def weights_fingerprint(model: nn.Module) -> str:
    """Hash of all weights and their names, hex."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else b"")
    return digest.hexdigest()


class ReferenceCache:
    """Token log-probs on disk, for one reference model and one way of scoring.

    Args:
        directory: folder that holds caches of all models.
        model_fingerprint: `weights_fingerprint` of the reference.
        precision: fp32 or bf16, as in `token_logps`.
        dtype: the dtype the reference's weights are kept in.
    """

    def __init__(self, directory: Path, model_fingerprint: str, precision: str, dtype: torch.dtype) -> None:
        settings = {"format": _FORMAT, "weights": model_fingerprint, "precision": precision, "dtype": str(dtype)}
        key = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=12).hexdigest()
        self.precision = precision
        self.folder = directory / key
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "settings.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
        self._values: dict[bytes, np.ndarray] = {}
        for shard in sorted(self.folder.glob("shard-*.safetensors")):
            self._read(shard)

    def _read(self, shard: Path) -> None:
        try:
            tensors = load_file(shard)
            keys, lengths, values = tensors["keys"], tensors["lengths"], tensors["values"]
            stored = tensors["digest"].tobytes()
        except (SafetensorError, KeyError, OSError) as error:
            raise RunError(
                f"The reference cache {shard} cannot be read ({error}). Delete this file; its values are made anew."
            ) from error
        if stored != _digest(keys, lengths, values):
            raise RunError(f"The reference cache {shard} is damaged. Delete this file; its values are made anew.")
        for key, part in zip(keys, np.split(values, np.cumsum(lengths)[:-1]), strict=True):
            self._values[key.tobytes()] = part

    def _write(self, entries: Iterable[tuple[bytes, np.ndarray]]) -> None:
        items = list(entries)
        tensors = {
            "keys": np.frombuffer(b"".join(key for key, _ in items), dtype=np.uint8).reshape(len(items), -1),
            "lengths": np.array([len(values) for _, values in items], dtype=np.int64),
            "values": np.concatenate([values for _, values in items]),
        }
        tensors["digest"] = np.frombuffer(_digest(*tensors.values()), dtype=np.uint8)
        # A name of its own and an atomic rename: several processes may build at once, and a kill leaves no half file.
        name = f"shard-{uuid.uuid4().hex}"
        partial = self.folder / f"{name}.partial"
        save_file(tensors, partial)
        partial.replace(self.folder / f"{name}.safetensors")

    def responses(
        self,
        prompts: Sequence[np.ndarray],
        completions: Sequence[np.ndarray],
        model: Callable[[], nn.Module],
        *,
        batch_size: int,
        pad_id: int,
        progress: bool = True,
    ) -> list[np.ndarray]:
        """Token log-probs of completions, from the cache or computed and stored.

        Args:
            prompts: token ids, one array per response.
            completions: token ids, one array per response.
            model: gives the reference model; called only when something is missing.
            batch_size: responses per forward pass.
            pad_id: a padding token.
            progress: show a progress bar.

        Returns:
            One float32 array per response, nats per token.

        Raises:
            RunError: the model gave a value that is not finite.
        """
        keys = [_key(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        missing = {key: number for number, key in enumerate(keys) if key not in self._values}
        if missing:
            self._compute(missing, prompts, completions, model(), batch_size, pad_id, progress)
        return [self._values[key] for key in keys]

    @torch.no_grad()
    def _compute(
        self,
        missing: dict[bytes, int],
        prompts: Sequence[np.ndarray],
        completions: Sequence[np.ndarray],
        model: Any,
        batch_size: int,
        pad_id: int,
        progress: bool,
    ) -> None:
        model.eval()
        device = next(model.parameters()).device
        order = sorted(missing.items(), key=lambda item: (len(prompts[item[1]]) + len(completions[item[1]]), item[0]))
        pending: list[tuple[bytes, np.ndarray]] = []
        with tqdm(total=len(order), desc="reference log-probs", unit="response", disable=not progress) as bar:
            for start in range(0, len(order), batch_size):
                part = order[start : start + batch_size]
                sequences = pad_sequences([prompts[n] for _, n in part], [completions[n] for _, n in part], pad_id)
                sequences = {name: tensor.to(device) for name, tensor in sequences.items()}
                values = token_logps(model, sequences, precision=self.precision).float().cpu().numpy()
                if not np.isfinite(values).all():
                    raise RunError("The reference model gives log-probs that are not finite: are its weights intact?")
                lengths = [len(completions[number]) for _, number in part]
                pieces = np.split(values, np.cumsum(lengths)[:-1])
                pending += [(key, piece) for (key, _), piece in zip(part, pieces, strict=True)]
                if sum(len(piece) for _, piece in pending) >= _SHARD_TOKENS or start + batch_size >= len(order):
                    self._write(pending)
                    self._values.update(pending)
                    pending = []
                bar.update(len(part))

    def preferences(
        self, tokenized: TokenizedPreferences, model: Callable[[], nn.Module], *, batch_size: int, pad_id: int
    ) -> ReferenceLogps:
        """Token log-probs of both completions of all preferences; arguments as in `responses`."""
        count = len(tokenized)
        prompts = [tokenized.prompt[i] for i in range(count)]
        completions = [side[i] for side in (tokenized.chosen, tokenized.rejected) for i in range(count)]
        values = self.responses(prompts * 2, completions, model, batch_size=batch_size, pad_id=pad_id)
        return ReferenceLogps(values[:count], values[count:])


def _digest(*arrays: np.ndarray) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _key(prompt: np.ndarray, completion: np.ndarray) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.int64(len(prompt)).tobytes())
    digest.update(np.ascontiguousarray(prompt, dtype=np.int64).tobytes())
    digest.update(np.ascontiguousarray(completion, dtype=np.int64).tobytes())
    return digest.digest()
