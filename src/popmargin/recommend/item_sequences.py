"""Sequences of items, one a user, and the catalogue that numbers the items.

Axis suffixes: U users, I items, T events of all users.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from popmargin.account import Step
from popmargin.data.load_report import RowProblem
from popmargin.data.ragged import Ragged
from popmargin.errors import DataError, a_kind, counted, first_few

ItemId = str | int


@dataclass(frozen=True)
class Catalogue:
    """All items: item number n (from 1) is `names[n - 1]`; 0 stands for no item.

    Attributes:
        names: ids as text, each once.

    Example:
        >>> catalogue = Catalogue.of(["10", "9", "9"])
        >>> catalogue.names, catalogue.numbers([9, "10"]).tolist()
        (('9', '10'), [1, 2])
    """

    names: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[ItemId]) -> "Catalogue":
        """Items in an order that does not depend on that of the rows: by number if all ids are whole numbers, else as
        text."""
        distinct = {str(name) for name in names}
        whole = all(name.isascii() and name.isdigit() and str(int(name)) == name for name in distinct)
        return cls(tuple(sorted(distinct, key=int if whole else str)))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names, 1)}

    def numbers(self, names: Sequence[ItemId]) -> Int[np.ndarray, " N"]:
        """Numbers of some items (N,), int32.

        Raises:
            DataError: some are not in the catalogue.
        """
        unknown = [str(name) for name in names if str(name) not in self._numbers]
        if unknown:
            raise DataError(
                f"{counted(len(unknown), 'item')} not in the catalogue of {len(self)}: {first_few(unknown)}. "
                "Remedy: give ids as in the data that the model was trained on."
            )
        return np.array([self._numbers[str(name)] for name in names], dtype=np.int32)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str | int) and str(name) in self._numbers

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class ReadingReport:
    """How sequences were read: rows in = kept + left out.

    Attributes:
        step: the account of rows.
        problems: what was left out and why.
        columns: our name -> the source's column.
    """

    step: Step
    problems: tuple[RowProblem, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return "\n".join(self.step.lines())


@dataclass(frozen=True)
class Sequences:
    """What every user did, oldest event first.

    Attributes:
        catalogue: the items.
        users: names (U,).
        items: item numbers of each user.
        splits: "train", "valid" or "test" of each user, as published (U,); None if the data have none.
        times: time of each event (T,), in the data's unit; None without times.
        feedback: rating or other graded feedback of each event (T,), nan where unknown; None without any.
        report: how they were read.
    """

    catalogue: Catalogue
    users: tuple[str, ...]
    items: Ragged
    splits: tuple[str, ...] | None = None
    times: Float[np.ndarray, " T"] | None = None
    feedback: Float[np.ndarray, " T"] | None = None
    report: ReadingReport | None = None

    @classmethod
    def of(cls, sequences: Sequence[Sequence[ItemId]], *, splits: Sequence[str] | None = None) -> "Sequences":
        """Sequences in memory.

        Example:
            >>> Sequences.of([["shirt", "shoe"], ["shoe"]]).items[0].tolist()
            [1, 2]
        """
        for number, sequence in enumerate(sequences):
            if isinstance(sequence, str):
                raise DataError(f"Sequence {number} is {a_kind(sequence)}. Remedy: give a list of item ids.")
        catalogue = Catalogue.of(name for sequence in sequences for name in sequence)
        items = Ragged.of([catalogue.numbers(sequence).tolist() for sequence in sequences])
        users = tuple(map(str, range(len(sequences))))
        return cls(catalogue, users, items, None if splits is None else tuple(splits))

    def __len__(self) -> int:
        return len(self.users)
