"""Bernoulli choices with values 0 and 1."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._counts import bernoulli_terms
from ppl.lang.distributions._safe import Alternative, only_where, safe_log, softplus
from ppl.lang.family import Family, Relaxation
from ppl.lang.standard_noise import standard_uniform
from ppl.lang.supports import integer_interval


def _sample(
    key: Array, shape: tuple[int, ...], logits: Alternative = None, probs: Alternative = None
) -> Array:
    p = jax.nn.sigmoid(logits) if probs is None else probs
    return (standard_uniform(key, shape, p.dtype) < p).astype(jnp.int32)


def choose(value: Array, if_one: Array, if_zero: Array) -> Array:
    """`jnp.where` for a boolean value, without its call: this is traced per enumerated choice."""
    return lax.select(*jnp.broadcast_arrays(value, if_one, if_zero))


def log_density(value: Array, logits: Alternative = None, probs: Alternative = None) -> Array:
    """Log-probability of a 0 or 1, `False` or `True`."""
    is_bool = value.dtype == bool
    one, zero = (value, ~value) if is_bool else (value == 1, value == 0)
    if probs is not None:
        out = safe_log(jnp.where(one, probs, 1 - probs))
        return out if is_bool else only_where(one | zero, out)
    # All that a value decides is decided apart from the logits, which are often computed anew in
    # each step of a fit while the value is data. Outside, the factor 0 makes the gradient 0.
    against = jnp.where(one, -1.0, jnp.where(zero, 1.0, 0.0))
    return jnp.where(one | zero, 0.0, -jnp.inf) - softplus(against * logits)


def mixed_log_density(value: Array, logits: Alternative = None, probs: Alternative = None) -> Array:
    """`value * log p + (1 - value) * log(1 - p)`, for a value in [0, 1]."""
    return bernoulli_terms(value, 1 - value, logits, probs)


bernoulli = make_distribution(
    Family(
        "bernoulli",
        {"logits": 0, "probs": 0},
        _sample,
        log_density,
        support=integer_interval(0, 1),
        kind="int",
        enumerate=lambda params: jnp.arange(2, dtype=jnp.int32),
        relaxation=Relaxation(lambda weights: weights[1], mixed_log_density),
        alternatives=frozenset({"logits", "probs"}),
        noise=standard_uniform,
        tfp=tfp.distributions.Bernoulli,
    )
)
"""`bernoulli(logits)` or `bernoulli(probs=p)`: 1 with probability `p = sigmoid(logits)`, else 0."""
