"""Local quadratic fits: a loss near a point as a quadratic, for guides with closed-form posteriors.

`local_quadratic(loss, start, by=...)` runs a solver inside of a program; with a Gaussian prior the
quadratic has a Gaussian posterior in closed form (`Quadratic.posterior`), which a guide draws from:

    quadratic = local_quadratic(loss, start=loc, by=Newton())
    mean, covariance = quadratic.posterior(loc, scale_tril)
    multivariate_normal.reparam(mean, covariance) @ "weights"

The quadratic is a *constant* for all derivatives: nothing is differentiated through the solver, in
no mode, so memory does not grow with its steps. The derivative of what follows is through the
closed form only, in the prior's parameters. (The opposite of an implicit derivative of a solution.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ppl.errors import ShapeError
from ppl.lang.distributions import normal

Loss = Callable[[Float[Array, " size"]], Float[Array, ""]]


class Quadratic(NamedTuple):
    """`loss(x) = slope . (x - center) + (x - center)' precision (x - center) / 2 + constant`.

    Attributes:
        center: the point of expansion, `[size]`.
        slope: the gradient there, `[size]`; 0 if the center counts as the minimum.
        precision: positive semidefinite, `[size, size]`; or its diagonal, `[size]`.
    """

    center: Float[Array, " size"]
    slope: Float[Array, " size"]
    precision: Float[Array, " size *size"]

    def posterior(self, loc: Array, scale: Array) -> tuple[Array, Array]:
        """The Gaussian proportional to N(x; loc, scale scale') exp(-quadratic(x)).

        Nothing is inverted but the identity plus a positive semidefinite matrix, so flat directions
        of the loss and narrow ones of the prior are fine.

        Args:
            loc: of the prior, `[size]`.
            scale: a Cholesky factor of its covariance, `[size, size]`; or standard deviations,
                `[size]`, if the precision is diagonal too.

        Returns:
            the mean, and the covariance matrix; with standard deviations, the variances.

        Raises:
            ShapeError: a prior of independent coordinates with a precision that is a matrix.
        """
        if scale.ndim == 1:
            if self.precision.ndim != 1:
                raise ShapeError(
                    "Quadratic.posterior: the prior's coordinates are independent, not the loss's",
                    because=f"scale is {scale.shape}, the precision is {self.precision.shape}",
                    fix="give the prior's Cholesky factor, jnp.diag(scale)",
                )
            variance = scale**2 / (1 + scale**2 * self.precision)
            step = self.precision * (self.center - loc) - self.slope
            return loc + variance * step, variance
        a = jnp.diag(self.precision) if self.precision.ndim == 1 else self.precision
        scale = jnp.tril(scale)
        # (A + (SS')^-1)^-1 = S (1 + S'AS)^-1 S'
        inner = jnp.linalg.cholesky(jnp.eye(len(loc), dtype=loc.dtype) + scale.T @ a @ scale)
        half = lax.linalg.triangular_solve(inner, scale.T, left_side=True, lower=True)
        covariance = half.T @ half
        return loc + covariance @ (a @ (self.center - loc) - self.slope), covariance


class QuadraticSolver(Protocol):
    """A way to a quadratic."""

    def __call__(self, loss: Loss, start: Float[Array, " size"]) -> Quadratic: ...


def local_quadratic(loss: Loss, start: Float[Array, " size"], *, by: QuadraticSolver) -> Quadratic:
    """A quadratic that is like `loss` near `start`, as a constant for all derivatives.

    Args:
        loss: usually minus a log-likelihood, in nats, of an array `[size]`.
        start: where the solver starts.
        by: `Newton`, `GradientDescent`, `GaussNewton`, `Langevin`, or any function of
            `(loss, start)`.

    Raises:
        ShapeError: `start` is no vector, or the loss no number.

    Source: the one-time local fits of Kim and Hospedales (arXiv 2306.09702).
    """
    start = lax.stop_gradient(jnp.asarray(start))
    if start.ndim != 1:
        raise ShapeError(
            "local_quadratic: the start is a vector",
            because=f"its shape is {start.shape}",
            fix="flatten it: jax.flatten_util.ravel_pytree, and unravel in the loss",
        )
    if (found := jax.eval_shape(loss, start)).shape != ():
        raise ShapeError("local_quadratic: the loss is a number", because=f"it is {found}")
    return jax.tree.map(lax.stop_gradient, by(loss, start))


@dataclass(frozen=True)
class Composed:
    """The loss `cost(outputs(x))`: what a Gauss-Newton curvature needs to know of it.

    Attributes:
        outputs: `[size] -> [outputs]`, for instance a network's predictions for all data.
        cost: `[outputs] -> number`, convex.
    """

    outputs: Callable[[Array], Array]
    cost: Callable[[Array], Array]

    def __call__(self, x: Array) -> Array:
        return self.cost(self.outputs(x))


def _composed(loss: Loss) -> Composed:
    if not isinstance(loss, Composed):
        raise TypeError(
            "a Gauss-Newton curvature needs a loss that says what its outputs are: "
            f"Composed(outputs=..., cost=...), not {loss!r}"
        )
    return loss


def gauss_newton_diagonal(loss: Loss, x: Float[Array, " size"]) -> Float[Array, " size"]:
    """The diagonal of J'HJ: J the outputs' Jacobian, H the cost's Hessian. One backward pass per
    output.

    Raises:
        TypeError: the loss does not say what its outputs are.
    """
    composed = _composed(loss)
    jacobian = jax.jacrev(composed.outputs)(x)
    hessian = jax.hessian(composed.cost)(composed.outputs(x))
    return jnp.einsum("id,id->d", jacobian, hessian @ jacobian)


@dataclass(frozen=True)
class Newton:
    """The exact Hessian, for small sizes; exact at once for a quadratic loss.

    Directions in which the loss is curved downwards get curvature 0.

    Attributes:
        steps: Newton steps before the expansion (each damped by the identity times `damping`).
    """

    steps: int = 0
    damping: float = 1e-3

    def __call__(self, loss: Loss, start: Array) -> Quadratic:
        slope_at = jax.grad(loss)

        def curvature(x: Array) -> Array:
            values, vectors = jnp.linalg.eigh(jax.hessian(loss)(x))
            return (vectors * jnp.maximum(values, 0)) @ vectors.T

        def step(x: Array, _: None) -> tuple[Array, None]:
            matrix = curvature(x) + self.damping * jnp.eye(len(x), dtype=x.dtype)
            return x - jnp.linalg.solve(matrix, slope_at(x)), None

        x, _ = lax.scan(step, start, None, length=self.steps)
        return Quadratic(x, slope_at(x), curvature(x))


@dataclass(frozen=True)
class GradientDescent:
    """A few gradient steps, and the diagonal Gauss-Newton curvature where they end.

    The end counts as the quadratic's minimum, as in the paper: it has no slope.

    Attributes:
        steps, step_size: of the descent.
        max_norm: the gradient is scaled down to this norm if it is longer.
        max_precision: the curvature is clipped to this.
    """

    steps: int
    step_size: float
    max_norm: float = jnp.inf
    max_precision: float = jnp.inf

    def __call__(self, loss: Loss, start: Array) -> Quadratic:
        def step(x: Array, _: None) -> tuple[Array, None]:
            return x - self.step_size * _clipped(jax.grad(loss)(x), self.max_norm), None

        x, _ = lax.scan(step, start, None, length=self.steps)
        curvature = gauss_newton_diagonal(loss, x)
        return Quadratic(x, jnp.zeros_like(x), jnp.clip(curvature, 0, self.max_precision))


@dataclass(frozen=True)
class GaussNewton:
    """Damped Gauss-Newton steps (Levenberg and Marquardt), and the diagonal curvature at the end.

    A step minimises the linearised loss plus `damping |dx|^2 / 2`. It solves a system of the size
    of the outputs, not of x, and one backward pass per output: for few data and many weights it
    does the work of hundreds of gradient steps. The end counts as the minimum, as above.

    Attributes:
        steps: how many.
        damping: a precision, above 0; that of the prior of x is a good start.
        max_precision: the curvature is clipped to this.
    """

    steps: int
    damping: float
    max_precision: float = jnp.inf

    def __call__(self, loss: Loss, start: Array) -> Quadratic:
        composed = _composed(loss)

        def step(x: Array, _: None) -> tuple[Array, None]:
            outputs, jacobian = composed.outputs(x), jax.jacrev(composed.outputs)(x)
            hessian = jax.hessian(composed.cost)(outputs)
            # (J'HJ + c)^-1 J' = J' (HJJ' + c)^-1
            matrix = hessian @ (jacobian @ jacobian.T)
            matrix = matrix + self.damping * jnp.eye(len(outputs), dtype=x.dtype)
            return x - jacobian.T @ jnp.linalg.solve(matrix, jax.grad(composed.cost)(outputs)), None

        x, _ = lax.scan(step, start, None, length=self.steps)
        curvature = gauss_newton_diagonal(composed, x)
        return Quadratic(x, jnp.zeros_like(x), jnp.clip(curvature, 0, self.max_precision))


@dataclass(frozen=True)
class Langevin:
    """Stochastic gradient Langevin dynamics: mean and inverse variance of its iterates.

    `x <- x - step_size/2 grad + sqrt(temperature step_size) noise`. The noise is drawn as choices
    without an address: the guide is then a mixture over them, and log q is given them, which leaves
    a lower bound on the evidence one.

    For curvature a the iterates' stationary variance is temperature / (a (1 - step_size a / 4)), so
    the step must be below 4/a, and the precision is a (1 - step_size a / 4) / temperature, here
    multiplied by the temperature. After few steps it is that of a random walk: clip it.

    Attributes:
        steps, burn_in: iterates, and how many of the first are left out.
        step_size, temperature, max_norm, max_precision: as above.

    Source: Welling and Teh (2011).
    """

    steps: int
    step_size: float
    burn_in: int = 0
    temperature: float = 1.0
    max_norm: float = jnp.inf
    max_precision: float = jnp.inf

    def __post_init__(self) -> None:
        if not 0 <= self.burn_in < self.steps - 1:
            raise ValueError(
                f"Langevin: {self.burn_in} of {self.steps} steps are left out; two or more must "
                "be left for a variance"
            )

    def __call__(self, loss: Loss, start: Array) -> Quadratic:
        spread = jnp.sqrt(self.temperature * self.step_size)

        def step(x: Array, _: None) -> tuple[Array, Array]:
            noise = normal.sample(jnp.zeros(x.shape, x.dtype), spread)
            x = x - self.step_size / 2 * _clipped(jax.grad(loss)(x), self.max_norm) + noise
            return x, x

        _, path = lax.scan(step, start, None, length=self.steps)
        kept = path[self.burn_in :]
        variance = jnp.var(kept, axis=0, ddof=1)
        precision = jnp.minimum(self.temperature / variance, self.max_precision)
        return Quadratic(jnp.mean(kept, 0), jnp.zeros_like(start), precision)


def _clipped(gradient: Array, max_norm: float) -> Array:
    norm = jnp.linalg.norm(gradient)
    return gradient * (max_norm / jnp.maximum(norm, max_norm) if max_norm < jnp.inf else 1.0)
