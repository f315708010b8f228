"""Weak derivatives: the derivative of an expectation as differences of the function's values.

For a parameter θ of a distribution, `WeakDerivative(values, weights, actual)` promises that, for
every bounded function h and a draw x,

    d E[h(x)] / dθ = E[ sum over i of  weights[i] h(values[i])  +  actual h(x) ].

The values may be made from x (which keeps the differences small) and from fresh noise. A family
declares them in `Family.weak_derivatives`, a rule for each parameter; the rules here are the
building blocks, and `ppl.lang.distributions._weak` has those of our distributions.

Sources: Pflug (1996), "Optimization of stochastic models"; Heidergott and Vázquez-Abad (2008),
"Measure-valued differentiation for Markov chains"; Mohamed et al. (arXiv 1906.10652), table 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array


class WeakDerivative(NamedTuple):
    """Values and weights of a weak derivative.

    Attributes:
        values: alternate values, each `[*lanes, *event]`.
        weights: as many, each `[*lanes]` (for a parameter that is a vector: `[*lanes, size]`).
        actual: the weight of the value drawn, likewise.
    """

    values: tuple[Array, ...]
    weights: tuple[Array, ...]
    actual: Array | float = 0.0


WeakRule = Callable[..., WeakDerivative]
"""`rule(key, value, **params)`."""


def moved_to(alternate: Array, weight: Array) -> WeakDerivative:
    """`weight * (h(alternate) - h(x))`."""
    return WeakDerivative((alternate,), (weight,), -weight)


def chained(rule: WeakRule, parameter: str, other: str, link: Callable[[Array], Array]) -> WeakRule:
    """The rule in `other`, where `parameter = link(other)`, from that in `parameter`."""

    def chain(key: jax.Array, value: Array, **params: Array) -> WeakDerivative:
        at = params.pop(other)
        inner, slope = jax.jvp(link, (at,), (jnp.ones_like(at),))
        found = rule(key, value, **params, **{parameter: inner})
        weights = tuple(w * slope for w in found.weights)
        return WeakDerivative(found.values, weights, found.actual * slope)

    return chain


def transformed(
    rule: WeakRule, forward: Callable[[Array], Array], inverse: Callable[[Array], Array]
) -> WeakRule:
    """The rule for `forward(x)` from that for x."""

    def transform(key: jax.Array, value: Array, **params: Array) -> WeakDerivative:
        found = rule(key, inverse(value), **params)
        return found._replace(values=tuple(map(forward, found.values)))

    return transform


def per_component(rule: WeakRule) -> WeakRule:
    """The rule for a vector of independent components from that for one: each moves by itself."""

    def vector(key: jax.Array, value: Array, **params: Array) -> WeakDerivative:
        found, size = rule(key, value, **params), value.shape[-1]
        own = jnp.eye(size, dtype=bool)
        pairs = [(x, w, e) for x, w in zip(found.values, found.weights, strict=True) for e in own]
        return WeakDerivative(
            tuple(jnp.where(e, x, value) for x, _, e in pairs),
            tuple(jnp.where(e, w, 0) for _, w, e in pairs),
            found.actual,
        )

    return vector


def location_scale(
    mode: Callable[..., Any], deeper: Callable[..., Array], *, half: bool = False
) -> dict[str, WeakRule]:
    """Rules for `loc` and `scale` of a density that is symmetric and has one mode.

    The derivative of the density p of `loc + scale * z` in `loc` is `-p'(z) / scale`: positive on
    the right, negative on the left. That in `scale` is `-(p(z) + z p'(z)) / scale`, and z
    distributed as `-z p'(z)` is the end of the level set from which a draw of p is uniform
    (Khinchin's theorem); given the draw, the density there is p times a uniform number.

    Args:
        mode: `(**others)`: the standard density at 0.
        deeper: `(z, fall, **others)`: where, beyond `z >= 0`, the log of the standard density has
            fallen by `fall`.
        half: the density is that of the right half.
    """

    def fall(key: jax.Array, value: Array) -> Array:
        return jax.random.exponential(key, value.shape, value.dtype)

    def of_loc(key: jax.Array, value: Array, loc: Array, scale: Array, **others: Array):
        z = scale * deeper(jnp.zeros_like(value), fall(key, value), **others)
        weight = mode(**others) / scale
        return WeakDerivative((loc + z, loc + 0 * z if half else loc - z), (weight, -weight))

    def of_scale(key: jax.Array, value: Array, scale: Array, loc: Any = 0.0, **others: Array):
        z = (value - loc) / scale
        far = jnp.sign(z) * deeper(jnp.abs(z), fall(key, value), **others)
        return moved_to(loc + scale * far, 1 / scale)

    return {"loc": of_loc, "scale": of_scale}
