"""Newton's method with conjugate gradients for large sparse problems, and the diagonal of an inverse matrix.

Axis suffixes: P parameters, K random vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import diags_array

from popmargin.pop.likelihood import Derivatives, Posterior

_DRAWS, _SPREADS = 16, 2
_SLOW_ROUNDS, _DAMPING = 12, 0.7
"""With annotators, the spread changes the optimum and may overshoot."""
_Vector = Float64[np.ndarray, " P"]


@dataclass(frozen=True)
class Fit:
    """A maximum of a posterior.

    Attributes:
        theta: the parameters (P,).
        at: value and derivatives there.
        steps: Newton steps.
        converged: whether the last Newton step was below the tolerance.
    """

    theta: _Vector
    at: Derivatives
    steps: int
    converged: bool


def maximise(
    posterior: Posterior,
    start: _Vector,
    *,
    spread: Float64[np.ndarray, " E"] | None = None,
    tolerance: float = 1e-9,
    max_steps: int = 100,
) -> Fit:
    """The maximum of a posterior, by a trust region around conjugate gradients (Steihaug 1983).

    A step that meets negative curvature, which only reliabilities can bring, goes to the region's edge. The diagonal of
    the Hessian is the preconditioner, and the region's norm.

    Args:
        posterior: what is maximised.
        start: first parameters (P,).
        spread: as in `Posterior.derivatives`: the mean over a normal distribution is maximised.
        tolerance: the fit has converged once no parameter's Newton step (diagonal approximation) exceeds this.
        max_steps: maximum number of Newton steps.

    Returns:
        The fit; check `converged`.
    """
    theta, at = start, posterior.derivatives(start, spread)
    radius = np.inf
    first = np.linalg.norm(at.gradient)
    for step in range(max_steps):
        hessian = posterior.hessian(at)
        diagonal = np.maximum(hessian.diagonal(), 1e-3)
        if np.abs(at.gradient / diagonal).max(initial=0.0) <= tolerance:
            return Fit(theta, at, step, True)
        norm = np.linalg.norm(at.gradient)
        precision = norm * min(0.1, float(norm / first))
        move, at_edge = _steihaug(lambda v, h=hessian: h @ v, at.gradient, diagonal, radius, float(precision))
        length = float(np.sqrt(move @ (diagonal * move)))
        promised = -float(at.gradient @ move + 0.5 * move @ (hessian @ move))
        tried = posterior.derivatives(theta + move, spread)
        gained = at.value - tried.value
        # Once changes of the value are below rounding, only the gradient shows whether a step is good.
        noise = 1e-12 * max(1.0, abs(at.value))
        blind = promised < noise
        good = bool(np.linalg.norm(tried.gradient) < norm) if blind else gained > 1e-4 * promised
        if good:
            theta, at = theta + move, tried
        if not good or (not blind and gained < 0.25 * promised):
            radius = 0.25 * length
        elif at_edge and gained > 0.75 * promised:
            radius *= 2
        if not good and blind:  # limited by rounding
            return Fit(theta, at, step + 1, bool(np.abs(at.gradient / diagonal).max() <= 1e3 * tolerance))
    return Fit(theta, at, max_steps, False)


def _steihaug(
    apply: Callable[[Any], Any], gradient: _Vector, diagonal: _Vector, radius: float, precision: float
) -> tuple[_Vector, bool]:
    """The step that lowers gᵀs + ½sᵀHs inside the region; and whether it ends at the region's edge."""
    step, image = np.zeros_like(gradient), np.zeros_like(gradient)
    residual = gradient.copy()
    steep = residual / diagonal
    direction, power = -steep, float(residual @ steep)
    for _ in range(10 * len(gradient)):
        turned = apply(direction)
        curvature = float(direction @ turned)
        length = power / curvature if curvature > 0 else np.inf
        following = step + length * direction if curvature > 0 else step
        if curvature <= 0 or following @ (diagonal * following) >= radius**2:
            a, b = direction @ (diagonal * direction), step @ (diagonal * direction)
            # Without a region yet, a direction of negative curvature is followed for one unit of the scaled norm.
            edge = radius if np.isfinite(radius) else max(1.0, 2 * float(np.sqrt(step @ (diagonal * step))))
            c = step @ (diagonal * step) - edge**2
            return step + (np.sqrt(max(b * b - a * c, 0.0)) - b) / a * direction, True
        step, image = following, image + length * turned
        residual = gradient + image
        if np.linalg.norm(residual) <= precision:
            break
        steep = residual / diagonal
        new = float(residual @ steep)
        direction, power = -steep + new / power * direction, new
    return step, False


@dataclass(frozen=True)
class InverseDiagonal:
    """The diagonal of the inverse of a matrix.

    Attributes:
        values: the diagonal (P,).
        relative_error: typical relative error of its square root; 0 where it is exact.
    """

    values: _Vector
    relative_error: float


def exact_inverse_diagonal(posterior: Posterior, at: Derivatives) -> InverseDiagonal:
    """From the dense inverse of the Hessian, see `dense_inverse`."""
    return InverseDiagonal(np.diag(dense_inverse(posterior, at)).copy(), 0.0)


def local_inverse_diagonal(matrix: Any) -> InverseDiagonal:
    """The first two terms of the Neumann series, D⁻¹ + diag(D⁻¹·A·D⁻¹·A·D⁻¹) with matrix = D − A; always too small.

    One pass over the matrix, for choosing rather than reporting: it knows how much data a parameter and its neighbours
    have, not what lies further away.
    """
    inverse, off_squared = _neumann(matrix)
    return InverseDiagonal(inverse + inverse**2 * (off_squared @ inverse), np.nan)


def _neumann(matrix: Any) -> tuple[Any, Any]:
    """1/diagonal, and the squared off-diagonal entries."""
    diagonal = matrix.diagonal()
    squared = matrix.multiply(matrix).tocsr()
    squared.setdiag(0.0)
    return 1.0 / diagonal, squared


def estimated_inverse_diagonal(matrix: Any, *, probes: int = 32, seed: int = 0) -> InverseDiagonal:
    """From solutions for random signs (Bekas, Kokiopoulou, Saad 2007), with the known Neumann terms removed.

    diag(M⁻¹) = E[v ∘ M⁻¹v] for signs v. Only M⁻¹ − D⁻¹ − D⁻¹AD⁻¹ − D⁻¹AD⁻¹AD⁻¹ is left to chance; the diagonal of the
    rest is known. Unbiased; the error falls with √probes.
    """
    rng = np.random.default_rng(seed)
    size = matrix.shape[0]
    inverse, off_squared = _neumann(matrix)
    known = inverse + inverse**2 * (off_squared @ inverse)
    total, squares = np.zeros(size), np.zeros(size)
    done = 0
    while done < probes:
        signs_PK = rng.choice([-1.0, 1.0], size=(size, min(8, probes - done)))
        column = inverse[:, None]
        first_PK = column * signs_PK
        second_PK = first_PK - column * (matrix @ first_PK)  # D⁻¹AD⁻¹v
        third_PK = second_PK - column * (matrix @ second_PK)  # (D⁻¹A)²D⁻¹v
        start_PK = first_PK + second_PK + third_PK
        rest_PK = _solve(matrix, signs_PK, inverse, start_PK) - start_PK
        left_PK = signs_PK * rest_PK
        total += left_PK.sum(axis=1)
        squares += (left_PK**2).sum(axis=1)
        done += signs_PK.shape[1]
    mean = total / probes
    spread = np.sqrt(np.maximum(squares / probes - mean**2, 0.0) / max(probes - 1, 1))
    values = np.maximum(known + mean, inverse)  # a lower bound: the inverse of the diagonal
    return InverseDiagonal(values, float(np.sqrt(np.mean((spread / (2 * values)) ** 2))))


def posterior_mean(posterior: Posterior, mode: Fit, *, exact: bool, seed: int = 0) -> Fit:
    """The mean and curvature of the normal distribution closest to the posterior (Opper & Archambeau 2009).

    At its optimum the gradient and the curvature are their own means under it. A preference that won nearly all of its
    comparisons has a skewed posterior; its mode is too close to 0, and the curvature there understates the spread.

    For given spreads the mean is an optimum, where no curvature is negative, even with annotators, whose likelihood is
    not concave. The spreads are those at the previous mean, and none is wider than the prior's.

    Args:
        posterior: the posterior, with a ridge above 0.
        mode: its maximum.
        exact: variances of differences from the dense inverse, else from draws.
        seed: of the draws.
    """
    fit, steps = mode, mode.steps
    spread = np.zeros(len(posterior.observations.first))
    # Without annotators, changes after a few rounds are far below a standard error.
    rounds = (2 if exact else 1) * _SPREADS if not posterior.annotators else _SLOW_ROUNDS // (1 if exact else 2)
    for _ in range(rounds):
        variance = np.minimum(_variance_of_differences(posterior, fit.at, exact, seed), 2 / posterior.ridge)
        keep = 1 - _DAMPING if posterior.annotators else 0.0
        before, spread = spread, np.sqrt((1 - keep) * variance + keep * spread**2)
        if np.abs(spread - before).max(initial=0.0) < 1e-2:
            break
        tolerance = 1e-7 / float(np.sqrt(posterior.hessian(fit.at).diagonal().max()))
        fit = maximise(posterior, fit.theta, spread=spread, tolerance=tolerance)
        steps += fit.steps
    return Fit(fit.theta, fit.at, steps, fit.converged)


def _variance_of_differences(
    posterior: Posterior, at: Derivatives, exact: bool, seed: int
) -> Float64[np.ndarray, " E"]:
    """Variance of the difference of the two strengths of every observation."""
    first, second = posterior.observations.first, posterior.observations.second
    if exact:
        inverse = dense_inverse(posterior, at)
        own = np.diag(inverse)
        return np.maximum(own[first] + own[second] - 2 * inverse[first, second], 0.0)
    squares = np.zeros(len(first))
    for draw_N in strength_draws(posterior, at, _DRAWS, np.random.default_rng(seed)).T:
        squares += (draw_N[first] - draw_N[second]) ** 2
    return squares / _DRAWS


def dense_inverse(posterior: Posterior, at: Derivatives) -> Float64[np.ndarray, "P P"]:
    """The inverse of the Hessian: P² numbers, P³ operations.

    Away from an optimum (if the fit has not converged), its negative parts are dropped.

    Raises:
        numpy.linalg.LinAlgError: the parameters are not determined, which happens only with a ridge of 0.
    """
    try:
        return _inverse(posterior.hessian(at))
    except np.linalg.LinAlgError:
        return _inverse(posterior.hessian(at.nonnegative()))


def _inverse(matrix: Any) -> Any:
    dense = matrix.toarray()
    return cho_solve(cho_factor(dense, lower=True), np.eye(len(dense)))


def strength_draws(posterior: Posterior, at: Derivatives, draws: int, rng: Any) -> Float64[np.ndarray, "N K"]:
    """Deviations of the strengths from their fit, drawn from the Laplace posterior with everything else held fixed.

    M⁻¹·(Aᵀ·√C·ξ + √ridge·ξ') has the covariance M⁻¹ for M = AᵀCA + ridge: one linear solve each.
    """
    count = posterior.observations.count
    design, weight = posterior.designs["d"][:, :count], np.maximum(at.curvature["d", "d"], 0.0)[:, None]
    ridge = at.prior[:count, None]
    matrix = (design.T @ design.multiply(weight).tocsr()).tocsr() + diags_array(ridge[:, 0]).tocsr()
    noise = design.T @ (np.sqrt(weight) * rng.standard_normal((len(weight), draws)))
    noise = noise + np.sqrt(ridge) * rng.standard_normal((count, draws))
    inverse = 1.0 / matrix.diagonal()
    return _solve(matrix, noise, inverse, inverse[:, None] * noise, tolerance=1e-2)


def _solve(matrix: Any, right_PK: Any, inverse: Any, start_PK: Any, *, tolerance: float = 1e-4) -> Any:
    """Conjugate gradients for several right-hand sides at once."""
    x, residual = start_PK.copy(), right_PK - matrix @ start_PK
    steep = inverse[:, None] * residual
    direction, power = steep.copy(), (residual * steep).sum(axis=0)
    goal = tolerance**2 * (right_PK * inverse[:, None] * right_PK).sum(axis=0)
    for _ in range(matrix.shape[0] * 10):
        if (power <= goal).all():
            break
        turned = matrix @ direction
        along = (direction * turned).sum(axis=0)
        length = np.divide(power, along, out=np.zeros_like(power), where=along > 0)
        x += length * direction
        residual -= length * turned
        steep = inverse[:, None] * residual
        new = (residual * steep).sum(axis=0)
        direction = steep + np.divide(new, power, out=np.zeros_like(new), where=power > 0) * direction
        power = new
    return x
