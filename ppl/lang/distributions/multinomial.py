"""The multinomial distribution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, ArrayLike
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._safe import (
    Alternative,
    as_float,
    count_log,
    is_count,
    only_if_possible,
)
from ppl.lang.family import Family
from ppl.lang.supports import Support


def _sample(
    key: Array,
    shape: tuple[int, ...],
    total_count: Array,
    logits: Alternative = None,
    probs: Alternative = None,
) -> Array:
    p = jax.nn.softmax(logits, -1) if probs is None else probs
    full = (*shape, p.shape[-1])
    return jax.random.multinomial(key, total_count, p, shape=full, dtype=p.dtype).astype(jnp.int32)


def _log_density(
    value: Array, total_count: Array, logits: Alternative = None, probs: Alternative = None
) -> Array:
    inside = counts(total_count).check(value)
    k = jnp.where(inside[..., None], as_float(value, total_count), 0)
    if probs is not None:
        terms = count_log(k, probs)
    else:
        log_probs = logits - jax.nn.logsumexp(logits, -1, keepdims=True)
        terms = jnp.where(k == 0, 0, k * log_probs)
    log_choose = gammaln(total_count + 1) - jnp.sum(gammaln(k + 1), -1)
    return only_if_possible(inside, log_choose + jnp.sum(terms, -1))


def counts(total: ArrayLike) -> Support:
    """Vectors of counts with the sum `total`."""
    return Support(
        "counts",
        1,
        True,
        lambda x: jnp.all(is_count(x), -1) & (jnp.sum(x, -1) == total),
        point=lambda shape: jnp.asarray(total)[..., None] * (jnp.arange(shape[-1]) == 0),
    )


def _event_shape(shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    return next(shapes[name][-1:] for name in ("logits", "probs") if name in shapes)


multinomial = make_distribution(
    Family(
        "multinomial",
        {"total_count": 0, "logits": 1, "probs": 1},
        _sample,
        _log_density,
        support=lambda total_count, **_: counts(total_count),
        event_shape=_event_shape,
        kind="int",
        alternatives=frozenset({"logits", "probs"}),
        tfp=tfp.distributions.Multinomial,
    )
)
"""`multinomial(total_count, logits)` or `multinomial(total_count, probs=p)`: how often each of K
categories comes in `total_count` choices; `p = softmax(logits)` must sum to 1."""
