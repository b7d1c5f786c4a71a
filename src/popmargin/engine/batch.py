"""Batches of tokenized preferences: the sequences that a model forwards, and cached log-probs of their tokens.

Axis suffix N: preferences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from popmargin.data.tokenize import TokenizedPreferences
from popmargin.engine.sequences import Layout, Sequences, make_sequences

if TYPE_CHECKING:
    from popmargin.engine.reference import ReferenceLogps


def preference_sequences(
    tokenized: TokenizedPreferences, preferences: Sequence[int], pad_id: int, layout: Layout, *, whole: bool = False
) -> Sequences:
    """The responses of some preferences: all chosen ones, then all rejected ones; see `make_sequences`."""
    prompts = [tokenized.prompt[i] for i in preferences]
    chosen, rejected = [tokenized.chosen[i] for i in preferences], [tokenized.rejected[i] for i in preferences]
    return make_sequences(prompts * 2, chosen + rejected, pad_id, layout, whole=whole)


@dataclass(frozen=True)
class TokenInputs:
    """Tokenized preferences as a language model takes them.

    Attributes:
        tokenized: the preferences.
        pad_id: a padding token.
        layout: packed rows, or padded ones for models that cannot take packed rows.
        whole: keep the last token of every response, which a reward model reads.
        cached: log-probs of the tokens by name, such as those of the reference; see `reference.py`.
    """

    tokenized: TokenizedPreferences
    pad_id: int
    layout: Layout = "padded"
    whole: bool = False
    cached: "Mapping[str, ReferenceLogps]" = field(default_factory=dict[str, "ReferenceLogps"])

    @property
    def ids(self) -> list[str]:
        """Ids of the preferences (N,)."""
        return self.tokenized.ids

    def __len__(self) -> int:
        return len(self.tokenized)

    def costs(self) -> np.ndarray:
        """Tokens of each preference in one forward pass (N,): packed rows hold its prompt once."""
        return self._tokens(1 if self.layout == "packed" else 2)

    def work(self) -> np.ndarray:
        """Tokens of both responses of each preference, the prompt counted with each of them (N,)."""
        return self._tokens(2)

    def _tokens(self, prompts: int) -> np.ndarray:
        tokens = self.tokenized
        return prompts * tokens.prompt.lengths + tokens.chosen.lengths + tokens.rejected.lengths

    def collate(self, preferences: np.ndarray) -> dict[str, Any]:
        """The `sequences` of some preferences, and the cached values of their tokens by name."""
        sequences = preference_sequences(
            self.tokenized, preferences.tolist(), self.pad_id, self.layout, whole=self.whole
        )
        return {"sequences": sequences} | {name: logps.tokens(preferences) for name, logps in self.cached.items()}
