"""Multivariate normal distributions, by covariance, diagonal and triangular scale."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.errors import ShapeError
from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._linalg import log_diagonal, multiply, solve_lower, square_event
from ppl.lang.distributions._weak import NORMAL_VECTOR
from ppl.lang.family import Family
from ppl.lang.standard_noise import standard_normal
from ppl.lang.supports import real_vector


def _event_shape(family: str, scale: str, rank: int) -> Callable:
    def event_shape(shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        if rank == 2:
            square_event(family, scale, shapes[scale])
        if shapes["loc"][-1] != shapes[scale][-1]:
            raise ShapeError(
                f"{family}: the parameters' sizes differ",
                because=f"loc is {shapes['loc']}, {scale} is {shapes[scale]}",
            )
        return shapes["loc"][-1:]

    return event_shape


def _noise(key: Array, shape: tuple[int, ...], loc: Array, scale: Array) -> Array:
    return standard_normal(key, (*shape, loc.shape[-1]), jnp.result_type(loc, scale))


# ------------------------------------------------------------------------------------ diagonal


def _sample_diag(key: Array, shape: tuple[int, ...], loc: Array, scale_diag: Array) -> Array:
    return loc + scale_diag * _noise(key, shape, loc, scale_diag)


def _log_density_diag(value: Array, loc: Array, scale_diag: Array) -> Array:
    z = (value - loc) / scale_diag
    constant = 0.5 * math.log(2 * math.pi)
    return jnp.sum(-0.5 * z * z - jnp.log(jnp.abs(scale_diag)) - constant, -1)


multivariate_normal_diag = make_distribution(
    Family(
        "multivariate_normal_diag",
        {"loc": 1, "scale_diag": 1},
        _sample_diag,
        _log_density_diag,
        support=real_vector,
        event_shape=_event_shape("multivariate_normal_diag", "scale_diag", 1),
        reparam="explicit",
        weak_derivatives=NORMAL_VECTOR,
        noise=standard_normal,
        tfp=tfp.distributions.MultivariateNormalDiag,
    )
)
"""`multivariate_normal_diag(loc, scale_diag)`: a vector of independent normals with standard
deviations `scale_diag`."""

# ---------------------------------------------------------------------------------- triangular


def _sample_tri(key: Array, shape: tuple[int, ...], loc: Array, scale_tril: Array) -> Array:
    return loc + multiply(jnp.tril(scale_tril), _noise(key, shape, loc, scale_tril))


def _log_density_tri(value: Array, loc: Array, scale_tril: Array) -> Array:
    z = solve_lower(scale_tril, value - loc)
    constant = 0.5 * math.log(2 * math.pi) * loc.shape[-1]
    return -0.5 * jnp.sum(z * z, -1) - log_diagonal(scale_tril) - constant


multivariate_normal_tri = make_distribution(
    Family(
        "multivariate_normal_tri",
        {"loc": 1, "scale_tril": 2},
        _sample_tri,
        _log_density_tri,
        support=real_vector,
        event_shape=_event_shape("multivariate_normal_tri", "scale_tril", 2),
        reparam="explicit",
        noise=standard_normal,
        tfp=tfp.distributions.MultivariateNormalTriL,
    )
)
"""`multivariate_normal_tri(loc, scale_tril)`: a normal vector with covariance `scale_tril @
scale_tril.T`; what stands above the diagonal is ignored."""

# ---------------------------------------------------------------------------------- covariance


def _sample_full(key: Array, shape: tuple[int, ...], loc: Array, covariance_matrix: Array) -> Array:
    return _sample_tri(key, shape, loc, jnp.linalg.cholesky(covariance_matrix))


def _log_density_full(value: Array, loc: Array, covariance_matrix: Array) -> Array:
    return _log_density_tri(value, loc, jnp.linalg.cholesky(covariance_matrix))


multivariate_normal = make_distribution(
    Family(
        "multivariate_normal",
        {"loc": 1, "covariance_matrix": 2},
        _sample_full,
        _log_density_full,
        support=real_vector,
        event_shape=_event_shape("multivariate_normal", "covariance_matrix", 2),
        reparam="explicit",
        noise=standard_normal,
        tfp=tfp.distributions.MultivariateNormalFullCovariance,
    )
)
"""`multivariate_normal(loc, covariance_matrix)`: a normal vector; the covariance is symmetric and
positive definite."""
