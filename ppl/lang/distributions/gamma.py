"""Gamma, inverse gamma and chi-squared distributions."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from ppl.lang.distribution import make_distribution
from ppl.lang.distributions._gamma import log_gamma_draw
from ppl.lang.distributions._safe import Alternative, only_where, xlogy
from ppl.lang.distributions._weak import CHI2, GAMMA, INVERSE_GAMMA
from ppl.lang.family import Family
from ppl.lang.supports import positive


def _log_draw(key: Array, shape: tuple[int, ...], concentration: Array, other: Array) -> Array:
    dtype = jnp.result_type(concentration, other)
    return log_gamma_draw(key, shape, concentration.astype(dtype))


def _exp(log_x: Array) -> Array:
    """`exp log_x` kept inside of the support, where a draw would underflow or overflow."""
    limits = jnp.finfo(log_x.dtype)
    return jnp.exp(jnp.clip(log_x, 0.999 * jnp.log(limits.tiny), 0.999 * jnp.log(limits.max)))


def _sample(
    key: Array,
    shape: tuple[int, ...],
    concentration: Array,
    rate: Alternative = None,
    log_rate: Alternative = None,
) -> Array:
    if log_rate is None:
        log_rate = jnp.log(rate)
    return _exp(_log_draw(key, shape, concentration, log_rate) - log_rate)


def _log_density(
    value: Array, concentration: Array, rate: Alternative = None, log_rate: Alternative = None
) -> Array:
    if rate is None:
        rate = jnp.exp(log_rate)
    else:
        log_rate = jnp.log(rate)
    # The density at 0 is a limit: finite for a concentration of 1.
    inside = (value >= 0) & (value < jnp.inf)
    x = jnp.where(inside, value, 1)
    log_density = (
        xlogy(concentration - 1, x) - rate * x + concentration * log_rate - gammaln(concentration)
    )
    return only_where(inside, log_density)


gamma = make_distribution(
    Family(
        "gamma",
        {"concentration": 0, "rate": 0, "log_rate": 0},
        _sample,
        _log_density,
        support=positive,
        reparam="implicit",
        alternatives=frozenset({"rate", "log_rate"}),
        weak_derivatives=GAMMA,
        tfp=tfp.distributions.Gamma,
    )
)
"""`gamma(concentration, rate)`: positive numbers with mean `concentration / rate`.

Draws that underflow (concentrations well below 0.1) are some tiny positive number, with gradient
0."""


def _inverse_sample(
    key: Array, shape: tuple[int, ...], concentration: Array, scale: Array
) -> Array:
    return _exp(jnp.log(scale) - _log_draw(key, shape, concentration, scale))


def _inverse_log_density(value: Array, concentration: Array, scale: Array) -> Array:
    inside = (value > 0) & (value < jnp.inf)
    x = jnp.where(inside, value, 1)
    log_density = (
        concentration * jnp.log(scale)
        - gammaln(concentration)
        - (concentration + 1) * jnp.log(x)
        - scale / x
    )
    return only_where(inside, log_density)


inverse_gamma = make_distribution(
    Family(
        "inverse_gamma",
        {"concentration": 0, "scale": 0},
        _inverse_sample,
        _inverse_log_density,
        support=positive,
        reparam="implicit",
        weak_derivatives=INVERSE_GAMMA,
        tfp=tfp.distributions.InverseGamma,
    )
)
"""`inverse_gamma(concentration, scale)`: the reciprocal of gamma(concentration, rate=scale); its
mean is `scale / (concentration - 1)`."""


def _chi2_sample(key: Array, shape: tuple[int, ...], df: Array) -> Array:
    return _exp(math.log(2) + log_gamma_draw(key, shape, df / 2))


def _chi2_log_density(value: Array, df: Array) -> Array:
    return _log_density(value, df / 2, log_rate=jnp.full((), -math.log(2), df.dtype))


chi2 = make_distribution(
    Family(
        "chi2",
        {"df": 0},
        _chi2_sample,
        _chi2_log_density,
        support=positive,
        reparam="implicit",
        weak_derivatives=CHI2,
        tfp=tfp.distributions.Chi2,
    )
)
"""`chi2(df)`: the sum of `df` squared standard normals; positive numbers with mean `df`."""
