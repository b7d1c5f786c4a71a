"""Fitting the strength scale: from sparse comparisons to strengths with standard errors.

Axis suffixes: N preferences, E edges.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from popmargin.errors import ConfigError, DataError
from popmargin.pop.edges import PopEdges
from popmargin.pop.likelihood import Model, Observations, Posterior
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
from popmargin.pop.scale import StrengthScale

Estimate = Literal["mean", "mode"]
Errors = Literal["auto", "exact", "estimated", "local", "none"]
EXACT_UP_TO = 1000


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
    keeps strengths finite where a preference won or lost all of its comparisons, and allows disconnected
    graphs. z ± 1.96·se is a 95% credible interval under this prior.

    Args:
        edges: the comparisons; rows without a weaker side contain none, and are counted in `parameters`.
        ids: the preferences, in the desired order; None for those of the edges, in order of appearance.
        model: "bradley_terry" (log-odds) or "thurstone" (case V: a probit of the difference).
        ridge: precision of the prior of every strength, and of log ν; 0 is maximum likelihood, which need not exist.
        ties: "davidson" (modelled; the default with bradley_terry if there are ties), "half" (half a win for each;
            the default with thurstone) or "drop".
        reliability: also fit how reliable every annotator is (Crowd-BT, Chen et al. 2013). Rows without an annotator
            count as one annotator named after their source. A reversed scale with every annotator wrong fits
            equally well; the prior decides.
        reliability_prior: pseudo-counts of right and wrong labels of every annotator.
        confidence: what the column means: "weight" (1 = a full label, 0 = none), "probability" that the label is right
            (½ = a coin flip), or "ignore". Empty cells count as full labels.
        estimate: "mean" (of the normal distribution closest to the posterior; its intervals have the right coverage) or
            "mode" (other libraries' regularised maximum likelihood; faster, but its intervals are too short with few
            comparisons and a wide prior).
        errors: standard errors from the exact inverse, "estimated" from random probes, "local" (from neighbours alone,
            too small), "none", or "auto": exact up to 1,000 parameters, else estimated.
        probes: random vectors of the estimate; its relative error, in `parameters`, falls with their root.
        seed: of the probes.
        start: a scale to start from, e.g. the previous one when edges were added, which saves steps.

    Returns:
        The scale.

    Raises:
        ConfigError: a setting outside its range.
        DataError: no comparisons at all, or an edge names an unknown preference.

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
    elif reliability:  # an order by which to judge annotators
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
    # Away from an optimum (if the fit has not converged), curvature may be negative.
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
        # Rounding must not order preferences that the labels leave equal: training uses ranks.
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
