"""The Zipf distribution."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._safe import as_float, is_count, only_where
from ppl.lang.distributions._tfp import tfp_sampler
from ppl.lang.family import Family
from ppl.lang.supports import integer_interval


def _log_density(value: Array, power: Array) -> Array:
    inside = is_count(value) & (value >= 1) & (value < jnp.inf)
    k = jnp.where(inside, as_float(value, power), 1)
    return only_where(inside, -power * jnp.log(k) - _log_zeta(power))


def _log_zeta(s: Array) -> Array:
    """The log of Riemann's zeta function at `s > 1`, by Euler-Maclaurin summation.

    `jax.scipy.special.zeta` has no derivative in `s`.
    """
    n = 10
    terms = jnp.exp(-s[..., None] * jnp.asarray(np.log(np.arange(2, n)), s.dtype))
    rest = jnp.exp(-s * math.log(n)) * (
        n / (s - 1) + 0.5 + s / (12 * n) * (1 - (s + 1) * (s + 2) / (60 * n**2))
    )
    return jnp.log1p(jnp.sum(terms, -1) + rest)


zipf = make_distribution(
    Family(
        "zipf",
        {"power": 0},
        tfp_sampler(tfp.distributions.Zipf, {"power": 0}),
        _log_density,
        support=integer_interval(1, np.inf),
        kind="int",
        tfp=tfp.distributions.Zipf,
    )
)
"""`zipf(power)`: whole numbers k = 1, 2, ... with probability proportional to `k**-power`;
`power` > 1."""
