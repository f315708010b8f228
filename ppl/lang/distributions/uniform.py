"""The uniform distribution."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._safe import only_where
from ppl.lang.distributions._weak import UNIFORM
from ppl.lang.family import Family
from ppl.lang.standard_noise import standard_uniform
from ppl.lang.supports import interval


def _sample(key: Array, shape: tuple[int, ...], low: Array, high: Array) -> Array:
    return low + (high - low) * standard_uniform(key, shape, jnp.result_type(low, high))


def _log_density(value: Array, low: Array, high: Array) -> Array:
    return only_where((low <= value) & (value <= high), -jnp.log(high - low))


uniform = make_distribution(
    Family(
        "uniform",
        {"low": 0, "high": 0},
        _sample,
        _log_density,
        support=lambda low, high: interval(low, high),
        reparam="explicit",
        defaults={"low": 0.0, "high": 1.0},
        weak_derivatives=UNIFORM,
        noise=standard_uniform,
        tfp=tfp.distributions.Uniform,
    )
)
"""`uniform(low=0, high=1)`: constant density on [low, high]."""
