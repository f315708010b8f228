"""What the network is compared with: exact posteriors, grids, importance sampling and filters.

Plain array code. All densities are logs, in nats, of the natural value x unless a name says u.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy import special
from jax.scipy.stats import beta as beta_law
from jax.scipy.stats import norm
from jaxtyping import Array, ArrayLike, Bool, Float, Key

from ppl import vi
from stdlib.distribution_transformer import tasks

# ------------------------------------------------------------- Markov chains


def one_chain(
    key: Key[Array, ""],
    log_density: Callable[[Float[Array, " n"]], Array],
    start: Float[Array, " n"],
    draws: int,
) -> Float[Array, "draws n"]:
    """Draws of the no-U-turn sampler, after half as many steps of adaptation."""
    return vi.nuts(key, log_density, start, num_warmup=draws // 2, num_samples=draws)[0]


# ------------------------------------------------------------- inverse gamma, in u = log x


def inverse_gamma_posterior(alpha: ArrayLike, beta: ArrayLike, z: ArrayLike) -> tuple[Array, Array]:
    """Shape and scale of x given one z ~ N(0, x), for x ~ inverse gamma(alpha, beta)."""
    return jnp.asarray(alpha) + 0.5, jnp.asarray(beta) + jnp.square(z) / 2


def log_inverse_gamma(u: ArrayLike, alpha: ArrayLike, beta: ArrayLike) -> Array:
    """Log-density of u = log x: a log b - log Γ(a) - a u - b exp(-u)."""
    u, alpha, beta = map(jnp.asarray, (u, alpha, beta))
    return alpha * jnp.log(beta) - special.gammaln(alpha) - alpha * u - beta * jnp.exp(-u)


def inverse_gamma_moments(alpha: ArrayLike, beta: ArrayLike) -> tuple[Array, Array]:
    """Mean and variance of u = log x: log b - ψ(a) and ψ₁(a)."""
    alpha = jnp.asarray(alpha, float)
    return jnp.log(beta) - special.digamma(alpha), special.polygamma(1, alpha)


def log_student_evidence(alpha: ArrayLike, beta: ArrayLike, z: ArrayLike) -> Array:
    """Log-density of z: Student's t, 2 alpha degrees of freedom, scale sqrt(beta / alpha)."""
    above, total = inverse_gamma_posterior(alpha, beta, z)
    normaliser = special.gammaln(above) - special.gammaln(jnp.asarray(alpha, float))
    return normaliser + alpha * jnp.log(beta) - above * jnp.log(total) - 0.5 * jnp.log(2 * jnp.pi)


def prior_information(u: Array, z: Array, alphas: Array, betas: Array) -> Array:
    """log p(u | z) with the prior's parameters averaged out over draws `[m]` of them.

    The best that a network can do that does not know them: its mean KL is the conditional mutual
    information I(u; φ | z).
    """
    log_z = log_student_evidence(alphas, betas, z)
    log_joint = log_inverse_gamma(u, alphas, betas) + norm.logpdf(z, 0, jnp.exp(u / 2))
    return special.logsumexp(log_joint) - special.logsumexp(log_z)


# ------------------------------------------------------------- the quantum parameter


class Grid(NamedTuple):
    """A density on points: cell masses that sum to 1 are exp(log_density) * widths."""

    points: Array
    widths: Array


def logit_grid(n: int = 801, reach: float = 9.0) -> Grid:
    """Points of (0, 1), even in their logits."""
    u = jnp.linspace(-reach, reach, n)
    x = jax.nn.sigmoid(u)
    return Grid(x, x * (1 - x) * (u[1] - u[0]))


def mean_probabilities(points: Float[Array, " grid"], nodes: int = 9) -> Float[Array, "grid 10"]:
    """P(z = 1) for each δ and measurement, with its start and time averaged out by quadrature."""
    at, weights = _hermite(nodes)
    a, b, t = jnp.meshgrid(at, at, at, indexing="ij")
    weight = weights[:, None, None] * weights[:, None] * weights

    def mean(delta: Array, start: Array, time: Array) -> Array:
        starts = start + tasks.START_SD * jnp.stack([a, b], -1)
        p = tasks.zero_probability(delta, time + tasks.TIME_SD * t, starts)
        return jnp.sum(weight * p)

    each = jax.vmap(mean, (None, 0, 0))
    starts, times = jnp.asarray(tasks.STARTS), jnp.asarray(tasks.TIMES)
    return lax.map(lambda d: each(d, starts, times), points)


def _hermite(nodes: int) -> tuple[Array, Array]:
    import numpy as np

    at, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return jnp.asarray(at), jnp.asarray(weights / weights.sum())


def quantum_log_posterior(
    grid: Grid, table: Float[Array, "grid 10"], a: Array, b: Array, z: Bool[Array, " 10"]
) -> Float[Array, " grid"]:
    """Exact log-density of δ at the points of the grid.

    The set-ups of the measurements are independent, so that each measurement's likelihood is
    the mean over its own set-up, `table` as `mean_probabilities` makes it.
    """
    log_lik = jnp.sum(jnp.where(z, jnp.log(table), jnp.log1p(-table)), -1)
    log_p = beta_law.logpdf(grid.points, a, b) + log_lik
    return log_p - special.logsumexp(log_p + jnp.log(grid.widths))


def at_point(grid: Grid, log_density: Array, x: Array) -> Array:
    """A log-density between the grid's points."""
    return jnp.interp(x, grid.points, log_density)


def quantum_importance(
    key: Key[Array, ""], a: Array, b: Array, z: Array, delta: Array, particles: int
) -> Array:
    """Log-density at `delta` by importance sampling: draws of δ and of all set-ups from the prior.

    The density of the weighted draws is that of normal kernels on logits, with Silverman's width.
    """
    keys = jax.random.split(key, 3)
    draws = jax.random.beta(keys[0], a, b, (particles, 1))
    starts = tasks.STARTS + tasks.START_SD * jax.random.normal(keys[1], (particles, 10, 2))
    times = tasks.TIMES + tasks.TIME_SD * jax.random.normal(keys[2], (particles, 10))
    p = tasks.zero_probability(draws, times, starts)
    log_w = jnp.sum(jnp.where(z, jnp.log(p), jnp.log1p(-p)), -1)
    u, at = special.logit(draws), special.logit(delta)[None]
    return kernel_density(log_w, u, at) - jnp.log(delta) - jnp.log1p(-delta)


def quantum_nuts(
    key: Key[Array, ""], a: Array, b: Array, z: Array, delta: Array, draws: int
) -> Array:
    """The same by NUTS over δ and all set-ups, 31 numbers, with the same kernels."""

    def log_density(v: Float[Array, " 31"]) -> Array:
        delta, start, time = jax.nn.sigmoid(v[0]), v[1:21].reshape(10, 2), v[21:]
        p = tasks.zero_probability(
            delta, tasks.TIMES + tasks.TIME_SD * time, tasks.STARTS + tasks.START_SD * start
        )
        log_lik = jnp.sum(jnp.log(jnp.where(z, p, 1 - p)))
        # The Jacobian of the logit adds one to both parameters of the beta law.
        log_prior = a * jax.nn.log_sigmoid(v[0]) + b * jax.nn.log_sigmoid(-v[0])
        return log_lik + log_prior - jnp.sum(v[1:] ** 2) / 2

    u = one_chain(key, log_density, jnp.zeros(31), draws)[:, :1]
    at = special.logit(delta)[None]
    return kernel_density(jnp.zeros(draws), u, at) - jnp.log(delta) - jnp.log1p(-delta)


def kernel_density(
    log_weights: Float[Array, " draws"], u: Float[Array, "draws n"], at: Float[Array, " n"]
) -> Array:
    """Log-density at `at` of weighted draws, by normal kernels with the draws' covariance.

    Their width is Silverman's, (4 / ((n + 2) size))^(1 / (n + 4)) with the effective sample size.
    """
    n = u.shape[-1]
    w = jax.nn.softmax(log_weights)
    away = u - w @ u
    covariance = jnp.einsum("d,di,dj->ij", w, away, away)
    size = 1 / jnp.sum(w * w)
    width = (4 / ((n + 2) * size)) ** (1 / (n + 4))
    log_kernels = jax.scipy.stats.multivariate_normal.logpdf(at, u, width**2 * covariance)
    return special.logsumexp(jnp.log(w) + log_kernels)


# ------------------------------------------------------------- the Gaussian process


class ProcessData(NamedTuple):
    """One data set: the prior's parameters, the points and their values."""

    concentration: Array
    rate: Array
    log_median: Array
    mean: Array
    at: Float[Array, " points"]
    y: Float[Array, " points"]


def _process_log_prior(data: ProcessData, v: Float[Array, " 2"]) -> Array:
    """Of v = (log length scale, log variance), up to a constant."""
    log_length = data.concentration * v[0] - data.rate * jnp.exp(v[0])
    return log_length + norm.logpdf(v[1], data.log_median, tasks.SCALE_SD)


def _process_log_lik(data: ProcessData, v: Float[Array, " 2"]) -> Array:
    """log p(data | v), up to a constant."""
    chol = jnp.linalg.cholesky(tasks.covariance(data.at, jnp.exp(v[0]), jnp.exp(v[1])))
    white = jax.scipy.linalg.solve_triangular(chol, data.y - data.mean, lower=True)
    return -jnp.sum(white**2) / 2 - jnp.sum(jnp.log(jnp.diagonal(chol)))


def process_log_joint(data: ProcessData, v: Float[Array, " 2"]) -> Array:
    """log p(data, v), up to a constant."""
    return _process_log_lik(data, v) + _process_log_prior(data, v)


def process_log_posterior(data: ProcessData, x: Float[Array, " 2"], nodes: int = 60) -> Array:
    """Exact log-density of x = (length scale, variance) given the data, by quadrature."""
    lengths = jnp.linspace(jnp.log(0.005), jnp.log(6.0), nodes)
    scales = data.log_median + tasks.SCALE_SD * jnp.linspace(-5.0, 5.0, nodes)
    given = lambda l: jax.vmap(lambda s: process_log_joint(data, jnp.stack([l, s])))(scales)
    width = jnp.log(lengths[1] - lengths[0]) + jnp.log(scales[1] - scales[0])
    log_z = special.logsumexp(lax.map(given, lengths)) + width
    v = jnp.log(x)
    return process_log_joint(data, v) - log_z - jnp.sum(v)


def process_importance(
    key: Key[Array, ""], data: ProcessData, x: Float[Array, " 2"], draws: int
) -> Array:
    """The same by importance sampling from the prior, and kernels on logs."""
    length_key, scale_key = jax.random.split(key)
    length = jax.random.loggamma(length_key, data.concentration, (draws,)) - jnp.log(data.rate)
    scale = data.log_median + tasks.SCALE_SD * jax.random.normal(scale_key, (draws,))
    v = jnp.stack([length, scale], -1)
    log_w = jax.vmap(lambda v: _process_log_lik(data, v))(v)
    return kernel_density(log_w, v, jnp.log(x)) - jnp.sum(jnp.log(x))


def process_nuts(
    key: Key[Array, ""], data: ProcessData, x: Float[Array, " 2"], draws: int
) -> Array:
    """The same by NUTS."""
    start = jnp.stack([jnp.log(data.concentration / data.rate), data.log_median])
    v = one_chain(key, lambda v: process_log_joint(data, v), start, draws)
    return kernel_density(jnp.zeros(draws), v, jnp.log(x)) - jnp.sum(jnp.log(x))


# ------------------------------------------------------------- filters in one dimension


def grid_filter(
    prior: Array, z: Float[Array, " steps"], x: Float[Array, " steps"], points: Array
) -> Array:
    """Exact filtering log-densities at the states x, by sums over a grid.

    Args:
        prior: log-density of the first state at the points.
    """
    width = jnp.log(points[1] - points[0])
    transition = jnp.exp(norm.logpdf(points[:, None], tasks.STEP * points, tasks.STEP_SD))

    def step(log_prior: Array, seen: tuple[Array, Array]) -> tuple[Array, Array]:
        z, x = seen
        log_p = log_prior + norm.logpdf(z, tasks.squared_mean(points), tasks.OBSERVATION_SD)
        log_p = log_p - special.logsumexp(log_p) - width
        after = jnp.log(transition @ jnp.exp(log_p + width) + 1e-37)
        return after, jnp.interp(x, points, log_p)

    return lax.scan(step, prior, (z, x))[1]


class Normal(NamedTuple):
    """Mean and covariance of a normal law."""

    mean: Array
    covariance: Array


def extended_kalman(
    start: Normal, z: Any, x: Array, sensor: Any, transition: Array, noise: Array
) -> Array:
    """Log-densities of the states by an extended Kalman filter.

    Args:
        sensor: from an observation to (a function of the state that is expected to be 0, its noise
            covariance at the state).
    """

    def step(law: Normal, seen: tuple[Any, Array]) -> tuple[Normal, Array]:
        z, x = seen
        miss, variance = sensor(z)
        jacobian = jax.jacfwd(miss)(law.mean)
        innovation = jacobian @ law.covariance @ jacobian.T + variance(law.mean)
        gain = jnp.linalg.solve(innovation, jacobian @ law.covariance).T
        mean = law.mean - gain @ miss(law.mean)
        covariance = law.covariance - gain @ innovation @ gain.T
        covariance = (covariance + covariance.T) / 2
        log_p = jax.scipy.stats.multivariate_normal.logpdf(x, mean, covariance)
        after = transition @ covariance @ transition.T + noise
        return Normal(transition @ mean, after), jnp.asarray(log_p)

    return lax.scan(step, start, (z, x))[1]


# ------------------------------------------------------------- range and bearing


def log_likelihood(reading: Array, angle: Array, x: Float[Array, "*batch 4"]) -> Array:
    """Log-density of the two readings: of the range, with atoms where it is clipped."""
    distance = tasks.range_of(x)
    sd, far = 0.1 * (distance + 1), tasks.FARTHEST
    target, clutter, anything = tasks.KINDS
    inside = (
        target * jnp.exp(norm.logpdf(reading, distance, sd))
        + clutter * jnp.exp(-reading)
        + anything / far
    )
    at_zero = target * norm.cdf(-distance / sd)
    at_far = target * norm.cdf((distance - far) / sd) + clutter * jnp.exp(-far)
    # An atom's probability is counted, not a density: which is right for each reading by itself.
    likelihood = jnp.where(reading <= 0, at_zero, jnp.where(reading >= far, at_far, inside))
    turns = 2 * jnp.pi * jnp.arange(-1.0, 2.0)
    away = angle - tasks.bearing_of(x)[..., None] + turns
    log_angle = special.logsumexp(norm.logpdf(away, 0.0, tasks.BEARING_SD), axis=-1)
    return jnp.log(likelihood + 1e-30) + log_angle


def range_and_bearing(z: tuple[Array, Array]) -> Any:
    """What the extended Kalman filter thinks of the sensors: normal noise, and no clutter."""
    reading, angle = z

    def miss(x: Array) -> Array:
        away = tasks.bearing_of(x) - angle
        return jnp.stack([tasks.range_of(x) - reading, jnp.arctan2(jnp.sin(away), jnp.cos(away))])

    def variance(x: Array) -> Array:
        return jnp.diag(jnp.stack([(0.1 * (tasks.range_of(x) + 1)) ** 2, tasks.BEARING_SD**2]))

    return miss, variance


def particle_filter(
    key: Key[Array, ""], z: tuple[Array, Array], x: Float[Array, "steps 4"], particles: int
) -> Array:
    """Filtering log-densities at the states by a bootstrap particle filter.

    Systematic resampling where the effective sample size is below half. The density needs no
    kernels: p(x | z, past) ∝ p(z | x) Σ w N(x; A x_before, Q), and the sum of the weights is p(z).
    """
    n = particles
    sd = jnp.asarray(tasks.TRANSITION_SD)
    first = tasks.START_LOC + jax.random.normal(key, (n, 4))

    def step(carry: Any, seen: Any) -> Any:
        particles, log_w, means, before, is_first = carry
        (reading, angle), x, key = seen
        log_lik = log_likelihood(reading, angle, particles)
        log_evidence = special.logsumexp(log_w + log_lik)
        moved = special.logsumexp(before + jnp.sum(norm.logpdf(x, means, sd), -1))
        at_first = jnp.sum(norm.logpdf(x, tasks.START_LOC, 1.0))
        log_prior = jnp.where(is_first, at_first, moved)
        log_p = log_likelihood(reading, angle, x) + log_prior - log_evidence
        log_w = log_w + log_lik - log_evidence
        resample_key, move_key = jax.random.split(key)
        few = special.logsumexp(2 * log_w) > jnp.log(2.0 / n)  # 1 / ESS
        comb = (jnp.arange(n) + jax.random.uniform(resample_key)) / n
        index = jnp.clip(jnp.searchsorted(jnp.cumsum(jnp.exp(log_w)), comb), 0, n - 1)
        particles = jnp.where(few, particles[index], particles)
        log_w = jnp.where(few, -jnp.log(n), log_w)
        means = particles @ tasks.TRANSITION.T
        particles = means + sd * jax.random.normal(move_key, (n, 4))
        return (particles, log_w, means, log_w, jnp.array(False)), log_p

    even = jnp.full(n, -jnp.log(n))
    carry = (first, even, first, even, jnp.array(True))
    return lax.scan(step, carry, (z, x, jax.random.split(key, len(x))))[1]
