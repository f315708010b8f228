"""Normals pushed onto a constrained support: the factors of mean-field guides."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ppl.lang.distribution import Distribution, make_distribution
from ppl.lang.distributions.normal import log_density_of_noise
from ppl.lang.family import Family
from ppl.lang.supports import Support


def pushforward_normal(support: Support, event_shape: tuple[int, ...] = ()) -> Distribution:
    """The law of `support.constrain(loc + scale * noise)` with standard normal noise.

    Args:
        support: a continuous support.
        event_shape: shape of one element of the support (`()` for numbers).

    Returns:
        a distribution with parameters `loc` and `scale` in the shape of the unconstrained
        element (for a simplex of 3: `[2]`).
    """
    # Made anew at each use: it holds constants, and those of one trace are no use to another.
    bijector = support.bijector
    inner = tuple(bijector().inverse_event_shape(event_shape)) if event_shape else ()
    rank = len(inner)

    def sample(key: Array, shape: tuple[int, ...], loc: Array, scale: Array) -> Array:
        return sample_with_log_density(key, shape, loc, scale)[0]

    def sample_with_log_density(
        key: Array, shape: tuple[int, ...], loc: Array, scale: Array
    ) -> tuple[Array, Array]:
        noise = jax.random.normal(key, (*shape, *inner), jnp.result_type(loc, scale))
        x = loc + scale * noise
        return bijector().forward(x), log_density_at(x, noise, scale)

    def log_density(value: Array, loc: Array, scale: Array) -> Array:
        x = bijector().inverse(value)
        return log_density_at(x, (x - loc) / scale, scale)

    def log_density_at(x: Array, noise: Array, scale: Array) -> Array:
        each = log_density_of_noise(noise, scale)
        lanes = jnp.sum(each, tuple(range(-rank, 0))) if rank else each
        return lanes - bijector().forward_log_det_jacobian(x, event_ndims=rank)

    def shape_of(shapes: dict[str, Any]) -> tuple[int, ...]:
        return event_shape

    return make_distribution(
        Family(
            f"normal on {support.name}",
            {"loc": rank, "scale": rank},
            sample,
            log_density,
            sample_with_log_density=sample_with_log_density,
            support=support,
            event_shape=shape_of,
            reparam="explicit",
        )
    )
