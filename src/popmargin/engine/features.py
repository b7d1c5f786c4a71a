"""Features of whole responses: hidden states of a frozen model, pooled over tokens, computed once and kept on disk.

Axis suffixes: P preferences, S responses, N completion tokens of all responses one after the other, B rows of a batch,
T length, H hidden size, D features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from popmargin.data.tokenize import TokenizedPreferences
from popmargin.engine.batch import TokenInputs
from popmargin.engine.logps import autocast, model_inputs
from popmargin.engine.response_cache import ResponseCache, ResponseScorer, response_key
from popmargin.engine.rewards import RewardPlan, reward_plan
from popmargin.engine.sequences import Sequences, longest_sequence, one_by_one
from popmargin.errors import ConfigError, RunError

_FORMAT = 1  # raise it when the meaning of the stored numbers changes


@dataclass(frozen=True)
class PreferenceFeatures:
    """Features of the responses of some preferences; each distinct response has them once.

    Attributes:
        tokenized: the preferences, with their ids and the report of what was cut and dropped.
        responses: the features of R responses, (D,) float32 each, in memory-mapped files.
        chosen: which of them is the chosen response of each preference (P,).
        rejected: the same for the rejected ones.
    """

    tokenized: TokenizedPreferences
    responses: Sequence[np.ndarray]
    chosen: Int64[np.ndarray, "P"]
    rejected: Int64[np.ndarray, "P"]

    def __len__(self) -> int:
        return len(self.chosen)

    def array(self) -> Float32[np.ndarray, "R D"]:
        """The features of all distinct responses, read into memory."""
        return np.stack(self.responses)

    def batch(self, preferences: np.ndarray) -> Float[Tensor, "S D"]:
        """The features of some preferences' responses: all chosen ones, then all rejected ones."""
        numbers = np.concatenate([self.chosen[preferences], self.rejected[preferences]])
        return torch.from_numpy(np.stack([self.responses[number] for number in numbers]))


@dataclass(frozen=True)
class FeatureInputs:
    """Preferences as a trained head takes them.

    Attributes:
        features: of their responses.
        tokens: the same preferences as the whole model takes them, whose costs and work count.
    """

    features: PreferenceFeatures
    tokens: TokenInputs

    @property
    def ids(self) -> list[str]:
        """Ids of the preferences (N,)."""
        return self.tokens.ids

    def __len__(self) -> int:
        return len(self.tokens)

    def costs(self) -> np.ndarray:
        """Tokens of each preference in one forward pass of the whole model (N,), so that batches are the same."""
        return self.tokens.costs()

    def work(self) -> np.ndarray:
        """Tokens of both responses of each preference, the prompt counted with each of them (N,)."""
        return self.tokens.work()

    def collate(self, preferences: np.ndarray) -> dict[str, Any]:
        """The `features` of some preferences' responses."""
        return {"features": self.features.batch(preferences)}


class FeatureCache(ResponseCache):
    """Features on disk, of one model and one way of pooling its hidden states.

    Args:
        directory: folder that holds caches of all models.
        fingerprint: `model_fingerprint` of the model.
        precision: fp32 or bf16, as in `response_rewards`.
        dtype: the dtype the model's weights are kept in.
        pool: one of `POOLS`.
        layers: the hidden states, one after the other: 0 for the embeddings, n for those after n layers; None for what
            the model's head reads, which are those after all layers and the last norm.
        together: whether the model is divided among processes, which then compute in step, each its share.

    Raises:
        ConfigError: an unknown pool, or no layers.
    """

    def __init__(
        self,
        directory: Path,
        fingerprint: str,
        precision: str,
        dtype: torch.dtype,
        *,
        pool: str = "last",
        layers: Sequence[int] | None = None,
        together: bool = False,
    ) -> None:
        if pool not in POOLS:
            raise ConfigError(f"The pool of features is '{pool}'. Choose one of {', '.join(POOLS)}.")
        if layers is not None and not len(layers):
            raise ConfigError("Features of no layers: name some, or None for what the head reads.")
        self.precision, self.pool, self.layers = precision, pool, None if layers is None else list(layers)
        settings = {"features": _FORMAT, "model": fingerprint, "precision": precision, "dtype": str(dtype),
                    "pool": pool, "layers": self.layers}  # fmt: skip
        super().__init__(directory, settings, name="feature cache", holds="features", together=together)

    def preferences(
        self,
        tokenized: TokenizedPreferences,
        model: Callable[[], nn.Module],
        *,
        tokens_per_batch: int,
        pad_id: int,
        plan: Callable[[Any], RewardPlan] = reward_plan,
        progress: bool = True,
    ) -> PreferenceFeatures:
        """Features of the responses of preferences, from the cache or computed and stored.

        Args:
            tokenized: the preferences.
            model: returns the model; called only if something is missing.
            tokens_per_batch: maximum tokens per forward pass.
            pad_id: the padding token, which is never a response's last.
            plan: returns the model's plan.
            progress: show a progress bar.

        Raises:
            ConfigError: the model has no such layer.
            RunError: the model gave a non-finite value, or what is computed cannot be written.
        """
        count = len(tokenized)
        prompts = [tokenized.prompt[i] for i in range(count)] * 2
        completions = [side[i] for side in (tokenized.chosen, tokenized.rejected) for i in range(count)]

        def scorer() -> ResponseScorer:
            frozen = model()
            chosen = plan(frozen)

            def compute(sequences: Sequences) -> list[np.ndarray]:
                values = pooled_states(
                    frozen, sequences, precision=self.precision, plan=chosen, pool=self.pool, layers=self.layers
                )
                if not bool(torch.isfinite(values).all()):
                    raise RunError("The model gives non-finite hidden states: are its weights intact?")
                return list(values.cpu().numpy())

            return ResponseScorer(
                frozen, chosen.layout, compute, prompts, completions, tokens_per_batch, pad_id, whole=True
            )

        found = self.look_up(prompts, completions, scorer, progress="features" if progress else "")
        place = {key: number for number, key in enumerate(found)}
        numbers = np.array([place[response_key(*pair)] for pair in zip(prompts, completions, strict=True)], np.int64)
        return PreferenceFeatures(tokenized, list(found.values()), numbers[:count], numbers[count:])


@torch.no_grad()
def pooled_states(
    model: nn.Module,
    sequences: Sequences,
    *,
    precision: str = "fp32",
    plan: RewardPlan | None = None,
    pool: str = "last",
    layers: Sequence[int] | None = None,
) -> Float[Tensor, "S D"]:
    """Hidden states of all responses, pooled over tokens, in fp32; those of several layers one after the other.

    Numbers do not depend on the layout or on what else is in the batch, up to floating-point rounding.

    Args:
        model: a reward model, with a trained head or an untrained one.
        sequences: whole responses in either layout; see `sequences.Sequences`.
        precision: `fp32` (the model's own dtype) or `bf16` (autocast).
        plan: of the model; None finds one.
        pool: one of `POOLS`.
        layers: as in `FeatureCache`.

    Raises:
        ConfigError: the model has no such layer.
        RunError: a sequence is longer than the plan's limit.
    """
    plan = plan or reward_plan(model)
    if plan.limit is not None:
        plan.limit.check(longest_sequence(sequences))
    if plan.layout == "alone":
        return torch.cat([_pooled(model, one, precision, plan, pool, layers) for one in one_by_one(sequences)])
    return _pooled(model, sequences, precision, plan, pool, layers)


def _pooled(
    model: nn.Module, sequences: Sequences, precision: str, plan: RewardPlan, pool: str, layers: Sequence[int] | None
) -> Float[Tensor, "S D"]:
    """Features from one forward pass."""
    read: list[Tensor] = []
    seen = plan.head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    more = {} if layers is None else {"output_hidden_states": True}
    try:
        with autocast(sequences["input_ids"].device, precision):
            output: Any = model(**model_inputs(sequences), **more)
    finally:
        seen.remove()
    states = read if layers is None else [_layer(output.hidden_states, layer) for layer in layers]
    return torch.cat([POOLS[pool](hidden_BTH.flatten(0, -2), sequences) for hidden_BTH in states], dim=-1)


def _layer(states: Sequence[Tensor], layer: int) -> Tensor:
    if not 0 <= layer < len(states):
        raise ConfigError(
            f"Features of layer {layer}: the model has {len(states) - 1} layers; name some from 0 (its embeddings) to "
            f"{len(states) - 1}."
        )
    return states[layer]


def _last(hidden: Tensor, sequences: Sequences) -> Float[Tensor, "S H"]:
    return hidden.index_select(0, sequences["last_positions"]).float()


def _mean(hidden: Tensor, sequences: Sequences) -> Float[Tensor, "S H"]:
    hidden_NH = hidden.index_select(0, sequences["token_positions"]).float()
    lengths_S: Tensor = sequences["lengths"]
    responses_N = torch.repeat_interleave(torch.arange(len(lengths_S), device=hidden.device), lengths_S)
    sums_SH = torch.zeros(len(lengths_S), hidden.shape[-1], device=hidden.device)
    return sums_SH.index_add(0, responses_N, hidden_NH) / lengths_S[:, None]


POOLS: dict[str, Callable[[Tensor, Sequences], Tensor]] = {"last": _last, "mean": _mean}
"""last: at the last token of a response that is not the padding token, where a reward is read; mean: over all tokens of
the response, without its prompt."""
