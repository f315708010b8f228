"""Gaussian mixtures as values: what the network reads and writes, and what filters carry.

`Mixture` is data (a pytree), so that it can be a program's argument, a scan's carry, or a choice's
parameters: `gmm(*mixture)`. The functions are exact; their tests are the identities of the card.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ppl import mixture_same_family, multivariate_normal_tri

gmm = mixture_same_family(multivariate_normal_tri)
"""`gmm(*mixture) @ "u"`: a vector drawn from a mixture; its density sums the labels out."""


class Mixture(NamedTuple):
    """A mixture of k normal laws of n numbers; each may have batch axes in front.

    Attributes:
        logits: logs of the weights, up to a common constant.
        loc: means.
        scale_tril: Cholesky factors of the covariances, with positive diagonals.
    """

    logits: Float[Array, "*batch k"]
    loc: Float[Array, "*batch k n"]
    scale_tril: Float[Array, "*batch k n n"]

    @property
    def weights(self) -> Float[Array, "*batch k"]:
        """They sum to 1."""
        return jax.nn.softmax(self.logits)

    @property
    def covariances(self) -> Float[Array, "*batch k n n"]:
        """Of the components."""
        return self.scale_tril @ jnp.swapaxes(self.scale_tril, -1, -2)


def log_density(mixture: Mixture, x: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """Natural log of the density, batch entry by batch entry."""
    return gmm.log_prob(x, *mixture)


def moments(mixture: Mixture) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch n n"]]:
    """Mean and covariance of the whole mixture."""
    weights = mixture.weights[..., None]
    mean = jnp.sum(weights * mixture.loc, -2)
    away = mixture.loc - mean[..., None, :]
    each = mixture.covariances + away[..., :, None] * away[..., None, :]
    return mean, jnp.sum(weights[..., None] * each, -3)


def normal_1d(loc: Float[Array, "*batch"], scale: Float[Array, "*batch"]) -> Mixture:
    """One normal law of one number, as a mixture."""
    return Mixture(
        jnp.zeros_like(loc)[..., None], loc[..., None, None], scale[..., None, None, None]
    )


def condition(
    prior: Mixture, matrix: Float[Array, "d n"], noise: Float[Array, "d d"], z: Float[Array, " d"]
) -> tuple[Mixture, Float[Array, ""]]:
    """The posterior of x given `z = matrix @ x + N(0, noise)`, and the log evidence of z.

    Each component gets a Kalman update, and its weight the component's evidence: S = H Σ Hᵀ + R,
    K = Σ Hᵀ S⁻¹, μ' = μ + K (z - H μ), Σ' = Σ - K S Kᵀ, log w' = log w + log N(z; H μ, S) - log Z.
    """

    def component(loc: Array, tril: Array) -> tuple[Array, Array, Array]:
        half = matrix @ tril
        innovation = jnp.linalg.cholesky(half @ half.T + noise)
        white = lambda x: jax.scipy.linalg.solve_triangular(innovation, x, lower=True)
        gain, miss = white(half @ tril.T), white(z - matrix @ loc)
        log_evidence = multivariate_normal_tri.log_prob(z, matrix @ loc, innovation)
        covariance = tril @ tril.T - gain.T @ gain
        return loc + gain.T @ miss, jnp.linalg.cholesky(covariance), log_evidence

    loc, tril, log_evidence = jax.vmap(component)(prior.loc, prior.scale_tril)
    logits = jax.nn.log_softmax(prior.logits) + log_evidence
    total = jax.nn.logsumexp(logits)
    return Mixture(logits - total, loc, tril), total


def small_product(a: Float[Array, "*batch i j"], b: Float[Array, "*batch j k"]) -> Array:
    """`a @ b` of many small matrices, written out: calls of the matrix library cost more."""
    terms = (a[..., :, j, None] * b[..., None, j, :] for j in range(a.shape[-1]))
    return functools.reduce(jnp.add, terms)


def small_cholesky(a: Float[Array, "*batch n n"]) -> Array:
    """Cholesky factors of many small matrices, written out for the same reason."""
    n, zero = a.shape[-1], jnp.zeros_like(a[..., 0, 0])
    tril = [[zero] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            rest = a[..., i, j] - sum(tril[i][k] * tril[j][k] for k in range(j))
            tril[i][j] = jnp.sqrt(rest) if i == j else rest / tril[j][j]
    return jnp.stack([jnp.stack(row, -1) for row in tril], -2)


def predict(mixture: Mixture, matrix: Float[Array, "n n"], noise: Float[Array, "n n"]) -> Mixture:
    """The law of `matrix @ x + N(0, noise)`: the weights stay, μ' = A μ, Σ' = A Σ Aᵀ + Q."""
    half = small_product(matrix, mixture.scale_tril)
    covariances = small_product(half, jnp.swapaxes(half, -1, -2)) + noise
    return Mixture(mixture.logits, mixture.loc @ matrix.T, small_cholesky(covariances))


def draw(mixture: Mixture, key: Key[Array, ""], n: int) -> Float[Array, "draws n"]:
    """Independent draws of one mixture (for tests and references; programs use `gmm`)."""
    label_key, noise_key = jax.random.split(key)
    label = jax.random.categorical(label_key, mixture.logits, shape=(n,))
    noise = jax.random.normal(noise_key, (n, mixture.loc.shape[-1]))
    return mixture.loc[label] + jnp.einsum("bij,bj->bi", mixture.scale_tril[label], noise)
