"""The point mass."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._safe import only_where
from ppl.lang.family import Family
from ppl.lang.supports import Support, interval


def _sample(key: Array, shape: tuple[int, ...], loc: Array) -> Array:
    return jnp.broadcast_to(loc, shape)


def _log_density(value: Array, loc: Array) -> Array:
    return only_where(value == loc, jnp.zeros_like(loc))


def _point(loc: ArrayLike) -> Support:
    return Support(
        "point", 0, False, lambda x: x == loc, bounds=interval(loc, loc).bounds, point=lambda _: loc
    )


delta = make_distribution(
    Family(
        "delta",
        {"loc": 0},
        _sample,
        _log_density,
        support=_point,
        reparam="explicit",
        tfp=tfp.distributions.Deterministic,
    )
)
"""`delta(loc)`: always `loc`, with log-density 0 there and -inf elsewhere. As a guide it makes a
point estimate."""
