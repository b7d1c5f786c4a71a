"""The effects of tokenization on preferences, as numbers and in sentences."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from popmargin.data.token_shards import Observed
from popmargin.errors import counted

_STORED, _SHOWN = 5, 3
_PREAMBLE_WORDS = 3  # fewer are names of tokens and roles


@dataclass(frozen=True)
class TruncationReport:
    """Effects of tokenization; always rows_in == rows_kept + len(dropped).

    Attributes:
        prompts_cut: kept rows whose prompt lost tokens.
        completions_cut: completions of kept rows (two per row) that lost tokens at their end.
        dropped: (id, reason) of each dropped row: "too_long", "identical_tokens", "identical_after_truncation",
            "empty_completion".
        boundary_shifted: kept rows whose prompt tokens are not a prefix of the whole sequences (a token merges across
            the boundary, or the template writes the prompt differently), so the true common prefix was used.
        template_shifted: those in which the template writes the prompt differently.
        unterminated: completions of conversations that the template does not close with a special token: the model
            never learns to stop after them.
        altered: completions from which the template drops something, such as reasoning.
        emptied: those of which it drops everything.
        kept: completions from which it would drop something, and that are trained on in full.
        unclosed: completions that do not close the block that the sampling prompt opens.
        goes_on: completions with an end token before their end, where sampling stops.
        examples: ids of some rows for each of these.
        max_length: the limit, tokens.
        conversational: whether a chat template wrote the rows.
        ends: ids of the tokens with which completions end.
        only_sampled: what the template writes only at the end of the sampling prompt.
        preamble: the template's own text before conversations without a system message.
    """

    rows_in: int
    rows_kept: int
    prompts_cut: int = 0
    completions_cut: int = 0
    dropped: tuple[tuple[str, str], ...] = ()
    boundary_shifted: int = 0
    template_shifted: int = 0
    unterminated: int = 0
    altered: int = 0
    emptied: int = 0
    kept: int = 0
    unclosed: int = 0
    goes_on: int = 0
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    max_length: int | None = None
    conversational: bool = False
    ends: tuple[int, ...] = ()
    only_sampled: str = ""
    preamble: str = ""

    @staticmethod
    def of(
        seen: Observed, ids: Sequence[str], kept: Sequence[int] | np.ndarray, counts: Mapping[str, Any]
    ) -> "TruncationReport":
        """The report of what was seen.

        Args:
            seen: by row.
            ids: of all rows.
            kept: numbers of the remaining rows.
            counts: the fields that are known already.
        """
        places = set(map(int, kept))
        rows = {kind: [row for row in found if row in places] for kind, found in seen.found.items()}
        by_template = sorted(set(rows.pop("shifted", [])))
        merged = sorted(set(seen.shifted) - set(by_template))
        numbers: dict[str, Any] = {kind: len(found) for kind, found in rows.items()}
        examples = {"template_shifted": by_template, "boundary_shifted": merged, **rows}
        return TruncationReport(
            **counts,
            **numbers,
            rows_kept=len(kept),
            boundary_shifted=len(seen.shifted),
            template_shifted=len(by_template),
            examples={kind: _first(ids, found) for kind, found in examples.items() if found},
            dropped=tuple((ids[row], reason) for row, reason in seen.dropped),
            ends=tuple(seen.ends),
            only_sampled=seen.only_sampled,
            preamble=seen.preamble or "",
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        values = asdict(self)
        values["dropped"] = [list(entry) for entry in self.dropped]
        values["examples"] = {kind: list(found) for kind, found in self.examples.items()}
        values["ends"] = list(self.ends)
        return values

    def notes(self) -> list[str]:
        """What a user should know before training, in sentences; empty if rows were only tokenized."""
        return [*self._left_out(), *self._cut(), *self._prompts(), *self._completions()]

    def _left_out(self) -> list[str]:
        alike = "the chat template writes" if self.conversational else "the tokenizer makes"
        reasons = {
            "too_long": f"they have more than {self.max_length} tokens (data.max_length)",
            "identical_tokens": f"{alike} chosen and rejected identically",
            "identical_after_truncation": f"chosen and rejected are identical in their first {self.max_length} tokens",
            "empty_completion": "no token is left of chosen or rejected",
        }
        counts = Counter(reason for _, reason in self.dropped)
        return [
            f"{counted(count, 'row')} left out after tokenization{_names(n for n, r in self.dropped if r == reason)}: "
            f"{reasons[reason]}."
            for reason, count in counts.items()
        ]

    def _cut(self) -> list[str]:
        notes: list[str] = []
        if self.prompts_cut:
            notes.append(
                f"{counted(self.prompts_cut, 'row')}{self._kind('prompts_cut')} lost prompt tokens (data.max_length "
                f"{self.max_length})."
            )
        if self.completions_cut:
            notes.append(
                f"{self._share('completions_cut')} lost their end (data.max_length {self.max_length}): the model does "
                "not learn where to stop."
            )
        return notes

    def _prompts(self) -> list[str]:
        notes: list[str] = []
        if self.template_shifted:
            ending = f" ends it with {self.only_sampled!r}" if self.only_sampled else " writes it differently"
            notes.append(
                f"{counted(self.template_shifted, 'row')} of {self.rows_kept}{self._kind('template_shifted')}: the "
                f"training prompt differs from the one sampling starts from, where the chat template{ending}. "
                "data.prompt: sampling trains on the sampling prompt."
            )
        merged = self.boundary_shifted - self.template_shifted
        if merged:
            notes.append(
                f"{counted(merged, 'row')} of {self.rows_kept}{self._kind('boundary_shifted')}: tokens merge across "
                "the end of the prompt, so the completion starts inside it. data.prompt: sampling keeps the prompt's "
                "tokens."
            )
        if len(self.preamble.split()) >= _PREAMBLE_WORDS:
            text = self.preamble if len(self.preamble) <= 80 else f"{self.preamble[:79]}…"
            notes.append(
                f"The chat template adds its own text before conversations without a system message: {text!r}."
            )
        return notes

    def _completions(self) -> list[str]:
        notes: list[str] = []
        if self.unterminated:
            notes.append(
                f"{self._share('unterminated')}: the chat template does not close them with an end token, so "
                "the model does not learn where to stop, and samples run to evaluation.max_new_tokens. Use a chat "
                "template that closes assistant turns with EOS."
            )
        if self.altered:
            notes.append(
                f"{self._share('altered')}: the chat template drops part of the text, such as reasoning. "
                "data.prompt: sampling with data.reasoning: keep trains on the full text."
            )
        if self.emptied:
            notes.append(
                f"{self._share('emptied')}: the chat template drops all of the text, so training teaches to stop at "
                "once."
            )
        if self.kept:
            notes.append(
                f"{self._share('kept')}: trained on in full, since the chat template would drop part of the text "
                "(data.reasoning: keep)."
            )
        if self.unclosed:
            notes.append(
                f"{self._share('unclosed')}: the sampling prompt opens a block ({self._block()}) that they do not "
                "close. Add the block's text and end, or use a chat template that does not open one."
            )
        if self.goes_on:
            notes.append(
                f"{self._share('goes_on')}: they continue after an end token (of an earlier turn, or in the text). "
                "Training teaches what follows it, but sampling stops there."
            )
        return notes

    def _block(self) -> str:
        return self.only_sampled.strip() or "such as <think>"

    def _share(self, kind: str) -> str:
        return f"{getattr(self, kind)} of {counted(2 * self.rows_kept, 'completion')}{self._kind(kind, 'in ')}"

    def _kind(self, kind: str, before: str = "") -> str:
        return _names(self.examples.get(kind, ()), before)


def _names(ids: Iterable[str], before: str = "") -> str:
    shown = list(ids)
    more = ", …" if len(shown) > _SHOWN else ""
    return f" ({before}{', '.join(shown[:_SHOWN])}{more})" if shown else ""


def _first(ids: Sequence[str], rows: Iterable[int]) -> tuple[str, ...]:
    return tuple(ids[row] for row in sorted(set(rows))[:_STORED])
