"""Student's t distribution."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._gamma import log_gamma_draw
from ppl.lang.distributions._weak import STUDENT_T
from ppl.lang.family import Family


def _sample(key: Array, shape: tuple[int, ...], df: Array, loc: Array, scale: Array) -> Array:
    normal_key, gamma_key = jax.random.split(key)
    noise = jax.random.normal(normal_key, shape, jnp.result_type(df, loc, scale))
    log_precision = log_gamma_draw(gamma_key, shape, (df / 2).astype(noise.dtype)) - jnp.log(df / 2)
    return loc + scale * noise * jnp.exp(-0.5 * log_precision)


def _log_density(value: Array, df: Array, loc: Array, scale: Array) -> Array:
    z = (value - loc) / scale
    return (
        _log_gamma_ratio(df / 2)
        - 0.5 * jnp.log(df * math.pi)
        - jnp.log(scale)
        - (df + 1) / 2 * jnp.log1p(z * z / df)
    )


def _log_gamma_ratio(y: Array) -> Array:
    """`log Gamma(y + 1/2) - log Gamma(y)`, which cancels in float32 for large `y`."""
    big = jnp.where(y > 8, y, 8)
    small = jnp.where(y > 8, 1, y)
    series = (1 / 8 - (1 / 192 - (1 / 640 - 17 / 14336 / big**2) / big**2) / big**2) / big
    return jnp.where(y > 8, 0.5 * jnp.log(big) - series, gammaln(small + 0.5) - gammaln(small))


student_t = make_distribution(
    Family(
        "student_t",
        {"df": 0, "loc": 0, "scale": 0},
        _sample,
        _log_density,
        reparam="implicit",
        defaults={"loc": 0.0, "scale": 1.0},
        weak_derivatives=STUDENT_T,
        tfp=tfp.distributions.StudentT,
    )
)
"""`student_t(df, loc=0, scale=1)`: heavy tails on the real line; `df` > 0 degrees of freedom."""
