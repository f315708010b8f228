"""The weak derivatives of our distributions (`ppl.lang.weak_derivatives` says what they are).

Those with a finite support need none. Where a rule is not that of Mohamed et al. (arXiv
1906.10652, table 1), its derivation is here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array

from ppl.lang.distributions._counts import to_int
from ppl.lang.distributions._gamma import log_gamma_draw
from ppl.lang.distributions._safe import Alternative, tiny
from ppl.lang.weak_derivatives import (
    WeakDerivative,
    WeakRule,
    chained,
    location_scale,
    moved_to,
    per_component,
    transformed,
)

Rules = Mapping[str, WeakRule]


def _by_transform(rules: Rules, forward, inverse) -> Rules:
    return {name: transformed(rule, forward, inverse) for name, rule in rules.items()}


def _fresh(key: jax.Array, value: Array) -> Array:
    return jax.random.exponential(key, value.shape, value.dtype)


# ------------------------------------------------------------------------- location and scale

NORMAL: Rules = location_scale(
    lambda: 1 / math.sqrt(2 * math.pi), lambda z, fall: jnp.sqrt(z * z + 2 * fall)
)
"""Rayleigh variables for `loc`, a double-sided Maxwell one for `scale`."""

HALF_NORMAL: Rules = {"scale": NORMAL["scale"]}
LOG_NORMAL: Rules = _by_transform(NORMAL, jnp.exp, jnp.log)
NORMAL_VECTOR: Rules = {
    "loc": per_component(lambda key, x, loc, scale_diag: NORMAL["loc"](key, x, loc, scale_diag)),
    "scale_diag": per_component(
        lambda key, x, loc, scale_diag: NORMAL["scale"](key, x, scale_diag, loc)
    ),
}
LAPLACE: Rules = location_scale(lambda: 0.5, lambda z, fall: z + fall)
LOGISTIC: Rules = location_scale(
    # The density is sech(z / 2)^2 / 4.
    lambda: 0.25,
    lambda z, fall: 2 * jnp.arccosh(jnp.cosh(z / 2) * jnp.exp(fall / 2)),
)


def _cauchy(z: Array, fall: Array) -> Array:
    return jnp.sqrt(jnp.expm1(fall) + z * z * jnp.exp(fall))


CAUCHY: Rules = location_scale(lambda: 1 / math.pi, _cauchy)
HALF_CAUCHY: Rules = location_scale(lambda: 2 / math.pi, _cauchy, half=True)


def _student_t_mode(df: Array) -> Array:
    return jnp.exp(gammaln((df + 1) / 2) - gammaln(df / 2)) / jnp.sqrt(math.pi * df)


def _student_t(z: Array, fall: Array, df: Array) -> Array:
    growth = 2 * fall / (df + 1)
    return jnp.sqrt(df * jnp.expm1(growth) + z * z * jnp.exp(growth))


STUDENT_T: Rules = location_scale(_student_t_mode, _student_t)

UNIFORM: Rules = {
    "low": lambda key, x, low, high: moved_to(low + 0 * x, -1 / (high - low)),
    "high": lambda key, x, low, high: moved_to(high + 0 * x, 1 / (high - low)),
}

# --------------------------------------------------------------------------- waiting times

EXPONENTIAL: Rules = {"rate": lambda key, x, rate: moved_to(x + _fresh(key, x) / rate, -1 / rate)}
"""An exponential variable against the sum of two."""


def _weibull_scale(key: jax.Array, x: Array, concentration: Array, scale: Array) -> WeakDerivative:
    # (x / scale)^concentration is exponential.
    time = (x / scale) ** concentration + _fresh(key, x)
    return moved_to(scale * time ** (1 / concentration), concentration / scale)


WEIBULL: Rules = {"scale": _weibull_scale}


def _small_jump(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> tuple[Array, Array]:
    """A jump of the gamma process, and the weight that makes its law the Lévy measure.

    Gamma(a) is a process of independent increments in a: d E[h(x)] / da is the integral of
    E[h(x + y) - h(x)] exp(-y) / y dy. Drawn from Gamma(1/2), y has the weight sqrt(pi / y), for
    which the variance is finite even where h jumps.
    """
    z = jax.random.normal(key, shape, dtype)
    size = jnp.maximum(jnp.abs(z), tiny(dtype) ** 0.5)
    return size * size / 2, math.sqrt(2 * math.pi) / size


def _gamma_rate(key: jax.Array, x: Array, concentration: Array, rate: Array) -> WeakDerivative:
    return moved_to(x + _fresh(key, x) / rate, -concentration / rate)


def _gamma_concentration(
    key: jax.Array,
    x: Array,
    concentration: Array,
    rate: Alternative = None,
    log_rate: Alternative = None,
) -> WeakDerivative:
    jump, weight = _small_jump(key, x.shape, x.dtype)
    return moved_to(x + jump / (jnp.exp(log_rate) if rate is None else rate), weight)


GAMMA: Rules = {
    "concentration": _gamma_concentration,
    "rate": _gamma_rate,
    "log_rate": chained(_gamma_rate, "rate", "log_rate", jnp.exp),
}
INVERSE_GAMMA: Rules = _by_transform(
    {
        "concentration": lambda key, x, concentration, scale: _gamma_concentration(
            key, x, concentration, scale
        ),
        "scale": lambda key, x, concentration, scale: _gamma_rate(key, x, concentration, scale),
    },
    jnp.reciprocal,
    jnp.reciprocal,
)


def _chi2(key: jax.Array, x: Array, df: Array) -> WeakDerivative:
    jump, weight = _small_jump(key, x.shape, x.dtype)
    return moved_to(x + 2 * jump, weight / 2)  # Gamma(df / 2, rate 1 / 2)


CHI2: Rules = {"df": _chi2}


def _dirichlet(key: jax.Array, x: Array, concentration: Array) -> WeakDerivative:
    # x is a vector of gamma variables over their sum, which is independent of it.
    total_key, jump_key = jax.random.split(key)
    lanes, size = x.shape[:-1], x.shape[-1]
    total = jnp.exp(log_gamma_draw(total_key, lanes, jnp.sum(concentration, -1)))[..., None]
    jump, weight = (y[..., None] for y in _small_jump(jump_key, lanes, x.dtype))
    values = tuple((x * total + jump * e) / (total + jump) for e in jnp.eye(size, dtype=x.dtype))
    weights = tuple(weight * e for e in jnp.eye(size, dtype=x.dtype))
    return WeakDerivative(values, weights, -weight * jnp.ones(size, x.dtype))


DIRICHLET: Rules = {"concentration": _dirichlet}


def _beta(which: int) -> WeakRule:
    def rule(key: jax.Array, x: Array, concentration1: Array, concentration0: Array):
        total_key, jump_key = jax.random.split(key)
        total = jnp.exp(log_gamma_draw(total_key, x.shape, concentration1 + concentration0))
        jump, weight = _small_jump(jump_key, x.shape, x.dtype)
        moved = (x * total + jump * which) / (total + jump)
        inside = jnp.clip(moved, tiny(x.dtype), 1 - jnp.finfo(x.dtype).epsneg)
        return moved_to(inside, weight)

    return rule


BETA: Rules = {"concentration1": _beta(1), "concentration0": _beta(0)}

# --------------------------------------------------------------------------------- counts


def _with_logits(probs: WeakRule) -> Rules:
    return {"probs": probs, "logits": chained(probs, "probs", "logits", jax.nn.sigmoid)}


def _poisson(key: jax.Array, x: Array, rate: Array) -> WeakDerivative:
    return moved_to(x + 1, jnp.ones_like(rate))


POISSON: Rules = {
    "rate": _poisson,
    "log_rate": chained(_poisson, "rate", "log_rate", jnp.exp),
}


def _geometric_draw(key: jax.Array, shape: tuple[int, ...], log_failure: Array) -> Array:
    """How often something of probability `exp log_failure` happens before it does not."""
    noise = jax.random.exponential(key, shape, log_failure.dtype)
    return to_int(jnp.floor(noise / -log_failure))


def _geometric(key: jax.Array, x: Array, probs: Array) -> WeakDerivative:
    # The derivative of p (1 - p)^x is that over p, less the law of 1 + x + another draw.
    return moved_to(x + 1 + _geometric_draw(key, x.shape, jnp.log1p(-probs)), -1 / probs)


GEOMETRIC: Rules = _with_logits(_geometric)


def _binomial(key: jax.Array, x: Array, total_count: Array, probs: Array) -> WeakDerivative:
    # total_count times h(y + 1) - h(y) for one trial less; x is y + 1 if that one was a success.
    chance = x / jnp.maximum(total_count, 1)
    success = jax.random.uniform(key, x.shape, chance.dtype) < chance
    one = jnp.where(success, -1, 1)
    inside = jnp.clip(x + one, 0, total_count).astype(x.dtype)
    return moved_to(inside, one * total_count)


BINOMIAL: Rules = _with_logits(_binomial)


def _negative_binomial(
    key: jax.Array, x: Array, total_count: Array, probs: Array
) -> WeakDerivative:
    # k P(k; r) / p = r / (1 - p) P(k - 1; r + 1), so x moves to 1 + x + another draw of r = 1.
    more = _geometric_draw(key, x.shape, jnp.log(probs))
    return moved_to(x + 1 + more, total_count / (1 - probs))


def _negative_binomial_count(
    key: jax.Array,
    x: Array,
    total_count: Array,
    logits: Alternative = None,
    probs: Alternative = None,
) -> WeakDerivative:
    # A compound Poisson process in total_count, with jumps of size j at rate p^j / j: logarithmic
    # variables, drawn as in Kemp (1981).
    p = jax.nn.sigmoid(logits) if probs is None else probs
    rate = -jnp.log1p(-p)
    u, v = jax.random.uniform(key, (2, *x.shape), rate.dtype, tiny(rate.dtype))
    jump = 1 + to_int(jnp.floor(jnp.log(v) / jnp.log(-jnp.expm1(-u * rate))))
    return moved_to(x + jump, rate)


NEGATIVE_BINOMIAL: Rules = {
    **_with_logits(_negative_binomial),
    "total_count": _negative_binomial_count,
}

# --------------------------------------------------------------------------------- shifts


def _shift_logits(probs):
    def logits_shift(value: Array, logits: Array, **params: Array) -> Array:
        p = jax.nn.sigmoid(logits)
        return probs(value, probs=p, **params) * p * (1 - p)

    return {"probs": probs, "logits": logits_shift}


# Minus the derivative of the CDF over the probability; StochasticAD.jl (Arya et al., arXiv
# 2210.08572) has those of the binomial, geometric and Poisson distributions.
POISSON_SHIFTS = {
    "rate": lambda value, rate: jnp.ones_like(rate),
    "log_rate": lambda value, log_rate: jnp.exp(log_rate),
}
GEOMETRIC_SHIFTS = _shift_logits(lambda value, probs: -(value + 1) / probs)
BINOMIAL_SHIFTS = _shift_logits(
    lambda value, total_count, probs: (total_count - value) / (1 - probs)
)
NEGATIVE_BINOMIAL_SHIFTS = _shift_logits(
    lambda value, total_count, probs: (total_count + value) / (1 - probs)
)
