"""The half-normal distribution."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._safe import only_where
from ppl.lang.distributions._weak import HALF_NORMAL
from ppl.lang.family import Family
from ppl.lang.standard_noise import standard_normal
from ppl.lang.supports import nonnegative


def _sample(key: Array, shape: tuple[int, ...], scale: Array) -> Array:
    return scale * jnp.abs(standard_normal(key, shape, scale.dtype))


def _log_density(value: Array, scale: Array) -> Array:
    z = value / scale
    return only_where(value >= 0, -0.5 * z * z - jnp.log(scale) + 0.5 * math.log(2 / math.pi))


half_normal = make_distribution(
    Family(
        "half_normal",
        {"scale": 0},
        _sample,
        _log_density,
        support=nonnegative,
        reparam="explicit",
        weak_derivatives=HALF_NORMAL,
        noise=standard_normal,
        tfp=tfp.distributions.HalfNormal,
    )
)
"""`half_normal(scale)`: the absolute value of normal(0, scale), on [0, inf)."""
