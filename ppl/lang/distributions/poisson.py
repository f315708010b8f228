"""The Poisson distribution."""

from __future__ import annotations

import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._counts import poisson_draw
from ppl.lang.distributions._safe import (
    Alternative,
    as_float,
    count_log,
    is_count,
    only_if_possible,
)
from ppl.lang.distributions._weak import POISSON, POISSON_SHIFTS
from ppl.lang.family import Family
from ppl.lang.supports import nonnegative_integer


def _sample(
    key: Array, shape: tuple[int, ...], rate: Alternative = None, log_rate: Alternative = None
) -> Array:
    return poisson_draw(key, shape, jnp.exp(log_rate) if rate is None else rate)


def _log_density(value: Array, rate: Alternative = None, log_rate: Alternative = None) -> Array:
    inside = is_count(value) & (value < jnp.inf)
    if rate is not None:
        k = jnp.where(inside, as_float(value, rate), 0)
        log_density = count_log(k, rate) - rate - gammaln(k + 1)
    else:
        k = jnp.where(inside, as_float(value, log_rate), 0)
        log_density = jnp.where(k == 0, 0, k * log_rate) - jnp.exp(log_rate) - gammaln(k + 1)
    return only_if_possible(inside, log_density)


poisson = make_distribution(
    Family(
        "poisson",
        {"rate": 0, "log_rate": 0},
        _sample,
        _log_density,
        support=nonnegative_integer,
        kind="int",
        alternatives=frozenset({"rate", "log_rate"}),
        weak_derivatives=POISSON,
        shifts=POISSON_SHIFTS,
        tfp=tfp.distributions.Poisson,
    )
)
"""`poisson(rate)` or `poisson(log_rate=...)`: counts with mean `rate` >= 0."""
