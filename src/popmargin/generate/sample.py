"""Completions of prompts: batched, seeded, with the log-probs under policy and reference of what was sampled."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from popmargin.data.ragged import Ragged
from popmargin.engine.limits import context_limit
from popmargin.engine.logps import autocast, forward_plan, response_sums, token_logps
from popmargin.engine.sequences import make_sequences, sequences_to, split_to_budget


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How completions are sampled.

    Attributes:
        samples: completions per prompt.
        max_new_tokens: longest completion, tokens.
        temperature: 0 takes the most likely token.
        top_k: among the k most likely tokens; 0 means all.
        batch_size: completions at once.
        seed: seed of the sampling; the caller's random state is left as it was.
        precision: fp32 or bf16.
    """

    samples: int = 1
    max_new_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 0
    batch_size: int = 64
    seed: int = 0
    precision: str = "fp32"


@dataclass(frozen=True)
class Completion:
    """One sampled completion.

    Attributes:
        tokens: its token ids, end token included when it ended.
        text: as readable text.
        finished: whether it ended by itself.
    """

    tokens: np.ndarray
    text: str
    finished: bool


@torch.no_grad()
def sample(
    model: Any, tokenizer: Any, prompts: Ragged, sampling: Sampling, *, progress: bool = False
) -> list[Completion]:
    """Completions of prompts, all samples of a prompt one after the other.

    Args:
        model: a causal language model with transformers' `generate`.
        tokenizer: decodes; its EOS token and those of the model's generation config end a completion.
        prompts: token ids.
        sampling: how to sample.
        progress: show a progress bar.

    Returns:
        `samples` completions for every prompt.

    Raises:
        RunError: prompt and completion may together be longer than the model takes; see `context_limit`.
    """
    limit = context_limit(model)
    if limit is not None and len(prompts):
        limit.check(int(prompts.lengths.max()) + sampling.max_new_tokens)
    ends = _end_tokens(model, tokenizer)
    device = next(model.parameters()).device
    wanted = [i for i in range(len(prompts)) for _ in range(sampling.samples)]
    order = sorted(range(len(wanted)), key=lambda place: (len(prompts[wanted[place]]), place))
    result: dict[int, Completion] = {}
    was_training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(sampling.seed)
        for start in tqdm(range(0, len(order), sampling.batch_size), desc="sampling", disable=not progress):
            places = order[start : start + sampling.batch_size]
            rows = [prompts[wanted[place]] for place in places]
            ids = _generate(model, rows, tokenizer.pad_token_id, ends, sampling, device)
            for place, row in zip(places, ids, strict=True):
                result[place] = _completion(row, ends, tokenizer)
    model.train(was_training)
    return [result[place] for place in range(len(wanted))]


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [*listed, tokenizer.eos_token_id] if token is not None})


def _generate(
    model: Any, rows: Sequence[np.ndarray], pad_id: int, ends: list[int], sampling: Sampling, device: torch.device
) -> list[list[int]]:
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):  # on the left, so that all completions begin at the same place
        ids[number, width - len(row) :] = torch.from_numpy(row.astype(np.int64))
        mask[number, width - len(row) :] = 1
    choice: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        choice = {"do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": 1.0}
    with autocast(device, sampling.precision):
        output = model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=pad_id,
            eos_token_id=ends,
            **choice,
        )
    return output[:, width:].tolist()


def _completion(row: list[int], ends: list[int], tokenizer: Any) -> Completion:
    stop = next((place for place, token in enumerate(row) if token in ends), None)
    tokens = row if stop is None else row[: stop + 1]
    text = tokenizer.decode(tokens if stop is None else tokens[:-1], skip_special_tokens=True).strip()
    return Completion(np.array(tokens, dtype=np.int64), text, stop is not None)


@torch.no_grad()
def completion_logps(
    model: nn.Module,
    prompts: Sequence[np.ndarray],
    completions: Sequence[np.ndarray],
    *,
    tokens_per_batch: int,
    precision: str,
    pad_id: int,
) -> np.ndarray:
    """Summed log-prob of every completion under a model (n,), nats."""
    device = next(model.parameters()).device
    plan = replace(forward_plan(model), lower=None)  # what is sampled comes once: nothing to keep
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
