"""The Laplace distribution."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._weak import LAPLACE
from ppl.lang.family import Family
from ppl.lang.standard_noise import standard_laplace


def _sample(key: Array, shape: tuple[int, ...], loc: Array, scale: Array) -> Array:
    return loc + scale * standard_laplace(key, shape, jnp.result_type(loc, scale))


def _log_density(value: Array, loc: Array, scale: Array) -> Array:
    z = (value - loc) / scale
    # max(z, -z): unlike that of abs, its derivative at the peak is 0.
    return -jnp.maximum(z, -z) - jnp.log(scale) - math.log(2)


laplace = make_distribution(
    Family(
        "laplace",
        {"loc": 0, "scale": 0},
        _sample,
        _log_density,
        reparam="explicit",
        weak_derivatives=LAPLACE,
        noise=standard_laplace,
        tfp=tfp.distributions.Laplace,
    )
)
"""`laplace(loc, scale)`: double-exponential on the real line around its median `loc`;
`scale` > 0 is the mean distance from it."""
