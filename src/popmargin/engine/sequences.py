"""Responses as model inputs: packed into one row that shares prompts, or padded side by side.

Axis suffixes: S responses, T length of the row(s), N completion tokens of all responses one after the other.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch

_WINDOW = 256  # items of similar length that are packed together: whole data sets in linear time

Layout = Literal["packed", "padded", "alone"]
"""packed: one row without padding, prompts encoded once; padded: a row per response, for models that cannot pack;
alone: the same, with one forward pass per row, for models whose numbers depend on what is in the batch."""

Sequences = dict[str, Any]
"""Model inputs of S responses.

Both layouts: label_positions (N,) flat positions whose logits predict the completion tokens, labels (N,), lengths (S,)
completion tokens of each response.
Padded: input_ids (S, T), attention_mask (S, T), and sizes: a tuple of the S responses' token counts, prompts included.
Packed: input_ids (1, T), position_ids (1, T), and segments: one tuple a group of responses, (prefix, tail, tail, …)
token counts in the order of the row. A tail attends to its prefix and to itself, a prefix to itself.
Made `whole`: also token_positions (N,), flat positions of the completion tokens, and last_positions (S,), those of each
response's last token that is not the padding token.
"""


def make_sequences(
    prompts: Sequence[np.ndarray],
    completions: Sequence[np.ndarray],
    pad_id: int,
    layout: Layout,
    *,
    whole: bool = False,
) -> Sequences:
    """Inputs of some responses in a layout.

    Args:
        prompts: token ids of each prompt, at least one.
        completions: token ids of each completion, at least one.
        pad_id: a padding token.
        layout: packed, or one of those with one row per response.
        whole: for reward models: every response to its last token, with `token_positions` and `last_positions`.
    """
    if layout != "packed":
        return pad_sequences(prompts, completions, pad_id, whole=whole)
    return pack_sequences(prompts, completions, whole_to=pad_id if whole else None)


def pad_sequences(
    prompts: Sequence[np.ndarray], completions: Sequence[np.ndarray], pad_id: int, *, whole: bool = False
) -> Sequences:
    """Right-padded prompt + completion rows, and where their completion tokens are predicted.

    Args:
        prompts: token ids of each prompt, at least one.
        completions: token ids of each completion, at least one.
        pad_id: the padding token; it is masked, so any will do.
        whole: also give `token_positions`, and `last_positions`, which a response's own padding tokens move.
    """
    rows = [np.concatenate(pair) for pair in zip(prompts, completions, strict=True)]
    width = max(len(row) for row in rows)
    ids_ST = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask_ST = np.zeros((len(rows), width), dtype=np.int64)
    positions: list[np.ndarray] = []
    for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        ids_ST[number, : len(row)] = row
        mask_ST[number, : len(row)] = 1
        positions.append(number * width + np.arange(len(prompt) - 1, len(row) - 1))
    found = torch.from_numpy(np.concatenate(positions))
    ends: dict[str, torch.Tensor] = {}
    if whole:
        last = [number * width + _last(row, pad_id) for number, row in enumerate(rows)]
        ends = {"token_positions": found + 1, "last_positions": torch.tensor(last)}
    return {
        "input_ids": torch.from_numpy(ids_ST),
        "attention_mask": torch.from_numpy(mask_ST),
        "sizes": tuple(len(row) for row in rows),
        "label_positions": found,
        **_labels(completions),
        **ends,
    }


def pack_sequences(
    prompts: Sequence[np.ndarray], completions: Sequence[np.ndarray], *, whole_to: int | None = None
) -> Sequences:
    """One row in which responses to the same prompt share their longest common prefix.

    The prefix is the true common one, completions included; equal responses are in the row once. The last token of a
    response predicts nothing and is omitted, unless whole responses are requested.

    Args:
        prompts: token ids of each prompt, at least one.
        completions: token ids of each completion, at least one.
        whole_to: keep the last tokens, and give `token_positions`, and `last_positions` for this padding token.
    """
    groups: dict[bytes, list[int]] = {}
    for number, prompt in enumerate(prompts):
        groups.setdefault(np.ascontiguousarray(prompt, dtype=np.int64).tobytes(), []).append(number)
    ids: list[np.ndarray] = []
    places: list[np.ndarray] = []
    segments: list[tuple[int, ...]] = []
    label_positions: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * len(completions)
    token_positions = list(label_positions)
    last_positions = np.zeros(len(completions), dtype=np.int64)
    kept = slice(None) if whole_to is not None else slice(-1)
    offset = 0
    for members in groups.values():
        inputs = [np.concatenate([prompts[i], completions[i]])[kept].astype(np.int64) for i in members]
        prefix = _common_prefix(inputs)
        ids.append(inputs[0][:prefix])
        places.append(np.arange(prefix))
        lengths, tails, end = [prefix], dict[bytes, int](), offset + prefix
        for member, row in zip(members, inputs, strict=True):
            tail = row[prefix:]
            start = tails.get(tail.tobytes())
            if start is None:
                start = tails[tail.tobytes()] = end
                if len(tail):
                    ids.append(tail)
                    places.append(np.arange(prefix, len(row)))
                    lengths.append(len(tail))
                    end += len(tail)
            positions = np.arange(len(prompts[member]) - 1, len(prompts[member]) + len(completions[member]) - 1)
            label_positions[member] = positions + np.where(positions < prefix, offset, start - prefix)
            if whole_to is not None:
                tokens, last = positions + 1, _last(row, whole_to)
                token_positions[member] = tokens + np.where(tokens < prefix, offset, start - prefix)
                last_positions[member] = last + (offset if last < prefix else start - prefix)
        segments.append(tuple(lengths))
        offset = end
    ends: dict[str, torch.Tensor] = {}
    if whole_to is not None:
        ends = {"token_positions": torch.from_numpy(np.concatenate(token_positions)),
                "last_positions": torch.from_numpy(last_positions)}  # fmt: skip
    return {
        "input_ids": torch.from_numpy(np.concatenate(ids))[None],
        "position_ids": torch.from_numpy(np.concatenate(places))[None],
        "segments": tuple(segments),
        "label_positions": torch.from_numpy(np.concatenate(label_positions)),
        **_labels(completions),
        **ends,
    }


def longest_sequence(sequences: Sequences) -> int:
    """Tokens of the longest sequence, including the last one if a packed row omits it."""
    if "segments" in sequences:
        left_out = 0 if "last_positions" in sequences else 1
        return left_out + max(group[0] + max(group[1:], default=0) for group in sequences["segments"])
    return max(sequences["sizes"])


def one_by_one(sequences: Sequences) -> Iterator[Sequences]:
    """Padded sequences as those of one response each, without padding."""
    width, labels = sequences["input_ids"].shape[1], sequences["labels"].split(sequences["lengths"].tolist())
    places = {
        name: sequences[name].split(sequences["lengths"].tolist())
        for name in ("label_positions", "token_positions")
        if name in sequences
    }
    for row, size in enumerate(sequences["sizes"]):
        one: Sequences = {
            "input_ids": sequences["input_ids"][row : row + 1, :size],
            "attention_mask": sequences["attention_mask"][row : row + 1, :size],
            "sizes": (size,),
            **{name: of_rows[row] - row * width for name, of_rows in places.items()},
            "labels": labels[row],
            "lengths": sequences["lengths"][row : row + 1],
        }
        if "last_positions" in sequences:
            one["last_positions"] = sequences["last_positions"][row : row + 1] - row * width
        yield one


def packed_length(prompts: Sequence[np.ndarray], completions: Sequence[np.ndarray]) -> int:
    """Maximum tokens that responses take in a packed row: every distinct prompt once, and all completions."""
    distinct = {prompt.tobytes(): len(prompt) for prompt in prompts}
    return sum(distinct.values()) + sum(len(completion) for completion in completions)


def sequences_to(sequences: Sequences, device: torch.device) -> Sequences:
    """The same inputs with their tensors on a device."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in sequences.items()}


def split_to_budget(tokens: Sequence[int], budget: int) -> list[list[int]]:
    """Split items into parts within a token budget, which only a single item may exceed; first-fit decreasing.

    Args:
        tokens: token count of each item.
        budget: maximum tokens per part.

    Returns:
        Item numbers of each part, ascending.
    """
    parts: list[list[int]] = []
    longest_first = sorted(range(len(tokens)), key=lambda item: (-tokens[item], item))
    for start in range(0, len(longest_first), _WINDOW):
        open_parts: list[list[int]] = []
        room: list[int] = []
        for item in longest_first[start : start + _WINDOW]:
            place = next((p for p, left in enumerate(room) if tokens[item] <= left), len(room))
            if place == len(room):
                open_parts.append([])
                room.append(budget)
            open_parts[place].append(item)
            room[place] -= tokens[item]
        parts += [sorted(part) for part in open_parts]
    return parts


def _labels(completions: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    return {
        "labels": torch.from_numpy(np.concatenate(completions).astype(np.int64)),
        "lengths": torch.tensor([len(completion) for completion in completions]),
    }


def _last(row: np.ndarray, pad_id: int) -> int:
    """Position of the last non-padding token; 0 if all are padding, as in transformers' classifiers."""
    places = np.flatnonzero(row != pad_id)
    return int(places[-1]) if len(places) else 0


def _common_prefix(rows: Sequence[np.ndarray]) -> int:
    shortest = min(len(row) for row in rows)
    differs = np.zeros(shortest, dtype=bool)
    for row in rows[1:]:
        differs |= row[:shortest] != rows[0][:shortest]
    return int(differs.argmax()) if differs.any() else shortest
