"""Weak derivatives against quadrature, and vectors' against the derivative along the path.

The test function has jumps. 60,000 draws per rule, |z| < 5.5 (false-alarm rate 4e-8); a bias of
10 % of the derivative, for most rules of 4 %, would be caught with a probability of 99 %.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.lang.distribution import Distribution
from ppl.lang.distributions import (
    beta,
    binomial,
    cauchy,
    chi2,
    dirichlet,
    exponential,
    gamma,
    geometric,
    half_cauchy,
    half_normal,
    inverse_gamma,
    laplace,
    log_normal,
    logistic,
    multivariate_normal_diag,
    negative_binomial,
    normal,
    poisson,
    student_t,
    uniform,
    weibull,
)

DRAWS, Z_BOUND, POWER = 60_000, 5.5, 2.33
U = np.linspace(-30, 30, 30_001)


def real(params):
    return np.sinh(U / 2)


def positive(params):
    return np.exp(U / 2)


def right_of_loc(params):
    return params["loc"] + np.exp(U / 2)


def unit(params):
    low, high = params.get("low", 0.0), params.get("high", 1.0)
    return low + (high - low) / (1 + np.exp(-U))


def counts(params):
    return np.arange(400)


CASES: list[tuple[Distribution, dict[str, float], object]] = [
    (normal, dict(loc=-0.6, scale=1.3), real),
    (log_normal, dict(loc=-0.2, scale=0.8), positive),
    (half_normal, dict(scale=1.3), positive),
    (laplace, dict(loc=-0.6, scale=1.3), real),
    (logistic, dict(loc=-0.6, scale=1.3), real),
    (cauchy, dict(loc=-0.6, scale=1.3), real),
    (half_cauchy, dict(loc=0.4, scale=1.3), right_of_loc),
    (student_t, dict(df=3.0, loc=-0.6, scale=1.3), real),
    (uniform, dict(low=-0.5, high=2.0), unit),
    (exponential, dict(rate=0.7), positive),
    (weibull, dict(concentration=1.7, scale=1.4), positive),
    (gamma, dict(concentration=1.6, rate=0.8), positive),
    (gamma, dict(concentration=0.6, log_rate=-0.3), positive),
    (inverse_gamma, dict(concentration=1.6, scale=1.8), positive),
    (chi2, dict(df=2.5), positive),
    (beta, dict(concentration1=1.4, concentration0=0.8), unit),
    (poisson, dict(rate=1.7), counts),
    (poisson, dict(log_rate=0.3), counts),
    (geometric, dict(probs=0.4), counts),
    (binomial, dict(total_count=5.0, probs=0.3), counts),
    (negative_binomial, dict(total_count=2.5, probs=0.4), counts),
    (negative_binomial, dict(total_count=2.5, logits=-0.3), counts),
]
RULES = [
    pytest.param(dist, params, grid, name, id=f"{dist!r} {' '.join(params)}: {name}")
    for dist, params, grid in CASES
    for name in params
    if name in dist.family.value.weak_derivatives
]


def h(x, xp=jnp):
    """Smooth but for a jump."""
    return xp.tanh(0.7 * x) + xp.where(x > 0.9, 1.0, 0.0) + xp.where(x > 2.5, 0.5, 0.0)


def exact(dist, params, grid, name) -> float:
    """The derivative of E[h], by quadrature in float64."""

    def mean(step: float) -> float:
        at = {**params, name: params[name] + step}
        x = grid(at)
        p = np.exp(np.asarray(dist.log_prob(jnp.asarray(x), **at), np.float64))
        if grid is counts:
            return float(np.sum(p * h(x, np)))
        return float(np.sum(np.where(np.isfinite(p), p, 0) * h(x, np) * np.gradient(x)))

    step = 1e-3 if grid is counts else 3e-2  # a jump of h moves through the grid
    with jax.enable_x64(True):
        return (mean(step) - mean(-step)) / (2 * step)


def slope_draws(dist, params, name):
    """Draws of the weak derivative's estimate."""
    family = dist.family.value
    arrays = {k: jnp.float32(v) for k, v in params.items()}

    @jax.jit
    def draw(key):
        x_key, rule_key = jax.random.split(key)
        x = family.sample(x_key, (DRAWS,), **arrays)
        found = family.weak_derivatives[name](rule_key, x, **arrays)
        values = [jnp.broadcast_to(v, x.shape) for v in found.values]
        assert all(v.dtype == x.dtype for v in values)
        assert len(values) == len(found.weights)
        return sum(w * h(v) for v, w in zip(values, found.weights, strict=True)) + (
            found.actual * h(x)
        )

    return np.asarray(draw(jax.random.key(1)), np.float64)


@pytest.mark.parametrize(("dist", "params", "grid", "name"), RULES)
def test_rule(dist, params, grid, name):
    wanted = exact(dist, params, grid, name)
    draws = slope_draws(dist, params, name)
    stderr = draws.std() / np.sqrt(DRAWS)
    assert (Z_BOUND + POWER) * stderr < 0.1 * abs(wanted), (wanted, stderr)
    assert abs(draws.mean() - wanted) < Z_BOUND * stderr + 2e-4, (draws.mean(), wanted, stderr)


VECTORS = [
    (multivariate_normal_diag, dict(loc=[0.3, -0.4, 0.9], scale_diag=[0.5, 1.0, 0.8])),
    (dirichlet, dict(concentration=[0.7, 1.5, 2.0])),
]


@pytest.mark.parametrize(
    ("dist", "params", "name"), [(d, p, n) for d, p in VECTORS for n in p], ids=str
)
def test_rule_of_a_vector(dist, params, name):
    family = dist.family.value
    arrays = {k: jnp.asarray(v, jnp.float32) for k, v in params.items()}
    cost = lambda x: jnp.exp(-jnp.sum(x * jnp.array([1.0, 0.5, -0.6]), -1)) * (1 + x[..., 0])

    @jax.jit
    def weak(key):
        x_key, rule_key = jax.random.split(key)
        x = family.sample(x_key, (DRAWS,), **arrays)
        found = family.weak_derivatives[name](rule_key, x, **arrays)
        parts = [w * cost(v)[..., None] for v, w in zip(found.values, found.weights, strict=True)]
        return sum(parts) + found.actual * cost(x)[..., None]

    @jax.jit
    def along_the_path(key):
        at = jnp.broadcast_to(arrays[name], (DRAWS, 3))
        sample = lambda p: cost(family.sample(key, (DRAWS,), **{**arrays, name: p}))
        return jax.grad(lambda p: jnp.sum(sample(p)))(at)

    ours, path = (np.asarray(f(jax.random.key(2)), np.float64) for f in (weak, along_the_path))
    stderr = np.hypot(ours.std(0), path.std(0)) / np.sqrt(DRAWS)
    assert np.all((Z_BOUND + POWER) * stderr < 0.25 * np.max(np.abs(path.mean(0))))
    assert np.all(np.abs(ours.mean(0) - path.mean(0)) < Z_BOUND * stderr)
