"""Wishart and inverse Wishart distributions over covariance matrices."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import multigammaln
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._gamma import log_gamma_draw
from ppl.lang.distributions._linalg import log_diagonal, square_event, transpose
from ppl.lang.distributions._safe import only_where
from ppl.lang.family import Family
from ppl.lang.supports import positive_definite


def _bartlett(key: Array, shape: tuple[int, ...], df: Array, scale_tril: Array) -> Array:
    """A lower triangular matrix `A` such that `A @ A.T` is a standard Wishart draw."""
    size, dtype = scale_tril.shape[-1], jnp.result_type(df, scale_tril)
    gamma_key, normal_key = jax.random.split(key)
    concentration = (df[..., None] - jnp.arange(size)).astype(dtype) / 2
    log_gamma = log_gamma_draw(gamma_key, (*shape, size), concentration)
    diagonal = jnp.exp(0.5 * (math.log(2) + log_gamma))
    below = jnp.tril(jax.random.normal(normal_key, (*shape, size, size), dtype), -1)
    return below + diagonal[..., None] * jnp.eye(size, dtype=dtype)


def _outer(factor: Array) -> Array:
    return jnp.matmul(factor, transpose(factor), precision=lax.Precision.HIGHEST)


def _sample(key: Array, shape: tuple[int, ...], df: Array, scale_tril: Array) -> Array:
    factor = _bartlett(key, shape, df, scale_tril)
    return _outer(jnp.matmul(jnp.tril(scale_tril), factor, precision=lax.Precision.HIGHEST))


def _inside_and_factor(value: Array) -> tuple[Array, Array]:
    """Whether a matrix is in the support, and its Cholesky factor (of 1, where it is not)."""
    inside = positive_definite.check(lax.stop_gradient(value))
    identity = jnp.eye(value.shape[-1], dtype=value.dtype)
    return inside, jnp.linalg.cholesky(jnp.where(inside[..., None, None], value, identity))


def _solve(tril: Array, right: Array) -> Array:
    batch = jnp.broadcast_shapes(tril.shape[:-2], right.shape[:-2])
    return lax.linalg.triangular_solve(
        jnp.broadcast_to(tril, (*batch, *tril.shape[-2:])),
        jnp.broadcast_to(right, (*batch, *right.shape[-2:])),
        left_side=True,
        lower=True,
    )


def _log_density(value: Array, df: Array, scale_tril: Array) -> Array:
    size = scale_tril.shape[-1]
    inside, factor = _inside_and_factor(value)
    whitened = _solve(scale_tril, factor)
    log_density = (
        (df - size - 1) * log_diagonal(factor)
        - 0.5 * jnp.sum(whitened**2, (-1, -2))
        - df * log_diagonal(scale_tril)
        - df * (size / 2 * math.log(2))
        - multigammaln(df / 2, size)
    )
    return only_where(inside, log_density)


wishart = make_distribution(
    Family(
        "wishart",
        {"df": 0, "scale_tril": 2},
        _sample,
        _log_density,
        support=positive_definite,
        event_shape=lambda shapes: square_event("wishart", "scale_tril", shapes["scale_tril"]),
        reparam="implicit",
        tfp=tfp.distributions.WishartTriL,
    )
)
"""`wishart(df, scale_tril)`: the scatter matrix of `df` > K - 1 normal vectors with covariance
`V = scale_tril @ scale_tril.T`; positive definite K x K matrices with mean `df * V`."""


def _inverse_sample(key: Array, shape: tuple[int, ...], df: Array, scale_tril: Array) -> Array:
    factor = _bartlett(key, shape, df, scale_tril)
    return _outer(transpose(_solve(factor, transpose(jnp.tril(scale_tril)))))


def _inverse_log_density(value: Array, df: Array, scale_tril: Array) -> Array:
    size = scale_tril.shape[-1]
    inside, factor = _inside_and_factor(value)
    whitened = _solve(factor, jnp.tril(scale_tril))
    log_density = (
        df * log_diagonal(scale_tril)
        - df * (size / 2 * math.log(2))
        - multigammaln(df / 2, size)
        - (df + size + 1) * log_diagonal(factor)
        - 0.5 * jnp.sum(whitened**2, (-1, -2))
    )
    return only_where(inside, log_density)


inverse_wishart = make_distribution(
    Family(
        "inverse_wishart",
        {"df": 0, "scale_tril": 2},
        _inverse_sample,
        _inverse_log_density,
        support=positive_definite,
        event_shape=lambda shapes: square_event(
            "inverse_wishart", "scale_tril", shapes["scale_tril"]
        ),
        reparam="implicit",
    )
)
"""`inverse_wishart(df, scale_tril)`: the inverse of a Wishart matrix of `df` degrees of freedom and
scale `inverse(S)`, where `S = scale_tril @ scale_tril.T`; its mean is `S / (df - K - 1)`."""
