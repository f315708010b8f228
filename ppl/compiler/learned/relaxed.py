"""Discrete choices as functions of continuous noise, and that noise given the choice.

A flip is `z > 0` for `z = log odds + logistic noise`; a categorical choice is the largest entry
of `z = log-probabilities + Gumbel noise` (Maddison, Mnih and Teh, arXiv 1611.00712; Jang, Gu and
Poole, arXiv 1611.01144). `relaxations` has, by family, a function

    (params, value, key) -> (z, z_given_value)

of the parameters by name, the value drawn and a key. `z` has the marginal law of the relaxed
choice and agrees with the value; `z_given_value` has the same law given the value, from noise of
its own. Both are differentiable in the parameters, the first at a fixed noise, the second at a
fixed value and noise (Tucker et al., arXiv 1703.07370, app. C). Both are `[*lanes, event]`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl.lang.distributions._safe import tiny
from ppl.lang.distributions.categorical import log_probs_of

Params = dict[str, Array]
Relaxation = Callable[[Params, Array, Array], tuple[Array, Array]]


def binary(params: Params, value: Array, key: Array) -> tuple[Array, Array]:
    """Of a flip or a Bernoulli choice; the event axis has size 1."""
    log_odds = jnp.broadcast_to(binary_log_odds(params), value.shape)
    one = value == 1
    u, v = jax.random.uniform(key, (2, *value.shape), log_odds.dtype, tiny(log_odds.dtype))

    def given(u: Array, log_odds: Array) -> Array:
        # logit(1 - p + u p) = log((1 - p + u p) / ((1 - u) p)) for a one, the mirror for a zero.
        odds = jnp.where(one, log_odds, -log_odds)
        z = jnp.logaddexp(jnp.log(u) + odds, 0) - jnp.log1p(-u)  # of a one, above the threshold
        return jnp.where(one, z, -z)

    noise = lax.stop_gradient(given(u, log_odds) - log_odds)
    z, given_value = log_odds + noise, given(v, log_odds)
    return z[..., None], given_value[..., None]


def binary_log_odds(params: Params) -> Array:
    """Log-odds of a flip (`p`) or Bernoulli choice (`logits` or `probs`)."""
    if "logits" in params:
        return params["logits"]
    p = params["p"] if "p" in params else params["probs"]
    return jnp.log(p) - jnp.log1p(-p)


def categorical(params: Params, value: Array, key: Array) -> tuple[Array, Array]:
    """Of an index among K categories."""
    k = next(iter(params.values())).shape[-1]
    return one_hot(params, jax.nn.one_hot(value, k), key)


def one_hot(params: Params, value: Array, key: Array) -> tuple[Array, Array]:
    """Of a one-hot vector of K categories."""
    log_p = log_probs_of(params.get("logits"), params.get("probs"))
    log_p = jnp.broadcast_to(log_p, value.shape)
    chosen = value == 1
    u, v = jax.random.uniform(key, (2, *value.shape), log_p.dtype, tiny(log_p.dtype))

    def given(u: Array, log_p: Array) -> Array:
        # The largest entry is a Gumbel variable of its own, the others are truncated by it.
        e = -jnp.log(u)
        top = jnp.sum(jnp.where(chosen, e, 0), -1, keepdims=True)
        return -jnp.log(jnp.where(chosen, e, e * jnp.exp(-log_p) + top))

    noise = lax.stop_gradient(given(u, log_p) - log_p)
    return log_p + noise, given(v, log_p)


relaxations: dict[str, Relaxation] = {
    "flip": binary,
    "bernoulli": binary,
    "categorical": categorical,
    "one_hot_categorical": one_hot,
}
