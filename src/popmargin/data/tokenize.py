"""Token ids of preferences: templates are the tokenizer's, and the completion begins exactly where the prompt ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int64
from transformers import PreTrainedTokenizerBase

from popmargin.data.conversation import Text
from popmargin.data.encode import AS_TEMPLATE, Encoder, Tokens, Writing, make_encoder
from popmargin.data.ragged import Ragged
from popmargin.data.schema import Preferences, holds_images
from popmargin.data.template import content_of
from popmargin.data.tokenization_report import TruncationReport
from popmargin.errors import ConfigError, DataError, counted, did_you_mean

Truncation = Literal["keep_prompt_end", "keep_prompt_start", "drop", "error"]
TRUNCATIONS: tuple[str, ...] = get_args(Truncation)
_BATCH = 1_000

__all__ = [
    "Ragged",
    "TokenizedPreferences",
    "TruncationReport",
    "cut_to_length",
    "prompt_text",
    "split_sequences",
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

    Raises:
        DataError: responses that are images, no chat template, no EOS token, a conversation that the template refuses,
            no rows left, or rows that are too long under "error".
        ConfigError: an unknown truncation, or max_length below 2.
    """
    refuse_images(prefs)
    if truncation not in TRUNCATIONS:
        raise ConfigError(f"truncation='{truncation}' is unknown. {did_you_mean(truncation, TRUNCATIONS)}")
    if max_length is not None and max_length < 2:
        raise ConfigError(f"max_length={max_length}: it must be at least 2, for a prompt token and a completion token.")
    encoder = make_encoder(tokenizer, conversational=prefs.conversational, writing=writing)
    encoder.ids = prefs.ids
    fitter = _Fitter(prefs, encoder, max_length, truncation)
    start = 0
    for batch in prefs.batches("prompt", "chosen", "rejected", size=_BATCH):
        triples = encoder.preferences(batch["prompt"], batch["chosen"], batch["rejected"], start)
        fitter.add(start, *triples)
        start += len(batch["prompt"])
    return fitter.finish()


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
        parts.append(Ragged.of([_cut_prompt(encoder.never_empty(row), max_length, True, encoder.bos) for row in ids]))
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


@dataclass
class _Fitter:
    """Splits, truncates and collects rows, and keeps counts."""

    prefs: Preferences
    encoder: Encoder
    max_length: int | None
    truncation: str
    parts: list[tuple[Ragged, Ragged, Ragged]] = field(default_factory=list[tuple[Ragged, Ragged, Ragged]])
    index: list[int] = field(default_factory=list[int])
    dropped: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    too_long: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    shifted: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        self.ids = self.prefs.ids

    def add(self, start: int, prompts: list[Tokens], chosen: list[Tokens], rejected: list[Tokens]) -> None:
        """Take a batch of rows: ids of prompt, prompt + chosen, prompt + rejected."""
        kept: list[tuple[Tokens, Tokens, Tokens]] = []
        for row, (prompt, better, worse) in enumerate(zip(prompts, chosen, rejected, strict=True), start):
            fitted = self._fit(row, prompt, better, worse)
            if isinstance(fitted, str):
                self.dropped.append((self.ids[row], fitted))
            else:
                kept.append(fitted)
                self.index.append(row)
        columns = zip(*kept, strict=True) if kept else ((), (), ())
        prompt_part, chosen_part, rejected_part = (Ragged.of(list(column)) for column in columns)
        self.parts.append((prompt_part, chosen_part, rejected_part))

    def _fit(self, row: int, prompt: Tokens, better: Tokens, worse: Tokens) -> tuple[Tokens, Tokens, Tokens] | str:
        """Prompt and completions of a row, or the reason to drop it."""
        prompt, (chosen, rejected), shifted = split_sequences(prompt, [better, worse], self.encoder)
        if not chosen or not rejected:
            return "empty_completion"
        if chosen == rejected:
            return "identical_tokens"
        longest = max(len(chosen), len(rejected))
        limit = self.max_length
        if limit is not None and len(prompt) + longest > limit:
            if self.truncation == "error":
                self.too_long.append((self.ids[row], len(prompt) + longest))
            if self.truncation in ("drop", "error"):
                return "too_long"
            keep_end = self.truncation == "keep_prompt_end"
            kept, (better, worse) = cut_to_length(prompt, [chosen, rejected], limit, keep_end, self.encoder.bos)
            if better == worse:
                return "identical_after_truncation"
            self.encoder.found["prompts_cut"] += [row] * (len(kept) < len(prompt))
            self.encoder.found["completions_cut"] += [row] * (
                (len(chosen) > len(better)) + (len(rejected) > len(worse))
            )
            prompt, chosen, rejected = kept, better, worse
        if shifted:
            self.shifted.append(row)
        ends = {*self.encoder.ends, self.encoder.eos}
        self.encoder.found["goes_on"] += [row for side in (chosen, rejected) if not ends.isdisjoint(side[:-1])]
        return prompt, chosen, rejected

    def finish(self) -> TokenizedPreferences:
        """The collected rows."""
        if self.too_long:
            shown = ", ".join(f"{name} ({counted(length, 'token')})" for name, length in self.too_long[:5])
            raise DataError(
                f"{len(self.too_long)} of {counted(len(self.prefs), 'row')} have more than "
                f"max_length={self.max_length} tokens: {shown}. Remedy: raise max_length, or choose another "
                "truncation."
            )
        if not self.index:
            lengths = {"too_long", "identical_after_truncation"}
            remedy = (
                "raise max_length, or choose another truncation."
                if any(reason in lengths for _, reason in self.dropped)
                else "the tokenizer or chat template drops what distinguishes the completions; for conversations, "
                "data.prompt: sampling with data.reasoning: keep trains on the completions' full text."
            )
            raise DataError(
                f"No row is left of {len(self.prefs)} after tokenization: "
                f"{', '.join(f'{name}: {reason}' for name, reason in self.dropped[:5])}. "
                f"Remedy: {remedy}"
            )
        report = TruncationReport.of(self.encoder, self.ids, self.index, self.shifted, {
            "rows_in": len(self.prefs),
            "dropped": tuple(self.dropped),
            "max_length": self.max_length,
        })  # fmt: skip
        prompt, chosen, rejected = (Ragged.concatenate([part[side] for part in self.parts]) for side in range(3))
        ids = [self.ids[row] for row in self.index]
        return TokenizedPreferences(ids, prompt, chosen, rejected, np.array(self.index, dtype=np.int64), report)


def split_sequences(prompt: Tokens, wholes: Sequence[Tokens], encoder: Encoder) -> tuple[Tokens, list[Tokens], bool]:
    """Split sequences into their shared prompt and their completions.

    Args:
        prompt: ids of the prompt by itself.
        wholes: ids of the prompt with each completion.
        encoder: the one that wrote them.

    Returns:
        The prompt's ids, at least one; the ids of each completion; whether the prompt's own ids are not a prefix of
        all wholes, so that their common prefix is the prompt.
    """
    count = len(prompt)
    shifted = any(whole[:count] != prompt for whole in wholes)
    if shifted:
        count = _common_prefix(prompt, *wholes)
    return encoder.never_empty(prompt[:count]), [whole[count:] for whole in wholes], shifted


def cut_to_length(
    prompt: Tokens, completions: Sequence[Tokens], limit: int, keep_end: bool, bos: int | None
) -> tuple[Tokens, list[Tokens]]:
    """Fit a prompt and its completions into `limit` tokens: the prompt is cut first, then the completions' ends.

    Args:
        prompt: loses tokens until the longest completion has room, but keeps up to half of the limit.
        completions: of that prompt, which they share.
        limit: maximum tokens of the prompt with any completion.
        keep_end: whether the prompt is cut at its start, where a leading BOS token stays, or at its end.
        bos: the BOS token's id, if there is one.

    Example:
        >>> cut_to_length([0, 1, 2, 3, 4, 5], [[6, 7, 8], [9]], limit=6, keep_end=True, bos=0)
        ([0, 4, 5], [[6, 7, 8], [9]])
        >>> cut_to_length([0, 1, 2, 3], [[4, 5, 6, 7]], limit=4, keep_end=False, bos=0)
        ([0, 1], [[4, 5]])
    """
    longest = max(map(len, completions))
    if len(prompt) + longest > limit:
        prompt = _cut_prompt(prompt, max(limit - longest, min(len(prompt), limit // 2)), keep_end, bos)
    room = limit - len(prompt)
    return prompt, [completion[:room] for completion in completions]


def _cut_prompt(prompt: Tokens, keep: int | None, keep_end: bool, bos: int | None) -> Tokens:
    """At most `keep` tokens of a prompt; a leading BOS token stays, since models attend to it throughout."""
    if keep is None or len(prompt) <= keep:
        return prompt
    if not keep_end:
        return prompt[:keep]
    if prompt[0] == bos and keep > 1:
        return [prompt[0], *prompt[len(prompt) - keep + 1 :]]
    return prompt[len(prompt) - keep :]


def _common_prefix(*sequences: Tokens) -> int:
    count = 0
    for tokens in zip(*sequences, strict=False):
        if len(set(tokens)) > 1:
            break
        count += 1
    return count
