"""The strength scale: one latent strength for every preference, fitted from sparse comparisons, with standard errors.

Axis suffixes: N preferences, E edges.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from popmargin.errors import ConfigError, DataError
from popmargin.files import PARQUET, whole_file
from popmargin.pop.edges import PopEdges
from popmargin.pop.likelihood import Model, Observations, Posterior, link
from popmargin.pop.newton import (
    Fit,
    InverseDiagonal,
    estimated_inverse_diagonal,
    exact_inverse_diagonal,
    local_inverse_diagonal,
    maximise,
    posterior_mean,
)
from popmargin.pop.observations import Ties, UseOfConfidence, observations_of

Estimate = Literal["mean", "mode"]
Errors = Literal["auto", "exact", "estimated", "local", "none"]
EXACT_UP_TO = 1000
_METADATA_KEY = b"popmargin.scale"


@dataclass(frozen=True, kw_only=True)
class StrengthScale:
    """Strengths of preferences on the scale of a comparison's log-odds (bradley_terry) or probits (thurstone).

    Strengths of preferences in different components were never compared, even indirectly: only the prior, which gives
    each component the mean 0, puts them on one scale.

    Attributes:
        ids: the preferences (N,).
        strength: the fitted strengths (N,); 0, the prior's mean, where nothing was compared.
        standard_error: their posterior standard deviations (N,); nan where they were not asked for.
        comparisons: comparisons that each preference stands in, ties included where they are used (N,).
        component: number of the connected component of each preference (N,); isolated ones have one of their own.
        model: bradley_terry or thurstone.
        log_likelihood: of the observations, at the fit.
        tie: ν of Davidson's model; None where ties are not modelled.
        reliability: by annotator, the probability of reporting the model's order rightly; empty if not fitted.
        reliability_interval: by annotator, the 95% interval of it.
        converged: whether the fit reached its tolerance.
        parameters: how it was fitted, and what was counted; JSON values.
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
            DataError: the scale does not hold one of them.
        """
        return self.strength[self._rows(ids)]

    def select(self, ids: Sequence[str]) -> "StrengthScale":
        """The scale of these preferences alone, in their order.

        Raises:
            DataError: the scale does not hold one of them.
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
                f"The scale has no strength for {len(missing)} of {len(ids)} preferences, such as {missing[0]!r}. "
                "Fit it with the same data: popmargin pop scale EDGES --data DATA."
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
        metadata = {_METADATA_KEY: json.dumps(facts, sort_keys=True).encode()}
        with whole_file(path, PARQUET) as partial:
            pq.write_table(pa.table(columns).replace_schema_metadata(metadata), partial, compression="zstd")

    @staticmethod
    def load(path: str | Path) -> "StrengthScale":
        """Read a scale that `save` wrote.

        Raises:
            DataError: the file is missing, is not Parquet, or holds no scale.
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
            return StrengthScale(ids=ids, reliability_interval=intervals, **columns, **facts)
        except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not a strength scale ({error}). Write it again with pop scale.") from error


_FACTS = ("model", "log_likelihood", "tie", "reliability", "reliability_interval", "converged", "parameters")


def fit_strengths(
    edges: PopEdges,
    ids: Sequence[str] | None = None,
    *,
    model: Model = "bradley_terry",
    ridge: float = 0.1,
    ties: Ties | None = None,
    reliability: bool = False,
    reliability_prior: tuple[float, float] = (4.0, 1.0),
    confidence: UseOfConfidence = "weight",
    estimate: Estimate = "mean",
    errors: Errors = "auto",
    probes: int = 32,
    seed: int = 0,
    start: StrengthScale | None = None,
) -> StrengthScale:
    """Fit a strength for every preference from PoP edges.

    The posterior is Σ w·log P(label | z_first − z_second) − ridge/2·Σ z². The ridge is a prior z ~ N(0, 1/ridge): it
    keeps strengths finite where a preference won or lost all of its comparisons, and makes disconnected graphs no
    problem. z ± 1.96·se is a 95% credible interval under this prior.

    Args:
        edges: the comparisons; rows without a weaker side hold none, and are counted in `parameters`.
        ids: the preferences, in the order wanted; those of the edges, in order of appearance, when None.
        model: "bradley_terry" (log-odds) or "thurstone" (case V: a probit of the difference).
        ridge: precision of the prior of every strength, and of log ν; 0 is maximum likelihood, which need not exist.
        ties: "davidson" (modelled; the default with bradley_terry where there are ties), "half" (half a win for each;
            the default with thurstone) or "drop".
        reliability: also fit how reliable every annotator is (Crowd-BT, Chen et al. 2013). Rows without an annotator
            count as one annotator named after their source. That everybody is wrong and the scale is turned round fits
            as well; the prior decides.
        reliability_prior: pseudo-counts of right and wrong labels of every annotator.
        confidence: what the column means: "weight" (1 = a whole label, 0 = none), "probability" that the label is right
            (½ = a coin), or "ignore". Empty cells are whole labels.
        estimate: "mean" (of the normal distribution nearest to the posterior, whose intervals cover) or "mode" (what
            other libraries call the regularised maximum likelihood; quicker, and its intervals are too short where few
            comparisons meet a wide prior).
        errors: standard errors from the exact inverse, "estimated" from random probes, "local" (from neighbours alone,
            too small), "none", or "auto": exact up to 1,000 parameters, else estimated.
        probes: random vectors of the estimate; its relative error, in `parameters`, falls with their root.
        seed: of the probes.
        start: a scale to start from, e.g. the last one when edges were added: it saves steps.

    Returns:
        The scale.

    Raises:
        ConfigError: a setting outside its range.
        DataError: no comparison at all, or an edge names an unknown preference.

    Example:
        >>> scale = fit_strengths(PopEdges.from_columns(["a", "b", "a"], ["b", "c", "c"]))
        >>> scale.ids, (scale.strength > 0).tolist()
        (['a', 'b', 'c'], [True, False, False])
    """
    _check(model, ties, reliability_prior, confidence, estimate, ridge, errors, probes)
    names = list(ids) if ids is not None else _ids_of(edges)
    seen, annotators, facts = observations_of(edges, names, ties or _default_ties(model), confidence)
    davidson = bool(seen.tie.any())
    posterior = Posterior(
        observations=seen,
        model=model,
        ridge=float(ridge),
        ties=davidson,
        annotators=len(annotators) if reliability else 0,
        reliability_prior=reliability_prior,
    )
    first = posterior.start()
    if start is not None:
        known = dict(zip(start.ids, start.strength, strict=True))
        first[: len(names)] = [known.get(name, 0.0) for name in names]
    elif reliability:  # an order to judge the annotators by
        plain = Posterior(observations=seen, model=model, ridge=max(float(ridge), 1e-3), ties=davidson)
        first[: len(names)] = maximise(plain, plain.start()).theta[: len(names)]
    mode = maximise(posterior, first, tolerance=1e-9 if estimate == "mode" else 1e-2)
    fit = (
        mode if estimate == "mode" else posterior_mean(posterior, mode, exact=posterior.size <= EXACT_UP_TO, seed=seed)
    )
    variance = _variance(posterior, fit, errors, probes, seed)
    facts |= {
        "ridge": float(ridge),
        "ties": (ties or _default_ties(model)) if facts["ties_seen"] else None,
        "confidence": confidence,
        "reliability_prior": list(reliability_prior) if reliability else None,
        "estimate": estimate,
        "newton_steps": mode.steps,
        "standard_errors": errors if errors != "auto" else ("exact" if variance.relative_error == 0 else "estimated"),
        "standard_error_error": variance.relative_error if np.isfinite(variance.relative_error) else None,
    }
    return _scale(names, seen, annotators if reliability else [], posterior, fit, variance.values, facts)


def fit_arrays(
    stronger: ArrayLike,
    weaker: ArrayLike,
    count: int,
    *,
    weight: ArrayLike = 1.0,
    model: Model = "bradley_terry",
    ridge: float = 0.1,
    estimate: Estimate = "mean",
    errors: Errors = "auto",
    start: Float64[np.ndarray, " N"] | None = None,
) -> tuple[Float64[np.ndarray, " N"], Float64[np.ndarray, " N"]]:
    """The same from arrays: strengths and standard errors, without ids, ties or annotators.

    Args:
        stronger: row number of the stronger preference of each comparison (E,).
        weaker: row number of the other one (E,).
        count: preferences, N.
        weight: of each comparison.
        model: see `fit_strengths`.
        ridge: see `fit_strengths`.
        estimate: see `fit_strengths`.
        errors: see `fit_strengths`.
        start: strengths to start from (N,).

    Returns:
        Strengths and standard errors, (N,) each.

    Example:
        >>> strength, error = fit_arrays([0, 1], [1, 2], 3)
        >>> strength.argsort().tolist()
        [2, 1, 0]
    """
    posterior = Posterior(
        observations=Observations.of(stronger, weaker, count, weight=weight), model=model, ridge=ridge
    )
    first = posterior.start() if start is None else np.array(start, dtype=np.float64)
    fit = maximise(posterior, first, tolerance=1e-9 if estimate == "mode" else 1e-2)
    if estimate == "mean":
        fit = posterior_mean(posterior, fit, exact=posterior.size <= EXACT_UP_TO)
    return fit.theta, np.sqrt(_variance(posterior, fit, errors, 32, 0).values)


def _check(
    model: str,
    ties: str | None,
    prior: tuple[float, float],
    confidence: str,
    estimate: str,
    ridge: float,
    errors: str,
    probes: int,
) -> None:
    choices = {
        "model": (model, ("bradley_terry", "thurstone")),
        "ties": (ties, ("davidson", "half", "drop", None)),
        "confidence": (confidence, ("weight", "probability", "ignore")),
        "estimate": (estimate, ("mean", "mode")),
        "errors": (errors, ("auto", "exact", "estimated", "local", "none")),
    }
    for name, (value, known) in choices.items():
        if value not in known:
            raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(str(choice) for choice in known)}.")
    if ties == "davidson" and model == "thurstone":
        raise ConfigError("Davidson's ties are only for bradley_terry; with thurstone, use ties='half' or 'drop'.")
    if not (min(prior) > 0 and max(prior) < np.inf):
        raise ConfigError(f"reliability_prior is {prior}; give two pseudo-counts above 0.")
    if estimate == "mean" and ridge == 0:
        raise ConfigError("Without a ridge there is no posterior mean: set ridge, or use estimate='mode'.")
    if probes < 2:
        raise ConfigError(f"probes is {probes}; the estimate needs at least 2.")


def _default_ties(model: Model) -> Ties:
    return "davidson" if model == "bradley_terry" else "half"


def _ids_of(edges: PopEdges) -> list[str]:
    both = zip(edges.table["stronger"].to_pylist(), edges.table["weaker"].to_pylist(), strict=True)
    return list(dict.fromkeys(name for row in both for name in row if name is not None))


def _variance(posterior: Posterior, fit: Fit, errors: Errors, probes: int, seed: int) -> InverseDiagonal:
    if errors == "none":
        return InverseDiagonal(np.full(posterior.size, np.nan), np.nan)
    # Away from an optimum, which a fit that has not converged may be, curvature may be negative.
    at = fit.at if fit.converged else fit.at.nonnegative()
    matrix = posterior.hessian(at)
    if posterior.ridge == 0 and (matrix.diagonal() <= 0).any():
        raise DataError(
            "Some preferences have no finite strength: without a ridge, all must be connected by comparisons. Set "
            "ridge above 0 (default 0.1)."
        )
    if errors == "local":
        return local_inverse_diagonal(matrix)
    if errors == "exact" or (errors == "auto" and posterior.size <= EXACT_UP_TO):
        try:
            return exact_inverse_diagonal(posterior, at)
        except np.linalg.LinAlgError as error:
            raise DataError(
                "Without a ridge only differences of strengths are determined. Set ridge above 0 (default 0.1), or "
                "errors to 'none'."
            ) from error
    return estimated_inverse_diagonal(matrix, probes=probes, seed=seed)


def _scale(
    names: list[str],
    seen: Observations,
    annotators: list[str],
    posterior: Posterior,
    fit: Fit,
    variance: Any,
    facts: Any,
) -> StrengthScale:
    count = seen.count
    graph = coo_matrix((np.ones(len(seen.first)), (seen.first, seen.second)), shape=(count, count))
    groups, component = connected_components(graph.tocsr(), directed=False)
    degree = np.bincount(facts.pop("compared").ravel(), minlength=count)
    from_h = count + posterior.ties
    h, spread = fit.theta[from_h:], 1.96 * np.sqrt(variance[from_h:])
    facts |= {"components": int(groups), "without_comparison": int((degree == 0).sum())}
    return StrengthScale(
        ids=names,
        # Rounding in the fit must not order what the labels leave equal: training takes ranks.
        strength=fit.theta[:count].round(9) + 0.0,
        standard_error=np.sqrt(variance[:count]),
        comparisons=degree.astype(np.int64),
        component=component.astype(np.int64),
        model=posterior.model,
        log_likelihood=fit.at.log_likelihood,
        tie=float(np.exp(fit.theta[count])) if posterior.ties else None,
        reliability=dict(zip(annotators, expit(h).tolist(), strict=True)) if annotators else {},
        reliability_interval={
            name: (float(expit(low)), float(expit(high)))
            for name, low, high in zip(annotators, h - spread, h + spread, strict=False)
        },
        converged=fit.converged,
        parameters=facts,
    )
