"""Weak derivatives: the derivative of an expectation as differences of the function's values.

For a parameter θ of a distribution, `WeakDerivative(values, weights, actual)` promises that, for
every bounded function h and a draw x,

    d E[h(x)] / dθ = E[ sum over i of  weights[i] h(values[i])  +  actual h(x) ].

The values may be made from x (which keeps the differences small) and from fresh noise. A family
declares them in `Family.weak_derivatives`, a function `(key, x, **params)` for each parameter.

Sources: Pflug (1996), "Optimization of stochastic models"; Heidergott and Vázquez-Abad (2008),
"Measure-valued differentiation for Markov chains"; Mohamed et al. (arXiv 1906.10652), table 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array


class WeakDerivative(NamedTuple):
    """Values and weights of a weak derivative.

    Attributes:
        values: alternate values, each `[*lanes, *event]`.
        weights: as many, each `[*lanes]` (for a parameter that is a vector: `[*lanes, size]`).
        actual: the weight of the value drawn.
    """

    values: tuple[Array, ...]
    weights: tuple[Array, ...]
    actual: Array | float = 0.0


WeakRule = Callable[..., WeakDerivative]
"""`rule(key, value, **params)`."""


def chained(rule: WeakRule, parameter: str, other: str, link: Callable) -> WeakRule:
    """The rule of `other`, where `parameter = link(other)`, from that of `parameter`."""

    def chain(key: jax.Array, value: Array, **params: Array) -> WeakDerivative:
        at = params.pop(other)
        inner, slope = jax.jvp(link, (at,), (jnp.ones_like(at),))
        found = rule(key, value, **params, **{parameter: inner})
        weights = tuple(w * slope for w in found.weights)
        return WeakDerivative(found.values, weights, found.actual * slope)

    return chain


def log_fall(key: jax.Array, value: Array) -> Array:
    """Noise by which a log-density falls: exponential with mean 1, of the value's shape."""
    return jax.random.exponential(key, value.shape, value.dtype)


def location_scale(mode: float, deeper: Callable[[Array, Array], Array]) -> dict[str, WeakRule]:
    """Rules for `loc` and `scale` of a density that is symmetric and has one mode.

    The derivative of the density p of `loc + scale * z` in `loc` is `-p'(z) / scale`: positive on
    the right, negative on the left. That in `scale` is `-(p(z) + z p'(z)) / scale`, and z
    distributed as `-z p'(z)` is the end of the level set from which a draw of p is uniform
    (Khinchin's theorem); given the draw, the density there is p times a uniform number.

    Args:
        mode: the standard density at 0.
        deeper: `(z, fall)`: where, beyond `z >= 0`, the log of the standard density has fallen
            by `fall`.
    """

    def of_loc(key: jax.Array, value: Array, *, loc: Array, scale: Array) -> WeakDerivative:
        z = scale * deeper(jnp.zeros_like(value), log_fall(key, value))
        weight = mode / scale
        return WeakDerivative((loc + z, loc - z), (weight, -weight))

    def of_scale(key: jax.Array, value: Array, *, loc: Array, scale: Array) -> WeakDerivative:
        z = (value - loc) / scale
        far = jnp.sign(z) * deeper(jnp.abs(z), log_fall(key, value))
        return WeakDerivative((loc + scale * far,), (1 / scale,), -1 / scale)

    return {"loc": of_loc, "scale": of_scale}


NORMAL = location_scale(
    1 / math.sqrt(2 * math.pi), lambda z, fall: jnp.sqrt(jnp.square(z) + 2 * fall)
)
"""Of the normal distribution: Rayleigh variables for `loc`, a Maxwell one for `scale`."""
