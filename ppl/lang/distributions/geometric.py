"""The geometric distribution."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._counts import bernoulli_terms, to_int
from ppl.lang.distributions._safe import Alternative, as_float, is_count, only_if_possible, softplus
from ppl.lang.distributions._weak import GEOMETRIC, GEOMETRIC_SHIFTS
from ppl.lang.family import Family
from ppl.lang.standard_noise import standard_exponential
from ppl.lang.supports import nonnegative_integer


def _sample(
    key: Array, shape: tuple[int, ...], logits: Alternative = None, probs: Alternative = None
) -> Array:
    rate = softplus(logits) if probs is None else -jnp.log1p(-probs)  # -log of a failure
    return to_int(jnp.floor(standard_exponential(key, shape, rate.dtype) / rate))


def _log_density(value: Array, logits: Alternative = None, probs: Alternative = None) -> Array:
    inside = is_count(value) & (value < jnp.inf)
    failures = jnp.where(inside, as_float(value, logits if probs is None else probs), 0)
    return only_if_possible(
        inside, bernoulli_terms(jnp.ones_like(failures), failures, logits, probs)
    )


geometric = make_distribution(
    Family(
        "geometric",
        {"logits": 0, "probs": 0},
        _sample,
        _log_density,
        support=nonnegative_integer,
        kind="int",
        alternatives=frozenset({"logits", "probs"}),
        weak_derivatives=GEOMETRIC,
        shifts=GEOMETRIC_SHIFTS,
        noise=standard_exponential,
        tfp=tfp.distributions.Geometric,
    )
)
"""`geometric(logits)` or `geometric(probs=p)`: the number of failures before the first success,
0, 1, 2, ..., where a success has probability `p = sigmoid(logits)`."""
