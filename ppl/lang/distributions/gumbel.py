"""The Gumbel distribution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.family import Family


def _sample(key: Array, shape: tuple[int, ...], loc: Array, scale: Array) -> Array:
    return loc + scale * jax.random.gumbel(key, shape, jnp.result_type(loc, scale))


def _log_density(value: Array, loc: Array, scale: Array) -> Array:
    z = (value - loc) / scale
    return -z - jnp.exp(-z) - jnp.log(scale)


gumbel = make_distribution(
    Family(
        "gumbel",
        {"loc": 0, "scale": 0},
        _sample,
        _log_density,
        reparam="explicit",
        tfp=tfp.distributions.Gumbel,
    )
)
"""`gumbel(loc, scale)`: extreme values (maxima) on the real line, with mode `loc`."""
