"""Integer sequences of different lengths in one array."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from jaxtyping import Int32, Int64

from popmargin.data.row_numbers import place_of


@dataclass(frozen=True)
class Ragged:
    """Integer sequences of different lengths in one array.

    Attributes:
        values: the sequences, one after the other.
        offsets: sequence i is values[offsets[i] : offsets[i + 1]].

    Example:
        >>> Ragged.of([[1, 2], [], [3]])[0].tolist()
        [1, 2]
    """

    values: Int32[np.ndarray, " total"]
    offsets: Int64[np.ndarray, " n_plus_1"]

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> "Ragged":
        """From a list of sequences."""
        offsets = np.zeros(len(sequences) + 1, dtype=np.int64)
        np.cumsum([len(sequence) for sequence in sequences], out=offsets[1:])
        values = np.fromiter(itertools.chain.from_iterable(sequences), dtype=np.int32, count=int(offsets[-1]))
        return cls(values, offsets)

    @classmethod
    def concatenate(cls, parts: Sequence["Ragged"]) -> "Ragged":
        """The sequences of all parts, in order."""
        lengths = np.concatenate([part.lengths for part in parts] or [np.zeros(0, dtype=np.int64)])
        values = np.concatenate([part.values for part in parts] or [np.zeros(0, dtype=np.int32)])
        return cls(values, np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)]))

    def take(self, indices: Sequence[int] | np.ndarray) -> "Ragged":
        """The sequences with these numbers (≥ 0), in this order."""
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        lengths = self.lengths[wanted]
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        shift = np.repeat(self.offsets[wanted] - offsets[:-1], lengths)
        return Ragged(self.values[shift + np.arange(offsets[-1])], offsets)

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """Length of each sequence."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> Int32[np.ndarray, " length"]: ...
    @overload
    def __getitem__(self, index: slice) -> "Ragged": ...
    def __getitem__(self, index: int | slice) -> "np.ndarray | Ragged":
        """One sequence, or those of a slice."""
        place = place_of(index, len(self), "Sequence")
        return (
            self.values[self.offsets[place] : self.offsets[place + 1]] if isinstance(place, int) else self.take(place)
        )
