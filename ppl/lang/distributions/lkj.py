"""The LKJ distribution over Cholesky factors of correlation matrices."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import Distribution, make_distribution
from ppl.lang.distributions._gamma import log_gamma_draw
from ppl.lang.distributions._safe import log_beta, only_where
from ppl.lang.family import Family
from ppl.lang.supports import correlation_cholesky


@functools.cache
def lkj_cholesky(dimension: int) -> Distribution:
    """`lkj_cholesky(K)(concentration)`: K x K Cholesky factors of correlation matrices.

    A concentration of 1 is uniform over correlation matrices; above 1 favours the identity.
    The density is with respect to the entries below the diagonal.

    Source: Lewandowski, Kurowicka and Joe (2009). Row m + 1 is a uniform direction in m dimensions
    whose squared length is Beta(m / 2, concentration + (K - 1 - m) / 2).
    """
    if dimension < 1:
        raise ValueError(f"lkj_cholesky: the dimension is {dimension}; it must be 1 or more")
    m = np.arange(1, dimension)

    def row_parameters(concentration: Array) -> tuple[Array, Array]:
        a = jnp.asarray(m / 2, concentration.dtype)
        rest = jnp.asarray((dimension - 1 - m) / 2, concentration.dtype)
        return a, concentration[..., None] + rest

    def sample(key: Array, shape: tuple[int, ...], concentration: Array) -> Array:
        dtype, rows = concentration.dtype, (*shape, dimension - 1)
        gamma_key, direction_key = jax.random.split(key)
        both = jnp.stack([jnp.broadcast_to(p, rows) for p in row_parameters(concentration)])
        log_draws = log_gamma_draw(gamma_key, (2, *rows), both)
        log_odds = log_draws[0] - log_draws[1]
        normals = jax.random.normal(direction_key, (*shape, dimension - 1, dimension), dtype)
        direction = jnp.tril(normals)
        direction = direction / jnp.linalg.norm(direction, axis=-1, keepdims=True)
        below = jnp.sqrt(jax.nn.sigmoid(log_odds))[..., None] * direction
        first = jnp.zeros((*shape, 1, dimension), dtype)
        diagonal = jnp.sqrt(jax.nn.sigmoid(-log_odds))
        diagonal = jnp.concatenate([jnp.ones((*shape, 1), dtype), diagonal], -1)
        return jnp.concatenate([first, below], -2) + diagonal[..., None] * jnp.eye(
            dimension, dtype=dtype
        )

    def log_density(value: Array, concentration: Array) -> Array:
        inside = correlation_cholesky.check(value)
        diagonal = jnp.diagonal(value, axis1=-2, axis2=-1)[..., 1:]
        diagonal = jnp.where(inside[..., None], diagonal, 1)
        a, b = row_parameters(concentration)
        log_area = gammaln(a) - a * math.log(math.pi)  # minus the log-area of a half-sphere
        log_rows = 2 * (b - 1) * jnp.log(diagonal) + log_area - log_beta(a, b)
        return only_where(inside, jnp.sum(log_rows, -1))

    return make_distribution(
        Family(
            f"lkj_cholesky({dimension})",
            {"concentration": 0},
            sample,
            log_density,
            support=correlation_cholesky,
            event_shape=lambda shapes: (dimension, dimension),
            reparam="implicit",
            tfp=functools.partial(tfp.distributions.CholeskyLKJ, dimension),
        )
    )
