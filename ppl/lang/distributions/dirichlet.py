"""The Dirichlet distribution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._gamma import log_gamma_draw
from ppl.lang.distributions._safe import only_where, tiny, xlogy
from ppl.lang.distributions._weak import DIRICHLET
from ppl.lang.family import Family
from ppl.lang.supports import simplex


def _sample(key: Array, shape: tuple[int, ...], concentration: Array) -> Array:
    full = (*shape, concentration.shape[-1])
    draw = jax.nn.softmax(log_gamma_draw(key, full, concentration), axis=-1)
    return jnp.maximum(draw, tiny(draw.dtype))  # the density at 0 may be infinite


def _log_density(value: Array, concentration: Array) -> Array:
    inside = simplex.check(value)
    x = jnp.where(inside[..., None], value, 1 / value.shape[-1])
    log_density = (
        jnp.sum(xlogy(concentration - 1, x), -1)
        + gammaln(jnp.sum(concentration, -1))
        - jnp.sum(gammaln(concentration), -1)
    )
    return only_where(inside, log_density)


dirichlet = make_distribution(
    Family(
        "dirichlet",
        {"concentration": 1},
        _sample,
        _log_density,
        support=simplex,
        event_shape=lambda shapes: shapes["concentration"][-1:],
        reparam="implicit",
        weak_derivatives=DIRICHLET,
        tfp=tfp.distributions.Dirichlet,
    )
)
"""`dirichlet(concentration)`: probability vectors with mean `concentration / sum(concentration)`.

The density is with respect to all entries but the last."""
