"""The Cauchy and half-Cauchy distributions."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._safe import only_where
from ppl.lang.distributions._weak import CAUCHY, HALF_CAUCHY
from ppl.lang.family import Family
from ppl.lang.standard_noise import standard_cauchy
from ppl.lang.supports import greater_than


def _sample(key: Array, shape: tuple[int, ...], loc: Array, scale: Array) -> Array:
    return loc + scale * standard_cauchy(key, shape, jnp.result_type(loc, scale))


def _log_density(value: Array, loc: Array, scale: Array) -> Array:
    z = (value - loc) / scale
    return -jnp.log1p(z * z) - jnp.log(scale) - math.log(math.pi)


cauchy = make_distribution(
    Family(
        "cauchy",
        {"loc": 0, "scale": 0},
        _sample,
        _log_density,
        reparam="explicit",
        weak_derivatives=CAUCHY,
        noise=standard_cauchy,
        tfp=tfp.distributions.Cauchy,
    )
)
"""`cauchy(loc, scale)`: heavy tails on the real line (no mean); half of the probability lies
within `scale` > 0 of the median `loc`."""


def _half_sample(key: Array, shape: tuple[int, ...], loc: Array, scale: Array) -> Array:
    return loc + scale * jnp.abs(standard_cauchy(key, shape, jnp.result_type(loc, scale)))


def _half_log_density(value: Array, loc: Array, scale: Array) -> Array:
    return only_where(value >= loc, math.log(2) + _log_density(value, loc, scale))


half_cauchy = make_distribution(
    Family(
        "half_cauchy",
        {"loc": 0, "scale": 0},
        _half_sample,
        _half_log_density,
        support=lambda loc, scale: greater_than(loc),
        reparam="explicit",
        weak_derivatives=HALF_CAUCHY,
        noise=standard_cauchy,
        tfp=tfp.distributions.HalfCauchy,
    )
)
"""`half_cauchy(loc, scale)`: the upper half of cauchy(loc, scale), on [loc, inf)."""
