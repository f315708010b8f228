"""The normal distribution."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._weak import NORMAL
from ppl.lang.family import Family
from ppl.lang.standard_noise import standard_normal


def _sample(key: Array, shape: tuple[int, ...], loc: Array, scale: Array) -> Array:
    return _sample_with_log_density(key, shape, loc, scale)[0]


def _sample_with_log_density(
    key: Array, shape: tuple[int, ...], loc: Array, scale: Array
) -> tuple[Array, Array]:
    noise = standard_normal(key, shape, jnp.result_type(loc, scale))
    return loc + scale * noise, log_density_of_noise(noise, scale)


def _log_density(value: Array, loc: Array, scale: Array) -> Array:
    return log_density_of_noise((value - loc) / scale, scale)


def log_density_of_noise(noise: Array, scale: Array) -> Array:
    """The log-density of `loc + scale * noise`."""
    return -0.5 * jnp.square(noise) - jnp.log(scale) - 0.5 * math.log(2 * math.pi)


normal = make_distribution(
    Family(
        "normal",
        {"loc": 0, "scale": 0},
        _sample,
        _log_density,
        sample_with_log_density=_sample_with_log_density,
        reparam="explicit",
        weak_derivatives=NORMAL,
        noise=standard_normal,
        tfp=tfp.distributions.Normal,
    )
)
"""`normal(loc, scale)`: Gaussian on the real line; `scale` > 0 is a standard deviation."""
