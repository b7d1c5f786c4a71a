"""Log-probs, margins and PoP target margins of preferences, as tables, for any causal language model.

Axis suffixes: P preferences, N completion tokens, E edges.
"""

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor

from popmargin.api.table import Table
from popmargin.data.load import load_preferences
from popmargin.data.schema import Preferences
from popmargin.data.tokenize import TokenizedPreferences, Truncation, tokenize_preferences
from popmargin.engine.batch import TokenInputs
from popmargin.engine.logps import forward_plan, token_logps
from popmargin.engine.sequences import split_to_budget
from popmargin.errors import ConfigError, DataError, RunError, counted, first_few
from popmargin.margin import Margin
from popmargin.models.policies import load_model, load_tokenizer, with_padding
from popmargin.objectives.pop import TargetClip
from popmargin.pop.edges import PopEdges
from popmargin.registry import make_options
from popmargin.tasks.checks import check_padding, check_rows

_LOG = logging.getLogger(__name__)


def log_probs(
    model: Any,
    tokenizer: Any,
    preferences: Any,
    *,
    per_token: bool = False,
    max_length: int | None = 1024,
    truncation: Truncation = "keep_prompt_end",
    precision: str = "fp32",
    tokens_per_batch: int = 4096,
) -> Table:
    """Log-probs of the chosen and rejected responses of preferences under a causal language model.

    Prompts and responses are tokenized as in training, including TRL's formats, and a response's end token counts.

    Args:
        model: a transformers model, with or without a LoRA adapter, on any device; or a folder or hub id. It is scored
            in evaluation mode and left unchanged.
        tokenizer: its tokenizer; None for the one in the model's folder or hub repository.
        preferences: `Preferences`, or anything that `load_preferences` reads: a path, a `datasets.Dataset`, a list of
            dicts.
        per_token: also return the log-prob of every token.
        max_length: maximum length of prompt + response, tokens; None for no limit.
        truncation: what to cut in longer rows, as in `data.truncation`.
        precision: fp32 or bf16, of the matmuls.
        tokens_per_batch: maximum tokens per forward pass.

    Returns:
        One row per preference: `id`, `chosen_logps` and `rejected_logps` (summed over the tokens, nats),
        `chosen_tokens` and `rejected_tokens` (counts); with `per_token` also `chosen_token_logps` and
        `rejected_token_logps` (an array per row). `left_out` names the preferences without a row, and why.

    Raises:
        ConfigError, DataError, RunError: something cannot be loaded, tokenized or scored.

    Example:
        >>> table = log_probs(model, tokenizer, [{"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}])
        >>> list(table)
        ['id', 'chosen_logps', 'rejected_logps', 'chosen_tokens', 'rejected_tokens']
    """
    opened, tokenizer = opened_model(model, tokenizer)
    encoded = _encode(preferences, tokenizer, max_length, truncation)
    tokens = _token_logps(opened, tokenizer, encoded, precision, tokens_per_batch)
    sides = {"chosen": tokens[0], "rejected": tokens[1]}
    columns: dict[str, Any] = {"id": encoded.ids}
    columns |= {f"{side}_logps": [part.sum(dtype=np.float64) for part in parts] for side, parts in sides.items()}
    columns |= {f"{side}_tokens": [len(part) for part in parts] for side, parts in sides.items()}
    if per_token:
        columns |= {f"{side}_token_logps": parts for side, parts in sides.items()}
    return Table(columns, left_out=tuple(encoded.report.dropped))


def margins(
    model: Any,
    reference: Any,
    preferences: Any,
    *,
    tokenizer: Any = None,
    beta: float | None = None,
    max_length: int | None = 1024,
    truncation: Truncation = "keep_prompt_end",
    precision: str = "fp32",
    tokens_per_batch: int = 4096,
) -> Table:
    """By how much a model prefers the chosen responses to the rejected ones, against a reference.

    Δ = log π(chosen)/π_ref(chosen) − log π(rejected)/π_ref(rejected), the implicit reward margin of DPO before β.

    Args:
        model: as in `log_probs`.
        reference: another model with the same tokenizer, in the same forms; None for log-probs without a ratio.
        preferences: as in `log_probs`.
        tokenizer: of both models; None for the one next to the model.
        beta: reward units per nat; adds the column `reward_margin`, β·Δ.
        max_length, truncation, precision, tokens_per_batch: as in `log_probs`.

    Returns:
        One row per preference: `id`, `margin` (Δ, nats), the columns of `log_probs`, and `reference_chosen_logps` and
        `reference_rejected_logps` if there is a reference.

    Raises:
        ConfigError, DataError, RunError: as in `log_probs`.

    Example:
        >>> rows = [{"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}]
        >>> margins(model, model, rows, tokenizer=tokenizer)["margin"].tolist()  # a model does not differ from itself
        [0.0]
    """
    opened, tokenizer = opened_model(model, tokenizer)
    own = log_probs(opened, tokenizer, preferences, max_length=max_length, truncation=truncation, precision=precision,
                    tokens_per_batch=tokens_per_batch)  # fmt: skip
    columns = dict(own)
    gap = own["chosen_logps"] - own["rejected_logps"]
    if reference is not None:
        other = log_probs(reference, tokenizer, preferences, max_length=max_length, truncation=truncation,
                          precision=precision, tokens_per_batch=tokens_per_batch)  # fmt: skip
        columns |= {f"reference_{side}_logps": other[f"{side}_logps"] for side in ("chosen", "rejected")}
        gap = gap - (other["chosen_logps"] - other["rejected_logps"])
    reward = {} if beta is None else {"reward_margin": beta * gap}
    return Table({"id": columns.pop("id"), "margin": gap, **reward, **columns}, left_out=own.left_out)


def target_margins(
    edges: PopEdges, gaps: Mapping[str, Any], *, margin_min: float = 0.0, margin_max: float = 10.0
) -> Table:
    """The PoP target margin of every edge: the clipped gap of its weaker preference, as in the objective `pop`.

    The stronger preference should then lead by this margin: `losses.pop(chosen, rejected, target=…)`, or Δ − target in
    the loss of another trainer.

    Args:
        edges: PoP edges.
        gaps: a table with `id` and `margin` (nats), as returned by `margins`, or a mapping from id to gap.
        margin_min, margin_max: bounds of the clipping, nats.

    Returns:
        One row per edge, excluding ties as in training: `stronger` and `weaker` (ids; `weaker` is None if the edge
        has none), `target_margin` (nats; 0 without a weaker side).

    Raises:
        DataError: a weaker preference has no finite gap; the message names it.

    Example:
        >>> edges = PopEdges.from_columns(["a", "b", "c"], ["b", "c", None])
        >>> target_margins(edges, {"a": 1.0, "b": 12.0, "c": -2.0})["target_margin"].tolist()
        [10.0, 0.0, 0.0]
    """
    if not isinstance(edges, PopEdges):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"edges must be PopEdges, not {type(edges).__name__}. PopEdges.load reads a file.")
    if not isinstance(gaps, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"gaps must be a table of `margins` or a mapping from id to gap, not {type(gaps).__name__}.")
    clip = make_options(TargetClip, {"margin_min": margin_min, "margin_max": margin_max}, "target_margins")
    known = dict(zip(gaps.ids, gaps["margin"].tolist(), strict=True)) if isinstance(gaps, Table) else dict(gaps)
    rows = [row for row in edges.table.select(["stronger", "weaker", "tie"]).to_pylist() if not row["tie"]]
    weaker: list[str | None] = [row["weaker"] for row in rows]
    missing = sorted({name for name in weaker if name is not None and not np.isfinite(known.get(name, np.nan))})
    if missing:
        raise DataError(
            f"No finite gap for {counted(len(missing), 'weaker preference')} of the edges ({first_few(missing)}). "
            "Score them, or drop their edges."
        )
    values = torch.tensor([0.0 if name is None else float(known[name]) for name in weaker], dtype=torch.float64)
    has_weaker = torch.tensor([name is not None for name in weaker], dtype=torch.bool)
    target = Margin(values=values, unit="nats").clip(clip.margin_min, clip.margin_max).only(has_weaker)
    return Table({"stronger": [row["stronger"] for row in rows], "weaker": weaker,
                  "target_margin": target.values.numpy()})  # fmt: skip


def as_preferences(data: Any) -> Preferences:
    """Preferences, from anything that `load_preferences` reads."""
    return data if isinstance(data, Preferences) else load_preferences(data)


def opened_model(model: Any, tokenizer: Any) -> tuple[Any, Any]:
    """A model in memory, from an object or a folder or hub id, and its tokenizer with a padding token.

    Raises:
        ConfigError: the object has no tokenizer.
        RunError: one of them cannot be loaded.
    """
    if isinstance(model, (str, Path)):
        tokenizer = load_tokenizer(str(model)) if tokenizer is None else with_padding(tokenizer, str(model))
        return load_model(str(model), torch.float32).eval(), tokenizer
    if tokenizer is None:
        raise ConfigError(
            f"A model in memory ({type(model).__name__}) comes without its tokenizer: pass the one that "
            "AutoTokenizer loads."
        )
    if not isinstance(model, torch.nn.Module) or getattr(model, "config", None) is None:
        raise ConfigError(f"model must be a transformers model, a folder or a hub id, not {type(model).__name__}.")
    if isinstance(tokenizer, str) or tokenizer.pad_token_id is None:
        tokenizer = with_padding(copy.deepcopy(tokenizer), "the model in memory")
    return model, tokenizer


def _encode(preferences: Any, tokenizer: Any, max_length: int | None, truncation: Truncation) -> TokenizedPreferences:
    encoded = tokenize_preferences(
        as_preferences(preferences), tokenizer, max_length=max_length, truncation=truncation, workers=None
    )
    for note in encoded.report.notes():
        _LOG.warning("%s", note)
    return encoded


@torch.no_grad()
def _token_logps(
    model: Any, tokenizer: Any, encoded: TokenizedPreferences, precision: str, tokens_per_batch: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Log-probs of every token (nats) of the chosen and of the rejected responses, an array per preference."""
    if precision not in ("fp32", "bf16"):
        raise ConfigError(f"precision is fp32 or bf16, not {precision!r}.")
    name = str(getattr(model, "name_or_path", "") or type(model).__name__)
    check_padding(tokenizer, model, name)
    check_rows(encoded, model, name)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        plan = forward_plan(model)
        inputs = TokenInputs(encoded, tokenizer.pad_token_id, plan.layout)
        chosen, rejected = ([np.empty(0, np.float32)] * len(encoded) for _ in range(2))
        for rows in split_to_budget(inputs.costs().tolist(), tokens_per_batch):
            sequences: Any = send_to_device(inputs.collate(np.array(rows))["sequences"], device)
            logps_N: Tensor = token_logps(model, sequences, precision=precision, plan=plan).float().cpu()
            parts = [part.numpy() for part in logps_N.split(sequences["lengths"].tolist())]
            for place, row in enumerate(rows):
                chosen[row], rejected[row] = parts[place], parts[len(rows) + place]
    finally:
        model.train(was_training)
    bad = [
        name
        for name, a, b in zip(encoded.ids, chosen, rejected, strict=True)
        if not np.isfinite([a.sum(), b.sum()]).all()
    ]
    if bad:
        raise RunError(f"The model gives non-finite log-probs for {first_few(bad)}: are its weights intact?")
    return chosen, rejected
