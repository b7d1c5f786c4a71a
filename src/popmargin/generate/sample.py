"""Completions of prompts: batched, seeded, with their log-probs under policy and reference."""

import contextlib
import functools
import itertools
import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import GenerationConfig, LogitsProcessorList

from popmargin.data.ragged import Ragged
from popmargin.engine.limits import context_limit
from popmargin.engine.logps import ForwardPlan, autocast, forward_plan, response_sums, token_logps
from popmargin.engine.sequences import make_sequences, sequences_to, split_to_budget
from popmargin.engine.trial import evaluating
from popmargin.generate.drawn import Drawn, OwnSettings
from popmargin.generate.ends import end_tokens
from popmargin.generate.own_draws import OwnDraws, uniforms
from popmargin.generate.settings import make_generation_config, only, own_settings

# Total variation between next-token probabilities of a prompt by itself and in a batch: rounding gives less.
_SAME = {torch.float64: 0.01, torch.float32: 0.01}
_SAME_ROUGHLY = 0.2
_TRIAL_TOKENS = 3
_ONE_AT_A_TIME = "one prompt at a time"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How completions are sampled.

    Attributes:
        samples: completions per prompt.
        max_new_tokens: maximum completion length, tokens.
        temperature: 0 takes the most likely token.
        top_k: among the k most likely tokens; 0 means all.
        top_p: among the most likely tokens that hold this probability together; 1 means all.
        generation_config: `ignore` samples by the other settings alone; `model` as the model's own generation config
            says, in their place.
        batch_size: completions per batch.
        seed: seed of the sampling; the caller's random state is unchanged.
        precision: fp32 or bf16.
    """

    samples: int = 1
    max_new_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    generation_config: OwnSettings = "ignore"
    batch_size: int = 64
    seed: int = 0
    precision: str = "fp32"

    @property
    def drawn(self) -> Drawn:
        """The settings that decide the probabilities of completions."""
        return Drawn(self.temperature, self.top_k, self.generation_config, self.top_p)


@dataclass(frozen=True)
class Completion:
    """One sampled completion.

    Attributes:
        tokens: its token ids, including the end token if it ended.
        text: as readable text.
        finished: whether it ended by itself.
    """

    tokens: np.ndarray
    text: str
    finished: bool


@torch.no_grad()
def sample(
    model: Any,
    tokenizer: Any,
    prompts: Ragged,
    sampling: Sampling,
    *,
    ends: Sequence[int] | None = None,
    keys: Sequence[str] | None = None,
    progress: bool = False,
) -> list[Completion]:
    """Completions of prompts, all samples of a prompt one after the other.

    At temperature 1 without truncation these are samples from the model itself: whatever its own generation config
    would change (penalties, cuts, beams …) is ignored, and the log says what. Without keys, all batches draw from one
    stream of random numbers, so that a completion depends on the batches before it; with them, it does not (see
    `Sampler.draw`).

    Args:
        model: a causal language model with transformers' `generate`.
        tokenizer: decodes.
        prompts: token ids.
        sampling: how to sample.
        ends: ids of the tokens that end a completion; None takes `end_tokens` of tokenizer and model.
        keys: what says which prompt is which, where each completion is to have random numbers of its own.
        progress: show a progress bar.

    Returns:
        `samples` completions for every prompt.

    Raises:
        RunError: prompt and completion together may exceed the model's context; see `context_limit`.
    """
    sampler = Sampler(model, tokenizer, prompts, sampling, ends=ends, keys=keys)
    result: dict[int, Completion] = {}
    with _random_state_kept(model, seed=sampling.seed):
        for places in tqdm(sampler.batches, desc="sampling", disable=not progress):
            result |= dict(zip(places, sampler.draw(places), strict=True))
    return [result[place] for place in range(len(prompts) * sampling.samples)]


class Sampler:
    """Sampling of some prompts by one model, batch by batch.

    Args:
        model, tokenizer, prompts, sampling, ends: as in `sample`.
        keys: what says which prompt is which, where each completion is to have random numbers of its own.

    Attributes:
        batches: places of the completions that are sampled together, short prompts first; the completion `number` of a
            prompt has the place prompt · samples + number. They depend on nothing but prompts, model and settings.

    Raises:
        RunError: as in `sample`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompts: Ragged,
        sampling: Sampling,
        *,
        ends: Sequence[int] | None = None,
        keys: Sequence[str] | None = None,
    ) -> None:
        limit = context_limit(model)
        if limit is not None and len(prompts):
            limit.check(int(prompts.lengths.max()) + sampling.max_new_tokens)
        self._ends = end_tokens(tokenizer, model.generation_config) if ends is None else list(ends)
        if not self._ends:
            _LOG.warning(
                "No token ends a completion: the tokenizer has no EOS, and its chat template does not close turns."
            )
        if sampling.generation_config == "ignore" and (left_out := own_settings(model)):
            _say_left_out(", ".join(f"{name} {value}" for name, value in left_out.items()), str(sampling.drawn))
        self._model, self._tokenizer, self._prompts, self._sampling = model, tokenizer, prompts, sampling
        self._keys = keys
        self._config = self._made(sampling.drawn)
        wanted = [i for i in range(len(prompts)) for _ in range(sampling.samples)]
        with evaluating(model):
            self.batches = _batches(model, prompts, wanted, sampling, tokenizer.pad_token_id)

    @torch.no_grad()
    def draw(self, places: Sequence[int]) -> list[Completion]:
        """The completions of a batch.

        Without `keys` they are drawn from torch's random numbers. With them, each completion has its own, which seed,
        key and number decide: it is the same in any batch, beside any other prompts and up to a higher limit, but for
        rounding. The model's own generation config cannot draw so; there, the random numbers belong to the batch.

        Args:
            places: of the completions, as in `batches`.
        """
        rows = [self._prompts[place // self._sampling.samples] for place in places]
        ids, mask = _left_padded(rows, self._tokenizer.pad_token_id, next(self._model.parameters()).device)
        drawn, kept = self._sampling.drawn, contextlib.nullcontext()
        options: dict[str, Any] = {"generation_config": self._config}
        if self._keys is not None and drawn.generation_config == "model":
            kept = _random_state_kept(self._model, seed=int(self._uniforms(places[0])[0] * 2**53))
        elif self._keys is not None and drawn.temperature > 0:
            own = [self._uniforms(place) for place in places]
            options = {
                "generation_config": self._made(Drawn(temperature=0)),
                "logits_processor": LogitsProcessorList([OwnDraws(drawn, own, ids.shape[1], ids.device)]),
            }
        with evaluating(self._model), only(self._model, options["generation_config"]), kept:
            found = _generate(self._model, ids, mask, options, self._sampling.precision, self._tokenizer)
        return [_completion(row, self._ends, self._tokenizer, self._config) for row in found]

    def _made(self, drawn: Drawn) -> GenerationConfig:
        return make_generation_config(
            self._model,
            drawn,
            max_new_tokens=self._sampling.max_new_tokens,
            ends=self._ends,
            pad_id=self._tokenizer.pad_token_id,
        )

    def _uniforms(self, place: int) -> np.ndarray:
        assert self._keys is not None
        prompt, number = divmod(place, self._sampling.samples)
        return uniforms(self._sampling.seed, self._keys[prompt], number, self._sampling.max_new_tokens)


@contextlib.contextmanager
def _random_state_kept(model: Any, *, seed: int) -> Generator[None]:
    """Random numbers of this seed; the caller's, on the CPU and on the model's device, are as they were afterwards."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@functools.cache
def _say_left_out(settings: str, drawn: str) -> None:
    _LOG.warning(
        "The model's own generation config sets %s. It is ignored: completions are sampled at %s. To follow it, set "
        "evaluation.generation_config: model (--generation-config model of `popmargin generate`).",
        settings,
        drawn,
    )


def _batches(model: Any, prompts: Ragged, wanted: list[int], sampling: Sampling, pad_id: int) -> list[list[int]]:
    """Indices into `wanted` that are sampled together, short prompts first."""
    order = sorted(range(len(wanted)), key=lambda place: (len(prompts[wanted[place]]), place))
    if len(order) < 2 or sampling.batch_size == 1:
        return [[place] for place in order]
    shortest, longest = prompts[wanted[order[0]]], prompts[wanted[order[-1]]]
    together = _sampled_together(model, shortest, longest, pad_id, sampling.precision)
    size = sampling.batch_size if together != _ONE_AT_A_TIME else 1
    groups = [order]
    if together != "any":
        _LOG.warning("%s gives different probabilities in a batch: sampling runs %s.", type(model).__name__, together)
        groups = [list(group) for _, group in itertools.groupby(order, lambda place: len(prompts[wanted[place]]))]
    return [group[start : start + size] for group in groups for start in range(0, len(group), size)]


def _sampled_together(model: Any, shorter: np.ndarray, longer: np.ndarray, pad_id: int, precision: str) -> str:
    """Which prompts keep their probabilities in a batch, by a trial: any, those of one length, or none."""
    rough = _SAME_ROUGHLY if precision == "bf16" else _SAME.get(next(model.parameters()).dtype, _SAME_ROUGHLY)
    alone = _first_steps(model, [shorter], pad_id, precision)
    for together, rows in (("any", [shorter, longer]), ("prompts of equal length together", [shorter, shorter])):
        with contextlib.suppress(RuntimeError, TypeError, ValueError, IndexError):  # then not this way
            if _distance(alone, _first_steps(model, rows, pad_id, precision)) <= rough:
                return together
    return _ONE_AT_A_TIME


Steps = list[tuple[int, torch.Tensor]]


def _first_steps(model: Any, rows: Sequence[np.ndarray], pad_id: int, precision: str) -> Steps:
    """The first greedy tokens of the first row, and the probabilities (V,) that each was taken from."""
    ids, mask = _left_padded(rows, pad_id, next(model.parameters()).device)
    config = GenerationConfig(
        max_new_tokens=_TRIAL_TOKENS, pad_token_id=pad_id, output_logits=True, return_dict_in_generate=True
    )
    with only(model, config), autocast(ids.device, precision):
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    taken = output.sequences[0, ids.shape[1] :].tolist()
    return [(token, logits[0].double().softmax(-1)) for token, logits in zip(taken, output.logits, strict=True)]


def _distance(steps: Steps, others: Steps) -> float:
    """The largest total variation between probabilities after the same tokens; nan where one is nan."""
    largest = 0.0
    for (token, probabilities), (other_token, other) in zip(steps, others, strict=True):
        distance = float((probabilities - other).abs().sum() / 2)
        if not distance <= largest:
            largest = distance
        if token != other_token:
            break
    return largest


def _left_padded(rows: Sequence[np.ndarray], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask (B, T), left-padded so that all completions begin at the same position."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, width - len(row) :] = torch.from_numpy(row.astype(np.int64))
        mask[number, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


def _generate(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, options: dict[str, Any], precision: str, tokenizer: Any
) -> list[list[int]]:
    """Token ids of one completion per prompt, right-padded to one length."""
    reads_text: dict[str, Any] = {"tokenizer": tokenizer} if options["generation_config"].stop_strings else {}
    with autocast(ids.device, precision):
        output = model.generate(input_ids=ids, attention_mask=mask, **options, **reads_text)
    return output[:, ids.shape[1] :].tolist()


def _completion(row: list[int], ends: Sequence[int], tokenizer: Any, config: GenerationConfig) -> Completion:
    stop = next((place for place, token in enumerate(row) if token in ends), None)
    tokens, closed = (row, False) if stop is None else (row[: stop + 1], True)
    if stop is None and config.stop_strings is not None:  # ended by one of them, or at the limit
        while tokens and tokens[-1] == tokenizer.pad_token_id:
            tokens = tokens[:-1]
        closed = len(tokens) < config.max_new_tokens
    text = tokenizer.decode(tokens if stop is None else tokens[:-1], skip_special_tokens=True).strip()
    return Completion(np.array(tokens, dtype=np.int64), text, closed)


@torch.no_grad()
def completion_logps(
    model: nn.Module,
    prompts: Sequence[np.ndarray],
    completions: Sequence[np.ndarray],
    *,
    plan: ForwardPlan | None = None,
    tokens_per_batch: int,
    precision: str,
    pad_id: int,
) -> np.ndarray:
    """Summed log-prob of every completion under a model (n,), nats."""
    device = next(model.parameters()).device
    plan = replace(plan or forward_plan(model), lower=None)  # samples are scored once: nothing to cache
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    sums = np.zeros(len(prompts))
    was_training = model.training
    model.eval()
    for places in split_to_budget(lengths, tokens_per_batch):
        of_prompts, of_completions = [prompts[p] for p in places], [completions[p] for p in places]
        sequences = sequences_to(make_sequences(of_prompts, of_completions, pad_id, plan.layout), device)
        values = token_logps(model, sequences, precision=precision, plan=plan)
        sums[places] = response_sums(values.double(), sequences["lengths"]).cpu().numpy()
    model.train(was_training)
    return sums
