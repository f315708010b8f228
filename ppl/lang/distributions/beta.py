"""The beta distribution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._gamma import log_gamma_draw
from ppl.lang.distributions._safe import log_beta, only_where, tiny, xlog1py, xlogy
from ppl.lang.distributions._weak import BETA
from ppl.lang.family import Family
from ppl.lang.supports import unit_interval


def _sample(
    key: Array, shape: tuple[int, ...], concentration1: Array, concentration0: Array
) -> Array:
    dtype = jnp.result_type(concentration1, concentration0)
    both = jnp.stack(jnp.broadcast_arrays(concentration1, concentration0)).astype(dtype)
    both = both.reshape(2, *(1,) * (len(shape) + 1 - both.ndim), *both.shape[1:])
    log_draws = log_gamma_draw(key, (2, *shape), both)
    log_odds = log_draws[0] - log_draws[1]
    # The density at 0 and 1 may be infinite, so rounding must not end there.
    return jnp.clip(jax.nn.sigmoid(log_odds), tiny(dtype), 1 - jnp.finfo(dtype).epsneg)


def _log_density(value: Array, concentration1: Array, concentration0: Array) -> Array:
    inside = (value >= 0) & (value <= 1)
    x = jnp.where(inside, value, 0.5)
    log_density = (
        xlogy(concentration1 - 1, x)
        + xlog1py(concentration0 - 1, -x)
        - log_beta(concentration1, concentration0)
    )
    return only_where(inside, log_density)


beta = make_distribution(
    Family(
        "beta",
        {"concentration1": 0, "concentration0": 0},
        _sample,
        _log_density,
        support=unit_interval,
        reparam="implicit",
        weak_derivatives=BETA,
        tfp=tfp.distributions.Beta,
    )
)
"""`beta(concentration1, concentration0)`: numbers in [0, 1] with mean `concentration1 /
(concentration1 + concentration0)`.

Draws that would round to 0 or 1 are the closest numbers inside, with gradient 0."""
