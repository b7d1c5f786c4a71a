"""Preferences as a task takes them, with the numbers that the data hold about them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from popmargin.data.schema import NUMBER_COLUMNS, Preferences
from popmargin.errors import DataError
from popmargin.tasks.base import Task


@dataclass(frozen=True)
class PreparedData:
    """Preferences as a task takes them.

    Attributes:
        preferences: as loaded, split and flipped.
        encoded: the rows that the task can use.
        task: the task.
    """

    preferences: Preferences
    encoded: Any
    task: Task

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def ids(self) -> list[str]:
        """Ids of the encoded rows."""
        return self.encoded.ids

    @cached_property
    def reference(self) -> Any:
        """What the task's reference gives for every row; None where there is none."""
        return self.task.reference(self.encoded)

    @property
    def clusters(self) -> list[str]:
        """Cluster of every encoded row: what the data name, else its prompt."""
        keys = self.preferences.clusters
        return [keys[i] for i in self.encoded.index]

    @property
    def strength(self) -> np.ndarray:
        """Strength of every encoded row, nan where unknown."""
        return self.preferences.strength[self.encoded.index]

    @property
    def known_numbers(self) -> list[str]:
        """The columns of numbers that hold a value in some encoded row."""
        table: Any = self.preferences.dataset.select_columns(list(NUMBER_COLUMNS)).with_format("arrow")[:]
        rows = table.take(pa.array(self.encoded.index))
        return [name for name in NUMBER_COLUMNS if rows[name].null_count < len(rows)]

    def column(self, name: str) -> np.ndarray:
        """Margins (`margin`) or soft labels (`soft_label`) of every encoded row, as float32.

        Margins are the gaps of the ratings, in rating points; where they are not complete and strengths are, the
        strengths in their own unit.

        Raises:
            DataError: some rows have none.
        """
        values = self.preferences.margin if name == "margin" else self.preferences.soft_label
        values = values[self.encoded.index]
        missing = np.flatnonzero(~np.isfinite(values))
        if len(missing):
            needed, remedy = {
                "margin": ("chosen_rating and rejected_rating", "Add these columns, or a strength, to the data"),
                "soft_label": ("soft_label", "Add it, set data.soft_label_temperature to derive it from ratings"),
            }[name]
            raise DataError(
                f"The objective or its margin needs {needed}, which {len(missing)} of {len(values)} preferences lack "
                f"(first: '{self.ids[missing[0]]}'). {remedy}, or choose ones that do not need it."
            )
        return values.astype(np.float32)
