"""Normal-inverse-Wishart laws in formulae: what the closed forms of the language must agree with.

NIW(loc, strength, V, df): Sigma ~ IW(V, df), of density proportional to |Sigma|^(-(df+d+1)/2)
exp(-tr(V inverse(Sigma))/2), and mu ~ N(loc, Sigma / strength). Sections are the card's; the
formulae are derived there from Kim and Hospedales (arXiv 2306.09702), sections 3 and 4.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln, multigammaln
from jaxtyping import Array, Float


class Law(NamedTuple):
    """A normal-inverse-Wishart law.

    Attributes:
        loc: mean of mu, `[d]`.
        strength: number of observations that mu is worth, above 0.
        scale: V, `[d, d]`, positive definite.
        df: degrees of freedom, above d - 1.
    """

    loc: Float[Array, " d"]
    strength: Array | float
    scale: Float[Array, "d d"]
    df: Array | float

    @property
    def mode(self) -> tuple[Array, Array]:
        """The mode of the joint density of (mu, Sigma)."""
        return self.loc, self.scale / (self.df + len(self.loc) + 2)

    def log_weight_density(self, theta: Float[Array, " d"]) -> Array:
        """log of the law of a task's weights, N(theta; mu, Sigma) averaged over (mu, Sigma): a
        Student t of df - d + 1 degrees of freedom (2.6)."""
        d = len(self.loc)
        df = self.df - d + 1
        shape = (1 + 1 / self.strength) * self.scale / df
        apart = theta - self.loc
        square = apart @ jnp.linalg.solve(shape, apart)
        log_constant = gammaln((df + d) / 2) - gammaln(df / 2) - d / 2 * jnp.log(df * jnp.pi)
        log_det = jnp.linalg.slogdet(shape)[1]
        return log_constant - 0.5 * log_det - (df + d) / 2 * jnp.log1p(square / df)


def multivariate_digamma(a: Array | float, d: int) -> Array:
    """The derivative of log Gamma_d(a): the sum of digamma(a + (1 - j)/2) for j = 1..d."""
    return jnp.sum(digamma(a - jnp.arange(d) / 2))


def expected_kl(mean: Array, covariance: Array, law: Law) -> Array:
    """E KL(N(mean, covariance) || N(mu, Sigma)) over (mu, Sigma), in nats: formula (a)."""
    d, apart = len(mean), mean - law.loc
    inverse_of = lambda x: jnp.linalg.solve(law.scale, x)
    quadratic = law.df * (jnp.trace(inverse_of(covariance)) + apart @ inverse_of(apart))
    log_dets = jnp.linalg.slogdet(law.scale)[1] - jnp.linalg.slogdet(covariance)[1]
    constants = d / law.strength - d - multivariate_digamma(law.df / 2, d) - d * jnp.log(2.0)
    return 0.5 * (quadratic + log_dets + constants)


def kl(first: Law, second: Law) -> Array:
    """KL(first || second), in nats: formula (b)."""
    d, apart = len(first.loc), first.loc - second.loc
    inverse_of = lambda x: jnp.linalg.solve(first.scale, x)
    ratio = second.strength / first.strength
    of_mean = d * (ratio - 1 - jnp.log(ratio))
    of_mean += second.strength * first.df * apart @ inverse_of(apart)
    log_dets = jnp.linalg.slogdet(first.scale)[1] - jnp.linalg.slogdet(second.scale)[1]
    of_scale = 0.5 * second.df * log_dets
    of_scale += multigammaln(second.df / 2, d) - multigammaln(first.df / 2, d)
    of_scale += 0.5 * (first.df - second.df) * multivariate_digamma(first.df / 2, d)
    of_scale += 0.5 * first.df * (jnp.trace(inverse_of(second.scale)) - d)
    return 0.5 * of_mean + of_scale


def gap(df: Array | float, d: int) -> Array:
    """What is lost by the factorised posterior for Gaussian tasks, in nats a task, beside
    d / (2 strength): [d log(df/2) - psi_d(df/2)] / 2, about d(d+1)/(4 df) (2.4)."""
    return 0.5 * (d * jnp.log(df / 2) - multivariate_digamma(df / 2, d))


class LocalPosterior(NamedTuple):
    """Gaussians, one for each task: `[tasks, d]` and `[tasks, d, d]`."""

    mean: Array
    covariance: Array


def update(prior: Law, tasks: LocalPosterior) -> Law:
    """The optimal q(mu, Sigma) given all local posteriors (2.5); the prior if there are none."""
    n = len(tasks.mean)
    strength = prior.strength + n
    centre = jnp.sum(tasks.mean, 0) / max(n, 1)
    between = (tasks.mean - centre).T @ (tasks.mean - centre)
    apart = centre - prior.loc
    shift = prior.strength * n / strength * jnp.outer(apart, apart)
    scale = prior.scale + jnp.sum(tasks.covariance, 0) + between + shift
    loc = jnp.asarray((prior.strength * prior.loc + jnp.sum(tasks.mean, 0)) / strength)
    return Law(loc, strength, scale, prior.df + n)


class GaussianTasks(NamedTuple):
    """Quadratic log-likelihoods: `precision` A_i `[tasks, d, d]`, `linear` A_i theta_i
    `[tasks, d]`, and the constant, which is the log-likelihood at 0, `[tasks]`."""

    precision: Array
    linear: Array
    constant: Array


def regressions(x: Array, y: Array, sd: float) -> GaussianTasks:
    """y = x theta + N(0, sd^2): x is `[tasks, points, d]`, y is `[tasks, points]`."""
    precision = jnp.einsum("tpi,tpj->tij", x, x) / sd**2
    log_norm = -0.5 * jnp.sum(y**2, 1) / sd**2 - y.shape[1] * (jnp.log(sd * jnp.sqrt(2 * jnp.pi)))
    return GaussianTasks(precision, jnp.einsum("tpi,tp->ti", x, y) / sd**2, log_norm)


def local_posteriors(tasks: GaussianTasks, law: Law) -> LocalPosterior:
    """The optimal local posteriors given q(mu, Sigma) (2.3)."""
    precision = law.df * jnp.linalg.inv(law.scale)
    covariance = jnp.linalg.inv(tasks.precision + precision)
    mean = jnp.einsum("tij,tj->ti", covariance, tasks.linear + precision @ law.loc)
    return LocalPosterior(mean, covariance)


def free_energy(tasks: GaussianTasks, local: LocalPosterior, law: Law, prior: Law) -> Array:
    """F, the negative ELBO of all tasks, in nats (2.2)."""
    m, v = local
    moments = v + m[:, :, None] * m[:, None, :]
    log_likelihood = jnp.sum(tasks.linear * m) - 0.5 * jnp.sum(tasks.precision * moments)
    log_likelihood += jnp.sum(tasks.constant)
    expected = jax.vmap(lambda mean, covariance: expected_kl(mean, covariance, law))(m, v)
    return kl(law, prior) - log_likelihood + jnp.sum(expected)


def coordinate_ascent(
    tasks: GaussianTasks, prior: Law, iterations: int
) -> tuple[Law, LocalPosterior, Array]:
    """Alternate `update` and `local_posteriors`; F after each iteration is the last result."""

    def step(law: Law, _: None) -> tuple[Law, Array]:
        law = update(prior, local_posteriors(tasks, law))
        return law, free_energy(tasks, local_posteriors(tasks, law), law, prior)

    first = update(prior, local_posteriors(tasks, prior))
    law, energies = jax.lax.scan(step, jax.tree.map(jnp.asarray, first), None, length=iterations)
    return law, local_posteriors(tasks, law), energies
