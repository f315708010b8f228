"""The von Mises distribution over angles."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax.scipy.special import i0e
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._safe import only_where
from ppl.lang.distributions._tfp import tfp_sampler
from ppl.lang.family import Family
from ppl.lang.supports import interval

_RANKS = {"loc": 0, "concentration": 0}
_draw = tfp_sampler(tfp.distributions.VonMises, _RANKS)


def _sample(key: Array, shape: tuple[int, ...], loc: Array, concentration: Array) -> Array:
    return jnp.clip(_draw(key, shape, loc=loc, concentration=concentration), -math.pi, math.pi)


def _log_density(value: Array, loc: Array, concentration: Array) -> Array:
    inside = jnp.abs(value) <= math.pi
    # cos - 1 without cancellation, for concentrations at which all angles are close to `loc`.
    below_peak = -2 * jnp.sin((value - loc) / 2) ** 2
    log_density = concentration * below_peak - math.log(2 * math.pi) - jnp.log(i0e(concentration))
    return only_where(inside, log_density)


von_mises = make_distribution(
    Family(
        "von_mises",
        _RANKS,
        _sample,
        _log_density,
        support=interval(-math.pi, math.pi),
        tfp=tfp.distributions.VonMises,
    )
)
"""`von_mises(loc, concentration)`: angles in [-pi, pi]; wrap data into this range.

It has no pathwise gradient: a draw that crosses pi jumps to -pi as `loc` grows, and what that adds
to the gradient of a function that is not 2 pi-periodic the path does not see (E[x] at `loc` = 2
would have gradient 1). For periodic functions, ask for TFP's:
`from_tfp(tfd.VonMises, reparam="implicit")`.
"""
