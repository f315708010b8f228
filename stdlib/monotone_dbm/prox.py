"""The activation of a monotone Boltzmann machine: the prox of entropy minus a quadratic.

    prox_a(x) = argmin over the simplex of 1/2 |x - z|^2 + a (sum z log z - 1/2 |z|^2),   0 < a <= 1

(section 4 of the paper). Its optimality conditions, with u = log z, are

    a u_j + (1 - a) e^{u_j} = x_j - a + nu,    sum_j e^{u_j} = 1,

solved by Halley's method in u inside of Newton's in nu. (The paper's closed form with Lambert's W
overflows for large x / a.) At a = 1 it is the softmax; as a goes to 0 it becomes the Euclidean
projection. Its Jacobian is diag(G) - G G^T / sum(G), G = z / (a + (1 - a) z).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

_NEWTON = 7
_HALLEY = 5
_HALLEY_BINARY = 4


def prox(x: Float[Array, "*nodes k"], step: ArrayLike) -> Float[Array, "*nodes k"]:
    """The minimiser, a point of the simplex for each node; see `log_prox`."""
    return jnp.exp(log_prox(x, step))


def log_prox(x: Float[Array, "*nodes k"], step: ArrayLike) -> Float[Array, "*nodes k"]:
    """The logarithm of the minimiser, which does not underflow where the minimiser does.

    Args:
        x: any reals, nodes of k >= 2 states each along the last axis.
        step: a in (0, 1]; checked if it is a number.

    Raises:
        ValueError: fewer than two states, or a step outside of (0, 1].

    >>> [round(float(p), 3) for p in prox(jnp.array([1.0, 0.0, -1.0]), 0.5)]
    [0.78, 0.19, 0.03]
    """
    if x.ndim == 0 or x.shape[-1] < 2:
        raise ValueError(f"prox: a node has at least two states, but x has shape {x.shape}")
    if isinstance(step, int | float) and not 0 < step <= 1:
        raise ValueError(f"prox: the step must be in (0, 1], not {step}")
    a = jnp.asarray(step, x.dtype)
    return _log_prox_binary(x, a) if x.shape[-1] == 2 else _log_prox(x, a)


@jax.custom_jvp
def _log_prox(x: Array, a: Array) -> Array:
    x = x - jnp.max(x, -1, keepdims=True)

    # There the largest z is 1: the sum is at least 1, and Newton's method comes down from there.
    def newton(_: Array, nu: Array) -> Array:
        z = jnp.exp(_log_z(x + nu, a))
        return nu - (jnp.sum(z, -1, keepdims=True) - 1) / jnp.sum(_gain(z, a), -1, keepdims=True)

    nu = lax.fori_loop(0, _NEWTON, newton, jnp.ones_like(x[..., :1]))
    return jax.nn.log_softmax(_log_z(x + nu, a))  # what is left of the sum is rounding


def _log_z(y: Array, a: Array) -> Array:
    """The u with a u + (1 - a) e^u = y - a, by Halley's method."""
    r = y - a
    u = jnp.where(r <= 0, r / a, jnp.minimum(r / a, jnp.log1p(r / jnp.maximum(1 - a, 1e-30))))

    def halley(_: Array, u: Array) -> Array:
        curvature = (1 - a) * jnp.exp(u)
        h, slope = a * u + curvature - r, a + curvature
        return u - 2 * h * slope / (2 * slope**2 - h * curvature)

    return lax.fori_loop(0, _HALLEY, halley, u)


@jax.custom_jvp
def _log_prox_binary(x: Array, a: Array) -> Array:
    """Two states: t = logit z_1 solves a t + (1 - a) tanh(t / 2) = x_1 - x_2."""
    r = jnp.abs(x[..., 0] - x[..., 1])
    t = r / (a + (1 - a) / 2)  # below the solution, as tanh(t / 2) <= t / 2
    t = jnp.maximum(t, (r - (1 - a)) / a)  # and so is this, as tanh <= 1

    def halley(_: Array, t: Array) -> Array:
        tanh = jnp.tanh(t / 2)
        sech2 = 1 - tanh**2
        h, slope = a * t + (1 - a) * tanh - r, a + (1 - a) / 2 * sech2
        curvature = -(1 - a) / 2 * tanh * sech2
        return t - 2 * h * slope / (2 * slope**2 - h * curvature)

    t = lax.fori_loop(0, _HALLEY_BINARY, halley, t)
    t = jnp.where(x[..., 0] < x[..., 1], -t, t)
    return jax.nn.log_sigmoid(jnp.stack([t, -t], -1))


def _gain(z: Array, a: Array) -> Array:
    return z / (a + (1 - a) * z)


def _jvp(primals: Any, tangents: Any, function: Any) -> tuple[Array, Array]:
    (x, a), (dx, da) = primals, tangents
    u = function(x, a)
    z = jnp.exp(u)
    gain = _gain(z, a)
    # Differentiating the conditions in a as well; a term that is the same for all states is nu's.
    moved = dx - (u - z) * da
    moved = moved - jnp.sum(gain * moved, -1, keepdims=True) / jnp.sum(gain, -1, keepdims=True)
    return u, moved / (a + (1 - a) * z)


_log_prox.defjvp(lambda p, t: _jvp(p, t, _log_prox))
_log_prox_binary.defjvp(lambda p, t: _jvp(p, t, _log_prox_binary))
