"""The binomial distribution."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._counts import bernoulli_terms, largest
from ppl.lang.distributions._safe import Alternative, as_float, is_count, log_beta, only_if_possible
from ppl.lang.distributions._weak import BINOMIAL, BINOMIAL_SHIFTS
from ppl.lang.family import Family
from ppl.lang.supports import integer_interval


def _sample(
    key: Array,
    shape: tuple[int, ...],
    total_count: Array,
    logits: Alternative = None,
    probs: Alternative = None,
) -> Array:
    p = jax.nn.sigmoid(logits) if probs is None else probs
    return jax.random.binomial(key, total_count, p, shape, p.dtype).astype(jnp.int32)


def _log_density(
    value: Array, total_count: Array, logits: Alternative = None, probs: Alternative = None
) -> Array:
    inside = is_count(value) & (value <= total_count)
    ones = jnp.where(inside, as_float(value, total_count), 0)
    zeros = total_count - ones
    log_choose = -jnp.log(total_count + 1) - log_beta(ones + 1, zeros + 1)
    return only_if_possible(inside, log_choose + bernoulli_terms(ones, zeros, logits, probs))


def _enumerate(params: dict[str, Any]) -> Array | None:
    # Lanes with fewer trials give the larger counts probability zero.
    n = largest(params["total_count"])
    return None if n is None else jnp.arange(n + 1, dtype=jnp.int32)


binomial = make_distribution(
    Family(
        "binomial",
        {"total_count": 0, "logits": 0, "probs": 0},
        _sample,
        _log_density,
        support=lambda total_count, **_: integer_interval(0, total_count),
        kind="int",
        enumerate=_enumerate,
        alternatives=frozenset({"logits", "probs"}),
        weak_derivatives=BINOMIAL,
        shifts=BINOMIAL_SHIFTS,
        tfp=tfp.distributions.Binomial,
    )
)
"""`binomial(total_count, logits)` or `binomial(total_count, probs=p)`: the number of ones in
`total_count` bernoulli choices. Can be enumerated where `total_count` is a known number."""
