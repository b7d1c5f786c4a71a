"""Preferences in a task's form, with the data's numbers about them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from popmargin.data.schema import NUMBER_COLUMNS, Preferences
from popmargin.errors import DataError
from popmargin.tasks.base import Task
from popmargin.training.signals import Signal, column_of, lacking, own_signal, raw_values


@dataclass(frozen=True)
class PreparedData:
    """Preferences in a task's form.

    Attributes:
        preferences: as loaded, split and flipped.
        encoded: the rows that the task can use.
        task: the task.
        flipped: ids of preferences whose label was flipped; the data's numbers still speak of the label before.
    """

    preferences: Preferences
    encoded: Any
    task: Task
    flipped: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def ids(self) -> list[str]:
        """Ids of the encoded rows."""
        return self.encoded.ids

    @cached_property
    def reference(self) -> Any:
        """The task's reference scores of every row; None if there are none."""
        return self.task.reference(self.encoded)

    @property
    def clusters(self) -> list[str]:
        """Cluster of every encoded row: the data's, or its prompt."""
        keys = self.preferences.clusters
        return [keys[i] for i in self.encoded.index]

    @property
    def strength(self) -> np.ndarray:
        """Strength of every encoded row, nan where unknown."""
        return self.preferences.strength[self.encoded.index]

    @property
    def known_numbers(self) -> list[str]:
        """The numeric columns with a value in some encoded row."""
        table: Any = self.preferences.dataset.select_columns(list(NUMBER_COLUMNS)).with_format("arrow")[:]
        rows = table.take(pa.array(self.encoded.index))
        return [name for name in NUMBER_COLUMNS if rows[name].null_count < len(rows)]

    def order(self, signal: Signal | None = None, *, compared: str = "signed") -> np.ndarray:
        """How strong each encoded row is, for the order of sampled PoP edges; by default `strength`.

        Args:
            signal: where the numbers are; None for the data's own.
            compared: `signed`, by how much the response that is preferred now is better; `unsigned`, the absolute
                value; `before_flip`, as the data say it.

        Raises:
            DataError: some rows have no number.
        """
        values = self.strength if signal is None else signal.scale * self._known("order", signal)
        if compared == "unsigned":
            return np.abs(values)
        if compared == "before_flip" or not self.flipped:
            return values
        return np.where([name in self.flipped for name in self.ids], 0.0 - values, values)

    def column(self, use: str, signal: Signal | None = None, *, beta: float = 1.0, scale: Any = None) -> np.ndarray:
        """A column of every encoded row, as read by the parts of a run (N,), float32; see `signals.column_of`.

        Args:
            use: `margin`, `soft_label`, `weight` or another name.
            signal: its signal; None for the data's own.
            beta: reward units per nat.
            scale: the run's strength scale of every encoded row (N,), for signals that name it.

        Raises:
            DataError: some rows have a missing or invalid number.
        """
        made = signal or own_signal(self.preferences, use)
        values = scale if made.column == "scale" else self._known(use, made, given=signal is not None)
        return column_of(use, made, values, self.ids, beta)

    def _known(self, use: str, signal: Signal, *, given: bool = True) -> np.ndarray:
        """A signal's column, in which every encoded row must have a number."""
        values = raw_values(self.preferences, signal.column)[self.encoded.index]
        if not np.isfinite(values).all():
            ways = [signal.column]
            if use == "margin" and not given:
                ways = ["ratings", *(name for name in ("strength", "margin") if name in self.preferences.columns)]
            rows = self.preferences.select(self.encoded.index)
            raise DataError(lacking(use, {way: raw_values(rows, way) for way in ways}, self.ids, given=given))
        return values
