"""The log-normal distribution."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._safe import only_where
from ppl.lang.distributions._weak import LOG_NORMAL
from ppl.lang.distributions.normal import log_density_of_noise
from ppl.lang.family import Family
from ppl.lang.standard_noise import standard_normal
from ppl.lang.supports import positive


def _sample(key: Array, shape: tuple[int, ...], loc: Array, scale: Array) -> Array:
    return _sample_with_log_density(key, shape, loc, scale)[0]


def _sample_with_log_density(
    key: Array, shape: tuple[int, ...], loc: Array, scale: Array
) -> tuple[Array, Array]:
    noise = standard_normal(key, shape, jnp.result_type(loc, scale))
    log_value = loc + scale * noise
    return jnp.exp(log_value), log_density_of_noise(noise, scale) - log_value


def _log_density(value: Array, loc: Array, scale: Array) -> Array:
    inside = (value > 0) & (value < jnp.inf)
    log_value = jnp.log(jnp.where(inside, value, 1))
    log_density = log_density_of_noise((log_value - loc) / scale, scale)
    return only_where(inside, log_density - log_value)


log_normal = make_distribution(
    Family(
        "log_normal",
        {"loc": 0, "scale": 0},
        _sample,
        _log_density,
        sample_with_log_density=_sample_with_log_density,
        support=positive,
        reparam="explicit",
        weak_derivatives=LOG_NORMAL,
        noise=standard_normal,
        tfp=tfp.distributions.LogNormal,
    )
)
"""`log_normal(loc, scale)`: positive numbers whose logarithm is normal(loc, scale)."""
