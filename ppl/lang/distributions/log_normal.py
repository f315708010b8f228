"""The log-normal distribution."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._safe import only_where
from ppl.lang.family import Family
from ppl.lang.supports import positive


def _sample(key: Array, shape: tuple[int, ...], loc: Array, scale: Array) -> Array:
    noise = jax.random.normal(key, shape, jnp.result_type(loc, scale))
    return jnp.exp(loc + scale * noise)


def _log_density(value: Array, loc: Array, scale: Array) -> Array:
    inside = (value > 0) & (value < jnp.inf)
    log_value = jnp.log(jnp.where(inside, value, 1))
    z = (log_value - loc) / scale
    log_density = -0.5 * z * z - log_value - jnp.log(scale) - 0.5 * math.log(2 * math.pi)
    return only_where(inside, log_density)


log_normal = make_distribution(
    Family(
        "log_normal",
        {"loc": 0, "scale": 0},
        _sample,
        _log_density,
        support=positive,
        reparam="explicit",
        tfp=tfp.distributions.LogNormal,
    )
)
"""`log_normal(loc, scale)`: positive numbers whose logarithm is normal(loc, scale)."""
