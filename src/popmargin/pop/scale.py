"""The strength scale: one latent strength for every preference on the scale of a comparison, with standard errors.

Axis suffixes: N preferences.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike

from popmargin.errors import DataError, counted
from popmargin.files import PARQUET, whole_file
from popmargin.pop.likelihood import Model, link

_METADATA_KEY, _DIGEST_KEY = b"popmargin.scale", b"popmargin.sha256"


@dataclass(frozen=True, kw_only=True)
class StrengthScale:
    """Strengths of preferences on the scale of a comparison's log-odds (bradley_terry) or probits (thurstone).

    Strengths of preferences in different components were never compared, even indirectly: only the prior, which gives
    each component the mean 0, puts them on one scale.

    Attributes:
        ids: the preferences (N,).
        strength: the fitted strengths (N,); 0, the prior's mean, for preferences without a comparison.
        standard_error: their posterior standard deviations (N,); nan if not requested.
        comparisons: comparisons that each preference is in, including ties if they are used (N,).
        component: number of the connected component of each preference (N,); isolated ones have one of their own.
        model: bradley_terry or thurstone.
        log_likelihood: of the observations, at the fit.
        tie: ν of Davidson's model; None if ties are not modelled.
        reliability: by annotator, the probability of reporting the model's order correctly; empty if not fitted.
        reliability_interval: by annotator, its 95% interval.
        converged: whether the fit reached its tolerance.
        parameters: how it was fitted, and counts; JSON values.
    """

    ids: list[str]
    strength: Float64[np.ndarray, " N"]
    standard_error: Float64[np.ndarray, " N"]
    comparisons: Int64[np.ndarray, " N"]
    component: Int64[np.ndarray, " N"]
    model: Model = "bradley_terry"
    log_likelihood: float = 0.0
    tie: float | None = None
    reliability: dict[str, float] = field(default_factory=dict[str, float])
    reliability_interval: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    converged: bool = True
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def unknown(self) -> int:
        """Preferences without any comparison."""
        return int((self.comparisons == 0).sum())

    def probability(self, first: ArrayLike, second: ArrayLike) -> Float64[np.ndarray, " n"]:
        """Probability that a reliable annotator calls the first preference the stronger one; ties counted as halves.

        Args:
            first: row numbers (n,).
            second: row numbers (n,).
        """
        d = np.atleast_1d(self.strength[np.asarray(first)] - self.strength[np.asarray(second)])
        at = link(self.model, d, -np.inf if self.tie is None else float(np.log(self.tie)))
        return np.exp(at.log_first) + at.tie / 2

    def strengths_of(self, ids: Sequence[str]) -> Float64[np.ndarray, " n"]:
        """The strengths of these preferences, in their order.

        Raises:
            DataError: one of them is not in the scale.
        """
        return self.strength[self._rows(ids)]

    def select(self, ids: Sequence[str]) -> "StrengthScale":
        """The scale of only these preferences, in their order.

        Raises:
            DataError: one of them is not in the scale.
        """
        rows = self._rows(ids)
        return replace(
            self,
            ids=list(ids),
            strength=self.strength[rows],
            standard_error=self.standard_error[rows],
            comparisons=self.comparisons[rows],
            component=self.component[rows],
        )

    def _rows(self, ids: Sequence[str]) -> Any:
        place = {name: row for row, name in enumerate(self.ids)}
        missing = [name for name in ids if name not in place]
        if missing:
            raise DataError(
                f"The scale has no strength for {len(missing)} of {counted(len(ids), 'preference')}, such as "
                f"{missing[0]!r}. Fit it with the same data: popmargin pop scale EDGES --data DATA."
            )
        return np.array([place[name] for name in ids], dtype=np.int64)

    def save(self, path: str | Path) -> None:
        """Write Parquet: columns id, strength, standard_error, comparisons, component; the rest as metadata.

        Raises:
            ConfigError: the name does not end in .parquet.
            RunError: the path is a folder, or cannot be written.
        """
        columns: dict[str, Any] = {
            "id": pa.array(self.ids, pa.string()),
            "strength": self.strength,
            "standard_error": self.standard_error,
            "comparisons": self.comparisons,
            "component": self.component,
        }
        facts = {name: getattr(self, name) for name in _FACTS}
        stored = json.dumps(facts, sort_keys=True).encode()
        metadata = {_METADATA_KEY: stored, _DIGEST_KEY: self._digest(stored)}
        with whole_file(path, PARQUET) as partial:
            pq.write_table(pa.table(columns).replace_schema_metadata(metadata), partial, compression="zstd")

    @staticmethod
    def load(path: str | Path) -> "StrengthScale":
        """Read a scale that `save` wrote.

        Raises:
            DataError: the file is missing, is not Parquet, or contains no scale.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(
                f"{path}: no such file. Fit a scale with: popmargin pop scale EDGES --data DATA --out {path}"
            )
        try:
            table = pq.read_table(path)
            facts = json.loads((table.schema.metadata or {})[_METADATA_KEY])
            intervals = {name: (low, high) for name, (low, high) in facts.pop("reliability_interval").items()}
            columns: dict[str, Any] = {name: table[name].to_numpy() for name in table.column_names if name != "id"}
            ids = table["id"].to_pylist()
            scale = StrengthScale(ids=ids, reliability_interval=intervals, **columns, **facts)
            written = table.schema.metadata.get(_DIGEST_KEY, b"")
            if written not in (b"", scale._digest(table.schema.metadata[_METADATA_KEY])):
                raise ValueError("it is not what was written")
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, MemoryError) as error:
            raise DataError(f"{path}: not a strength scale ({error}). Write it again with pop scale.") from error
        return scale

    def _digest(self, facts: bytes) -> bytes:
        """What a file is compared with when it is read; older versions wrote none."""
        columns = (self.strength, self.standard_error, self.comparisons, self.component)
        parts = [facts, json.dumps(self.ids).encode(), *(np.asarray(column).tobytes() for column in columns)]
        return hashlib.sha256(b"\x1f".join(parts)).hexdigest().encode()


_FACTS = ("model", "log_likelihood", "tie", "reliability", "reliability_interval", "converged", "parameters")
