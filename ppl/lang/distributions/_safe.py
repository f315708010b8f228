"""Elementwise functions whose values and gradients are right where a probability is zero.

Two conventions, which every distribution here keeps:

* A value outside of the support has log-density -inf and gradient exactly 0.
* On the closed boundary of a continuous support the derivative is the limit from inside, which
  may be infinite (Beta(2, 3) at 0: log-density -inf, derivative +inf), but is never NaN.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

type Alternative = Any
"""A parameter: an `Array`, or `None` where an alternative to it is given."""


def safe_log(p: Array) -> Array:
    """`log p`; at `p <= 0` it is -inf with gradient 0.

    A state of probability zero must add exactly 0 to an expectation and to its gradient, and
    the gradient of a plain `log` there would turn the 0 into NaN.
    """
    inside = p > 0
    # lax, not jnp: this stands in the inner loop of enumeration, and jnp's wrappers double the
    # equations.
    log_p = lax.log(lax.select(inside, p, lax.full_like(p, 1)))
    return lax.select(inside, log_p, lax.full_like(p, -jnp.inf))


def count_log(count: Array, p: Array) -> Array:
    """`count * log p` for a probability or rate `p`, with `0 log 0 = 0`."""
    none = count == 0
    return jnp.where(none, 0, count * jnp.where(none, 0, safe_log(p)))


def xlogy(x: Array, y: Array) -> Array:
    """`x * log y` for `y >= 0`, with `0 log 0 = 0`; at `y = 0` the derivatives are the limits.

    Unlike `jax.scipy.special.xlogy`, the derivative in `y` is 0, not NaN, at (0, 0).
    """
    edge = (x == 0) & (y == 0)
    return x * jnp.log(jnp.where(edge, 1, y))


def xlog1py(x: Array, y: Array) -> Array:
    """`x * log(1 + y)` for `y >= -1`, with the conventions of `xlogy` at `y = -1`."""
    edge = (x == 0) & (y == -1)
    return x * jnp.log1p(jnp.where(edge, 0, y))


@jax.custom_jvp
def softplus(x: Array) -> Array:
    """`log(1 + exp x)`.

    The derivative is exactly 1/2 at 0 (differentiating the formula would give 0 or 1 there).
    With its gradient this is 1.4 to 2 times as fast as `jax.nn.softplus` on a CPU.
    """
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


softplus.defjvps(lambda dx, _, x: sigmoid(x) * dx)


@jax.custom_jvp
def sigmoid(x: Array) -> Array:
    """`1 / (1 + exp(-x))`, by the exponential that `softplus` has computed already."""
    small = jnp.exp(-jnp.abs(x))
    return jnp.where(x >= 0, 1, small) / (1 + small)


sigmoid.defjvps(lambda dx, p, x: p * (1 - p) * dx)


@jax.custom_jvp
def softplus_both(x: Array) -> tuple[Array, Array]:
    """`softplus(-x)` and `softplus(x)`: minus the log-probabilities of a one and of a zero."""
    rest = jnp.log1p(jnp.exp(-jnp.abs(x)))
    return jnp.maximum(-x, 0) + rest, jnp.maximum(x, 0) + rest


@softplus_both.defjvp
def _softplus_both_jvp(primals, tangents):
    slope = sigmoid(primals[0])
    return softplus_both(*primals), ((slope - 1) * tangents[0], slope * tangents[0])


def only_where(inside: Array, log_density: Array) -> Array:
    """The log-density inside of the support, -inf outside."""
    return jnp.where(inside, log_density, -jnp.inf)


def only_if_possible(inside: Array, log_probability: Array) -> Array:
    """`only_where` for a discrete value, which may also lie inside but have probability zero."""
    return only_where(inside & (log_probability != -jnp.inf), log_probability)


def is_count(value: Array) -> Array:
    """Whether a value is one of 0, 1, 2, ..."""
    if jnp.issubdtype(value.dtype, jnp.inexact):
        return (value >= 0) & (value == jnp.floor(value))
    return value >= 0


def as_float(value: Array, *like: Array) -> Array:
    """`value` in the dtype of the parameters `like`, or its own if that is a wider float."""
    dtype = jnp.result_type(*like)
    if jnp.issubdtype(value.dtype, jnp.inexact):
        dtype = jnp.promote_types(dtype, value.dtype)
    return value.astype(dtype)


def tiny(dtype: Any) -> Any:
    """The smallest normal number of a float dtype."""
    return jnp.finfo(dtype).tiny


@jax.jit  # traced once per shape, not once per choice
def log_beta(a: Array, b: Array) -> Array:
    """`log Gamma(a) + log Gamma(b) - log Gamma(a + b)`, to float precision for large arguments.

    Subtracting log-gammas cancels: in float32 it is 1e-3 off at a + b = 1,000.
    """
    a, b = jnp.broadcast_arrays(a, b)
    return tfp.math.lbeta(a, b)
