"""The exponential distribution."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._safe import only_where
from ppl.lang.distributions._weak import EXPONENTIAL
from ppl.lang.family import Family
from ppl.lang.standard_noise import standard_exponential
from ppl.lang.supports import nonnegative


def _sample(key: Array, shape: tuple[int, ...], rate: Array) -> Array:
    return standard_exponential(key, shape, rate.dtype) / rate


def _log_density(value: Array, rate: Array) -> Array:
    return only_where(value >= 0, jnp.log(rate) - rate * value)


exponential = make_distribution(
    Family(
        "exponential",
        {"rate": 0},
        _sample,
        _log_density,
        support=nonnegative,
        reparam="explicit",
        weak_derivatives=EXPONENTIAL,
        noise=standard_exponential,
        tfp=tfp.distributions.Exponential,
    )
)
"""`exponential(rate)`: waiting times on [0, inf) with mean 1 / `rate`."""
