"""The logistic distribution."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._safe import softplus
from ppl.lang.distributions._weak import LOGISTIC
from ppl.lang.family import Family
from ppl.lang.standard_noise import standard_logistic


def _sample(key: Array, shape: tuple[int, ...], loc: Array, scale: Array) -> Array:
    return loc + scale * standard_logistic(key, shape, jnp.result_type(loc, scale))


def _log_density(value: Array, loc: Array, scale: Array) -> Array:
    z = (value - loc) / scale
    return z - 2 * softplus(z) - jnp.log(scale)


logistic = make_distribution(
    Family(
        "logistic",
        {"loc": 0, "scale": 0},
        _sample,
        _log_density,
        reparam="explicit",
        weak_derivatives=LOGISTIC,
        noise=standard_logistic,
        tfp=tfp.distributions.Logistic,
    )
)
"""`logistic(loc, scale)`: on the real line; its CDF is `sigmoid((value - loc) / scale)`."""
