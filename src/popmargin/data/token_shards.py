"""Tokens of consecutive rows, made apart from all others, so that processes can share them and a kill loses little."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from jaxtyping import Int64

from popmargin.data.cut_tokens import cut_to_length, split_sequences
from popmargin.data.encode import Tokens, Writing, make_encoder
from popmargin.data.ragged import Ragged

SHARD_ROWS = 5_000
_BATCH = 1_000


@dataclass
class Observed:
    """What tokenization did to rows, by their numbers.

    Attributes:
        dropped: rows that are left out, with the reason.
        too_long: rows that are refused for their length, with their tokens.
        shifted: kept rows whose own prompt tokens are not a prefix.
        found: kind of observation -> rows, once for each completion concerned.
        ends: ids of the last tokens of completions that have an end.
        only_sampled: what the template writes only at the end of the sampling prompt, in the first row with such text.
        preamble: what it writes before the first conversation without a system message; None if there is none.
    """

    dropped: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    too_long: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    shifted: list[int] = field(default_factory=list[int])
    found: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    ends: list[int] = field(default_factory=list[int])
    only_sampled: str = ""
    preamble: str | None = None

    def add(self, later: "Observed") -> None:
        """Take over what was seen in later rows."""
        self.dropped += later.dropped
        self.too_long += later.too_long
        self.shifted += later.shifted
        for kind, rows in later.found.items():
            self.found.setdefault(kind, []).extend(rows)
        self.ends = sorted({*self.ends, *later.ends})
        self.only_sampled = self.only_sampled or later.only_sampled
        self.preamble = later.preamble if self.preamble is None else self.preamble

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Observed":
        """The inverse of `to_dict`, also after its pairs have become lists."""
        known = {one.name: values[one.name] for one in fields(Observed)}
        pairs = {name: [(row, what) for row, what in known[name]] for name in ("dropped", "too_long")}
        return Observed(**{**known, **pairs})


@dataclass(frozen=True)
class Shard:
    """Tokens of consecutive rows.

    Attributes:
        rows: how many there were.
        prompt: of each kept row.
        chosen: of each kept row.
        rejected: of each kept row.
        index: number of each kept row among all rows.
        observed: what was done to them.
    """

    rows: int
    prompt: Ragged
    chosen: Ragged
    rejected: Ragged
    index: Int64[np.ndarray, " n"]
    observed: Observed

    @property
    def sides(self) -> tuple[Ragged, Ragged, Ragged]:
        """Prompt, chosen and rejected."""
        return self.prompt, self.chosen, self.rejected


def joined(shards: Sequence[Shard]) -> Shard:
    """Shards that follow each other, as one."""
    observed = Observed()
    for shard in shards:
        observed.add(shard.observed)
    prompt, chosen, rejected = (Ragged.concatenate([shard.sides[number] for shard in shards]) for number in range(3))
    index = np.concatenate([shard.index for shard in shards] or [np.zeros(0, dtype=np.int64)])
    return Shard(sum(shard.rows for shard in shards), prompt, chosen, rejected, index, observed)


@dataclass(frozen=True)
class Job:
    """Rows that become a shard.

    Attributes:
        start: number of the first among all rows.
        ids: of the rows.
        texts: "prompt", "chosen" and "rejected" -> one value a row.
    """

    start: int
    ids: list[str]
    texts: dict[str, list[Any]]


@dataclass(frozen=True)
class Tokenizing:
    """How rows become tokens; see `tokenize_preferences`."""

    tokenizer: Any
    conversational: bool
    max_length: int | None
    truncation: str
    writing: Writing

    def shard(self, job: Job) -> Shard:
        """The tokens of some rows.

        Raises:
            DataError: no chat template, no EOS token, or a conversation that the template refuses.
        """
        encoder = make_encoder(self.tokenizer, conversational=self.conversational, writing=self.writing)
        encoder.ids = dict(enumerate(job.ids, job.start))
        fitter = _Fitter(self, encoder)
        for at in range(0, len(job.ids), _BATCH):
            prompts, chosen, rejected = (job.texts[side][at : at + _BATCH] for side in ("prompt", "chosen", "rejected"))
            fitter.add(job.start + at, *encoder.preferences(prompts, chosen, rejected, job.start + at))
        return fitter.shard(len(job.ids))


@dataclass
class _Fitter:
    """Splits, truncates and collects rows, and notes what it does."""

    how: Tokenizing
    encoder: Any
    kept: list[tuple[Tokens, Tokens, Tokens]] = field(default_factory=list[tuple[Tokens, Tokens, Tokens]])
    index: list[int] = field(default_factory=list[int])
    seen: Observed = field(default_factory=Observed)

    def add(self, start: int, prompts: Sequence[Tokens], chosen: Sequence[Tokens], rejected: Sequence[Tokens]) -> None:
        """Take a batch of rows: ids of prompt, prompt + chosen, prompt + rejected."""
        for row, (prompt, better, worse) in enumerate(zip(prompts, chosen, rejected, strict=True), start):
            fitted = self._fit(row, prompt, better, worse)
            if isinstance(fitted, str):
                self.seen.dropped.append((row, fitted))
            else:
                self.kept.append(fitted)
                self.index.append(row)

    def _fit(self, row: int, prompt: Tokens, better: Tokens, worse: Tokens) -> tuple[Tokens, Tokens, Tokens] | str:
        """Prompt and completions of a row, or the reason to drop it."""
        prompt, (chosen, rejected), shifted = split_sequences(prompt, [better, worse], self.encoder)
        if not chosen or not rejected:
            return "empty_completion"
        if chosen == rejected:
            return "identical_tokens"
        longest = max(len(chosen), len(rejected))
        limit, truncation, found = self.how.max_length, self.how.truncation, self.encoder.found
        if limit is not None and len(prompt) + longest > limit:
            if truncation == "error":
                self.seen.too_long.append((row, len(prompt) + longest))
            if truncation in ("drop", "error"):
                return "too_long"
            keep_end = truncation == "keep_prompt_end"
            kept, (better, worse) = cut_to_length(prompt, [chosen, rejected], limit, keep_end, self.encoder.bos)
            if better == worse:
                return "identical_after_truncation"
            found["prompts_cut"] += [row] * (len(kept) < len(prompt))
            found["completions_cut"] += [row] * ((len(chosen) > len(better)) + (len(rejected) > len(worse)))
            prompt, chosen, rejected = kept, better, worse
        if shifted:
            self.seen.shifted.append(row)
        return prompt, chosen, rejected

    def shard(self, rows: int) -> Shard:
        """What was collected, of that many rows."""
        encoder, seen = self.encoder, self.seen
        seen.found = {kind: list(places) for kind, places in encoder.found.items()}
        seen.ends, seen.only_sampled = sorted(encoder.ends), encoder.only_sampled
        seen.preamble = encoder.preamble
        columns = zip(*self.kept, strict=True) if self.kept else ((), (), ())
        prompt, chosen, rejected = (Ragged.of(list(column)) for column in columns)
        return Shard(rows, prompt, chosen, rejected, np.array(self.index, dtype=np.int64), seen)
