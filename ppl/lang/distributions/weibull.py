"""The Weibull distribution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._safe import only_where, tiny, xlogy
from ppl.lang.distributions._weak import WEIBULL
from ppl.lang.family import Family
from ppl.lang.supports import nonnegative


def _sample(key: Array, shape: tuple[int, ...], concentration: Array, scale: Array) -> Array:
    dtype = jnp.result_type(concentration, scale)
    # One exponential draw in 2**23 is 0, where the density may be infinite.
    noise = jnp.maximum(jax.random.exponential(key, shape, dtype), tiny(dtype))
    return scale * noise ** (1 / concentration)


def _log_density(value: Array, concentration: Array, scale: Array) -> Array:
    inside = (value >= 0) & (value < jnp.inf)
    z = jnp.where(inside, value, 1) / scale
    log_density = (
        jnp.log(concentration / scale) + xlogy(concentration - 1, z) - jnp.power(z, concentration)
    )
    return only_where(inside, log_density)


weibull = make_distribution(
    Family(
        "weibull",
        {"concentration": 0, "scale": 0},
        _sample,
        _log_density,
        support=nonnegative,
        reparam="explicit",
        weak_derivatives=WEIBULL,
        tfp=tfp.distributions.Weibull,
    )
)
"""`weibull(concentration, scale)`: survival times on [0, inf); `(value / scale)**concentration`
is exponential(1)."""
