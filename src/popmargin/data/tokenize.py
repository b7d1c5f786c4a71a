"""Token ids of preferences: templates are the tokenizer's, and the completion begins exactly where the prompt ends."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int64
from transformers import PreTrainedTokenizerBase

from popmargin.data import token_shards
from popmargin.data.conversation import Text
from popmargin.data.cut_tokens import cut_prompt
from popmargin.data.encode import AS_TEMPLATE, Writing, make_encoder
from popmargin.data.ragged import Ragged
from popmargin.data.schema import Preferences, holds_images
from popmargin.data.template import content_of
from popmargin.data.token_cache import TokenCache
from popmargin.data.token_shards import Shard, Tokenizing, joined
from popmargin.data.token_workers import tokenized_shards, worker_count
from popmargin.data.tokenization_report import TruncationReport
from popmargin.errors import ConfigError, DataError, counted, did_you_mean

Truncation = Literal["keep_prompt_end", "keep_prompt_start", "drop", "error"]
TRUNCATIONS: tuple[str, ...] = get_args(Truncation)
KEPT_FROM = 20_000
"""Rows from which tokens are kept: fewer take less time to make than to think about."""
_BATCH = 1_000

__all__ = [
    "Ragged",
    "TokenizedPreferences",
    "TruncationReport",
    "prompt_text",
    "tokenize_preferences",
    "tokenize_prompts",
]


@dataclass(frozen=True)
class TokenizedPreferences:
    """Token ids of preferences; prompt + chosen and prompt + rejected are what the model sees.

    Attributes:
        ids: id of each kept row.
        prompt: prompt tokens, at least one a row.
        chosen: completion tokens after that prompt, at least one a row, end-of-turn or EOS token included.
        rejected: the same for rejected; never equal to chosen.
        index: row of the Preferences each row came from.
        report: what was cut and dropped.
    """

    ids: list[str]
    prompt: Ragged
    chosen: Ragged
    rejected: Ragged
    index: Int64[np.ndarray, " n"]
    report: TruncationReport

    def __len__(self) -> int:
        return len(self.ids)

    def sizes(self) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Tokens of the chosen and of the rejected completions (n,)."""
        return self.chosen.lengths, self.rejected.lengths


def refuse_images(prefs: Preferences) -> None:
    """Refuse preferences between images, whose names are no texts to train on.

    Raises:
        DataError: the responses are images.
    """
    if holds_images(prefs):
        raise DataError(
            f"The preferences from {prefs.report.source} are between images, which a language model cannot read. Set "
            "task: images, with a text-to-image model."
        )


def tokenize_preferences(
    prefs: Preferences,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = 1024,
    truncation: Truncation = "keep_prompt_end",
    writing: Writing = AS_TEMPLATE,
    workers: int | None = 1,
    keep: Path | None = None,
) -> TokenizedPreferences:
    """Tokenize prompt + chosen and prompt + rejected, split where the prompt's tokens end.

    Conversations are formatted by the tokenizer's chat template; anything after the last end-of-turn token is dropped,
    since a model never generates it. Texts are tokenized together with their prompt, after the tokenizer's default
    prefix (BOS) and before one EOS token. If the prompt's own tokens are not a prefix of both sequences, the longest
    common prefix of the three is the prompt of both; with `Writing(prompt="sampling")` the prompt's own tokens are.
    `report.notes()` says what the chat template does to the rows.

    Rows longer than `max_length`, by `truncation`: "keep_prompt_end" cuts the prompt at its start (a leading BOS token
    stays), "keep_prompt_start" at its end, in both cases down to half of `max_length`, then the completions at their
    end; "drop" drops the row; "error" raises. Both completions always share one prompt.

    Args:
        max_length: maximum tokens of prompt + completion (≥ 2); None for no limit.
        truncation: as above.
        writing: which text is prompt, and which is completion.
        workers: processes that tokenize; None for as many as there are cores, and 1 for small data.
        keep: a folder that keeps the tokens of large data, memory-mapped, for the next time; what a killed process has
            done is found there too. None keeps them in memory.

    Raises:
        DataError: responses that are images, no chat template, no EOS token, a conversation that the template refuses,
            no rows left, or rows that are too long under "error".
        RunError: a worker has ended, or the folder cannot be written.
        ConfigError: an unknown truncation, or max_length below 2.
    """
    refuse_images(prefs)
    if truncation not in TRUNCATIONS:
        raise ConfigError(f"truncation='{truncation}' is unknown. {did_you_mean(truncation, TRUNCATIONS)}")
    if max_length is not None and max_length < 2:
        raise ConfigError(f"max_length={max_length}: it must be at least 2, for a prompt token and a completion token.")
    how = Tokenizing(tokenizer, prefs.conversational, max_length, truncation, writing)
    rows, workers = token_shards.SHARD_ROWS, worker_count(len(prefs), workers)

    def shards(first: int) -> Iterator[Shard]:
        return tokenized_shards(prefs, how, rows=rows, first=first, workers=workers)

    if keep is not None and len(prefs) >= KEPT_FROM:
        whole = TokenCache(keep, prefs, how, rows=rows).shard(shards)
    else:
        whole = joined(list(shards(0)))
    return _finished(prefs, how, whole)


def tokenize_prompts(
    prompts: Sequence[Text], tokenizer: PreTrainedTokenizerBase, *, max_length: int | None = None
) -> Ragged:
    """Tokenize prompts for sampling: with the generation prompt, or open after a last assistant message.

    Args:
        prompts: texts, or conversations.
        max_length: maximum tokens of a prompt; its end and a leading BOS token are kept.

    Raises:
        DataError: as in `tokenize_preferences`; also texts mixed with conversations.
        ConfigError: max_length below 1.
    """
    if max_length is not None and max_length < 1:
        raise ConfigError(f"max_length={max_length}: a prompt needs at least 1 token.")
    kinds = {isinstance(prompt, str) for prompt in prompts}
    if len(kinds) > 1:
        raise DataError("Some prompts are text, others are conversations. Remedy: use one kind.")
    encoder = make_encoder(tokenizer, conversational=kinds == {False})
    parts: list[Ragged] = []
    for start in range(0, len(prompts), _BATCH):
        ids = encoder.prompts(prompts[start : start + _BATCH], start)
        parts.append(Ragged.of([cut_prompt(encoder.never_empty(row), max_length, True, encoder.bos) for row in ids]))
    return Ragged.concatenate(parts)


def prompt_text(prompt: Text) -> str:
    """Readable text of a prompt for reports: the text, or the last user turns of a conversation.

    Example:
        >>> prompt_text([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}])
        'Hi'
    """
    if isinstance(prompt, str):
        return prompt
    users = [number for number, turn in enumerate(prompt) if turn["role"] == "user"]
    if not users:
        return content_of(prompt[-1]) if prompt else ""
    first = last = users[-1]
    while first - 1 in users:
        first -= 1
    return "\n".join(content_of(turn) for turn in prompt[first : last + 1])


def _finished(prefs: Preferences, how: Tokenizing, whole: Shard) -> TokenizedPreferences:
    """All rows with the report of what happened to them."""
    ids, seen = prefs.ids, whole.observed
    if seen.too_long:
        shown = ", ".join(f"{ids[row]} ({counted(length, 'token')})" for row, length in seen.too_long[:5])
        raise DataError(
            f"{len(seen.too_long)} of {counted(len(prefs), 'row')} have more than max_length={how.max_length} tokens: "
            f"{shown}. Remedy: raise max_length, or choose another truncation."
        )
    if not len(whole.index):
        lengths = {"too_long", "identical_after_truncation"}
        remedy = (
            "raise max_length, or choose another truncation."
            if any(reason in lengths for _, reason in seen.dropped)
            else "the tokenizer or chat template drops what distinguishes the completions; for conversations, "
            "data.prompt: sampling with data.reasoning: keep trains on the completions' full text."
        )
        raise DataError(
            f"No row is left of {len(prefs)} after tokenization: "
            f"{', '.join(f'{ids[row]}: {reason}' for row, reason in seen.dropped[:5])}. "
            f"Remedy: {remedy}"
        )
    ends = {*seen.ends, how.tokenizer.eos_token_id} - {None}
    seen.found["goes_on"] = sorted(
        int(whole.index[place]) for side in (whole.chosen, whole.rejected) for place in _going_on(side, sorted(ends))
    )
    report = TruncationReport.of(seen, ids, whole.index, {
        "rows_in": len(prefs), "max_length": how.max_length, "conversational": how.conversational,
    })  # fmt: skip
    return TokenizedPreferences([ids[row] for row in whole.index], *whole.sides, whole.index, report)


def _going_on(completions: Ragged, ends: Sequence[int]) -> Iterator[int]:
    """Numbers of the completions with an end token before their last one."""
    for start in range(0, len(completions), _BATCH):
        offsets = completions.offsets[start : start + _BATCH + 1]
        inside = np.isin(completions.values[offsets[0] : offsets[-1]], ends)
        inside[offsets[1:] - offsets[0] - 1] = False
        places = np.searchsorted(offsets - offsets[0], np.flatnonzero(inside), side="right") - 1
        yield from (start + np.unique(places)).tolist()
