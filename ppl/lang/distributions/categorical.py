"""Choices among K categories: as an index, and as a one-hot vector."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._safe import Alternative, only_if_possible, safe_log
from ppl.lang.family import Family, Relaxation
from ppl.lang.supports import integer_interval, one_hot


def log_probs_of(logits: Alternative, probs: Alternative, axis: int = -1) -> Array:
    """Log-probabilities along an axis; -inf where the probability is zero."""
    if probs is not None:
        return safe_log(probs)
    return jax.nn.log_softmax(logits, axis)


def _sample(
    key: Array, shape: tuple[int, ...], logits: Alternative = None, probs: Alternative = None
) -> Array:
    weights = jnp.log(probs) if logits is None else logits
    return jax.random.categorical(key, weights, shape=shape).astype(jnp.int32)


def _log_density(value: Array, logits: Alternative = None, probs: Alternative = None) -> Array:
    weights = probs if logits is None else logits
    index = jnp.clip(value, 0, weights.shape[-1] - 1).astype(jnp.int32)
    inside = value == index
    # Indexing the lanes one by one keeps `weights` from being copied for each enumerated value.
    lanes = np.ix_(*(np.arange(n) for n in weights.shape[:-1]))
    chosen = jnp.asarray(weights).at[(*lanes, index)].get(mode="promise_in_bounds")
    if probs is not None:
        return only_if_possible(inside, safe_log(chosen))
    return only_if_possible(inside, chosen - jax.nn.logsumexp(weights, -1))


def _log_probabilities(logits: Alternative = None, probs: Alternative = None) -> Array:
    # Over the leading axis the sums run over whole vectors of lanes, over a short last one not.
    moved = (None if x is None else jnp.moveaxis(x, -1, 0) for x in (logits, probs))
    return only_if_possible(jnp.ones((), bool), log_probs_of(*moved, axis=0))


def _size(params: dict) -> int:
    return next(p.shape[-1] for p in params.values())


categorical = make_distribution(
    Family(
        "categorical",
        {"logits": 1, "probs": 1},
        _sample,
        _log_density,
        support=lambda **params: integer_interval(0, _size(params) - 1),
        kind="int",
        enumerate=lambda params: jnp.arange(_size(params), dtype=jnp.int32),
        log_probabilities=_log_probabilities,
        alternatives=frozenset({"logits", "probs"}),
        tfp=tfp.distributions.Categorical,
    )
)
"""`categorical(logits)` or `categorical(probs=p)`: an index from 0 to K - 1, K the length of the
last axis; `p = softmax(logits)` must sum to 1."""


def _one_hot_sample(key: Array, shape: tuple[int, ...], **params: Array) -> Array:
    return jax.nn.one_hot(_sample(key, shape, **params), _size(params), dtype=jnp.int32)


def _one_hot_log_density(
    value: Array, logits: Alternative = None, probs: Alternative = None
) -> Array:
    log_probability = jnp.sum(jnp.where(value == 1, log_probs_of(logits, probs), 0), -1)
    return only_if_possible(one_hot(value.shape[-1]).check(value), log_probability)


def _mixed_log_density(
    value: Array, logits: Alternative = None, probs: Alternative = None
) -> Array:
    log_p = log_probs_of(logits, probs)
    none = value == 0
    return jnp.sum(jnp.where(none, 0, value * jnp.where(none, 0, log_p)), -1)


one_hot_categorical = make_distribution(
    Family(
        "one_hot_categorical",
        {"logits": 1, "probs": 1},
        _one_hot_sample,
        _one_hot_log_density,
        support=lambda **params: one_hot(_size(params)),
        event_shape=lambda shapes: next(iter(shapes.values()))[-1:],
        kind="int",
        enumerate=lambda params: jnp.eye(_size(params), dtype=jnp.int32),
        log_probabilities=_log_probabilities,
        relaxation=Relaxation(lambda weights: jnp.moveaxis(weights, 0, -1), _mixed_log_density),
        alternatives=frozenset({"logits", "probs"}),
        tfp=tfp.distributions.OneHotCategorical,
    )
)
"""`one_hot_categorical(logits)` or `one_hot_categorical(probs=p)`: a vector of zeros with a single
one; `p = softmax(logits)` must sum to 1."""
