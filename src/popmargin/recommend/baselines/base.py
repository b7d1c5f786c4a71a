"""Baselines: recommenders that one function fits."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np

from popmargin.data.ragged import Ragged
from popmargin.recommend.ranks import Recommender
from popmargin.recommend.splitting import Cases, Parts
from popmargin.registry import Registry, decorator, make_options


@dataclass(frozen=True)
class Observed:
    """What a baseline may see.

    Attributes:
        train: training sequences.
        known: everything but the test targets, each user once (`Parts.known`).
        items: size of the catalogue.
        valid: validation cases, to choose by.
    """

    train: Ragged
    known: Ragged
    items: int
    valid: Cases = field(default_factory=lambda: Cases((), Ragged.of([]), np.zeros(0, dtype=np.int64)))

    @classmethod
    def of(cls, parts: Parts) -> "Observed":
        """Of a split."""
        return cls(parts.train, parts.known, len(parts.catalogue), parts.valid)


@dataclass(frozen=True)
class Baseline:
    """A registered baseline; `@baseline` takes the same arguments.

    Attributes:
        name: in configurations and tables.
        function: `(observed, options) -> recommender`.
        options: its frozen options dataclass.
        exclude_history: whether its recipe leaves out the items of a history.
    """

    name: str
    function: Callable[[Observed, Any], Recommender]
    _: KW_ONLY
    options: type[Any]
    exclude_history: bool = False

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def fit(self, parts: Parts, values: Mapping[str, Any] | None = None) -> Recommender:
        """The recommender of a split.

        Args:
            parts: the split.
            values: options by name.

        Raises:
            ConfigError: an unknown or invalid option.
        """
        return self.function(Observed.of(parts), make_options(self.options, values or {}, f"baseline '{self.name}'"))


BASELINES: Registry[Baseline] = Registry("baseline", "popmargin.recommend.baselines")
baseline = decorator(BASELINES, Baseline)
"""Registers a function: `@baseline("name", options=…)` and the fields of `Baseline`."""
