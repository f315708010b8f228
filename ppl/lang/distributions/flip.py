"""Boolean choices."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions.bernoulli import choose, log_density, mixed_log_density
from ppl.lang.family import Family, Relaxation
from ppl.lang.standard_noise import standard_uniform
from ppl.lang.supports import boolean


def _sample(key: Array, shape: tuple[int, ...], p: Array) -> Array:
    return standard_uniform(key, shape, p.dtype) < p


flip = make_distribution(
    Family(
        "flip",
        {"p": 0},
        _sample,
        lambda value, p: log_density(value, probs=p),
        probability=lambda value, p: choose(value, p, 1 - p),
        support=boolean,
        kind="bool",
        enumerate=lambda params: jnp.array([False, True]),
        relaxation=Relaxation(
            lambda weights: weights[1], lambda value, p: mixed_log_density(value, probs=p)
        ),
        noise=standard_uniform,
        tfp=lambda p: tfp.distributions.Bernoulli(probs=p, dtype=jnp.bool_),
    )
)
"""`flip(p)`: `True` with probability `p` in [0, 1]."""
