"""The negative binomial distribution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._counts import bernoulli_terms, poisson_draw
from ppl.lang.distributions._gamma import log_gamma_draw
from ppl.lang.distributions._safe import Alternative, as_float, is_count, log_beta, only_if_possible
from ppl.lang.distributions._weak import NEGATIVE_BINOMIAL, NEGATIVE_BINOMIAL_SHIFTS
from ppl.lang.family import Family
from ppl.lang.supports import nonnegative_integer


def _sample(
    key: Array,
    shape: tuple[int, ...],
    total_count: Array,
    logits: Alternative = None,
    probs: Alternative = None,
) -> Array:
    if logits is None:
        logits = jnp.log(probs) - jnp.log1p(-probs)
    gamma_key, poisson_key = jax.random.split(key)
    dtype = jnp.result_type(total_count, logits)
    log_rate = log_gamma_draw(gamma_key, shape, total_count.astype(dtype)) + logits
    return poisson_draw(poisson_key, shape, jnp.exp(log_rate))


def _log_density(
    value: Array, total_count: Array, logits: Alternative = None, probs: Alternative = None
) -> Array:
    inside = is_count(value) & (value < jnp.inf)
    k = jnp.where(inside, as_float(value, total_count), 0)
    log_choose = -jnp.log(total_count + k) - log_beta(k + 1, total_count)
    return only_if_possible(inside, log_choose + bernoulli_terms(k, total_count, logits, probs))


negative_binomial = make_distribution(
    Family(
        "negative_binomial",
        {"total_count": 0, "logits": 0, "probs": 0},
        _sample,
        _log_density,
        support=nonnegative_integer,
        kind="int",
        alternatives=frozenset({"logits", "probs"}),
        weak_derivatives=NEGATIVE_BINOMIAL,
        shifts=NEGATIVE_BINOMIAL_SHIFTS,
        tfp=tfp.distributions.NegativeBinomial,
    )
)
"""`negative_binomial(total_count, logits)` or `negative_binomial(total_count, probs=p)`: the number
of successes, each of probability `p = sigmoid(logits)`, before `total_count` > 0 failures; its
mean is `total_count * exp(logits)`."""
