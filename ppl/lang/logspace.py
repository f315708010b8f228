"""Sums of numbers given by their logarithms."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


def log_sum_exp(x: Array, axis: int | tuple[int, ...] | None = -1) -> Array:
    """log of the sum of exp(x); where all terms are -inf it is -inf, with the derivative 0."""
    most = jnp.max(x, axis, keepdims=True)
    shift = lax.stop_gradient(jnp.where(jnp.isfinite(most), most, 0))
    total = jnp.sum(jnp.exp(x - shift), axis)
    none = total == 0
    # Without the inner `where` the derivative there would be 0 / 0.
    log_total = jnp.log(jnp.where(none, 1, total)) + jnp.squeeze(shift, axis)
    return jnp.where(none, -jnp.inf, log_total)


def log_mean_exp(x: Array) -> Array:
    """log of the mean of exp(x) over the last axis, as `log_sum_exp`.

    >>> round(float(log_mean_exp(jnp.log(jnp.array([1.0, 3.0])))), 4)  # log 2
    0.6931
    """
    return log_sum_exp(x) - jnp.log(x.shape[-1])
