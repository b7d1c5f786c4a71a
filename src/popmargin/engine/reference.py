"""Reference log-probs: computed once per response and model, cached on disk per token, shared by all runs.

`response_cache.py` says what a value is keyed by, and how it is kept.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from popmargin.data.tokenize import TokenizedPreferences
from popmargin.engine.dropout import draws
from popmargin.engine.logps import ForwardPlan, forward_plan, token_logps
from popmargin.engine.processes import from_first_process, is_divided, process_number, whole
from popmargin.engine.response_cache import ResponseCache, ResponseScorer, response_key
from popmargin.engine.sequences import Sequences
from popmargin.errors import RunError

_FORMAT = 4  # raise it when the meaning of the stored numbers changes
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


class ReferenceCache(ResponseCache):
    """Token log-probs on disk, for one reference model and one way of scoring.

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
        self.precision = precision
        super().__init__(directory, settings, name="reference cache", holds="log-probs", together=together)

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

        def scorer() -> ResponseScorer:
            reference = model()
            chosen = plan(reference)

            def compute(sequences: Sequences) -> list[np.ndarray]:
                values = token_logps(reference, sequences, precision=self.precision, plan=chosen).float().cpu().numpy()
                if not np.isfinite(values).all():
                    raise RunError("The reference model gives non-finite log-probs: are its weights intact?")
                return np.split(values, np.cumsum(sequences["lengths"].cpu().numpy())[:-1])

            return ResponseScorer(reference, chosen.layout, compute, prompts, completions, tokens_per_batch, pad_id)

        found = self.look_up(prompts, completions, scorer, progress="reference log-probs" if progress else "")
        keys = map(response_key, prompts, completions)
        return [found[key] for key in keys]

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
