"""What the distributions over counts share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ppl import _compat
from ppl.lang.distributions._safe import Alternative, count_log, softplus_both


def bernoulli_terms(ones: Array, zeros: Array, logits: Alternative, probs: Alternative) -> Array:
    """`ones * log p + zeros * log(1 - p)`, with `0 log 0 = 0`."""
    if probs is not None:
        return count_log(ones, probs) + count_log(zeros, 1 - probs)
    # Both terms have one sign: nothing cancels. 0 * inf stands for `0 log 0`.
    of_one, of_zero = softplus_both(logits)
    return -jnp.where(ones == 0, 0, ones * of_one) - jnp.where(zeros == 0, 0, zeros * of_zero)


def poisson_draw(key: Array, shape: tuple[int, ...], rate: Array) -> Array:
    """A Poisson draw with any kind of key (`jax.random.poisson` takes threefry keys only)."""
    if jax.random.key_impl(key) != "threefry2x32":
        words = jax.random.bits(key, (2,), jnp.uint32)
        key = jax.random.wrap_key_data(words, impl="threefry2x32")
    return jax.random.poisson(key, rate, shape, jnp.int32)


def to_int(x: Array) -> Array:
    """A whole number as int32, at most the largest that both formats have."""
    return jnp.minimum(x, 2147483520.0).astype(jnp.int32)


def largest(count: Any) -> int | None:
    """The largest entry of a number of trials, `None` if it is not known before the run."""
    if isinstance(count, jax.ShapeDtypeStruct) or not _compat.is_concrete(count):
        return None
    return int(np.max(count))
