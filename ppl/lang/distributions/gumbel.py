"""The Gumbel distribution."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.family import Family
from ppl.lang.standard_noise import standard_gumbel


def _sample(key: Array, shape: tuple[int, ...], loc: Array, scale: Array) -> Array:
    return loc + scale * standard_gumbel(key, shape, jnp.result_type(loc, scale))


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
        noise=standard_gumbel,
        tfp=tfp.distributions.Gumbel,
    )
)
"""`gumbel(loc, scale)`: extreme values (maxima) on the real line, with mode `loc`."""
