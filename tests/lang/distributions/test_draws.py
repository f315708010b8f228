"""Draws of all distributions: support, moments, distribution function, dtype, gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as ss

import ppl.lang.distributions as d
from ppl.lang.standard_noise import Ready

from .cases import CASES, Case, float32

N = 20_000
Z = 5.5  # false alarms: 4e-8 per number checked, and keys are fixed


def z_score(samples: np.ndarray, expected: Any) -> np.ndarray:
    samples = np.asarray(samples, np.float64)
    sd = np.std(samples, axis=0, ddof=1) / np.sqrt(len(samples))
    return np.abs(np.mean(samples, axis=0) - expected) / (sd + 1e-6 * (1 + np.abs(expected)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_draws(case: Case, key: jax.Array):
    # Not under `jit`: the samplers' kernels are then compiled once for all distributions.
    for params in case.params:
        params = float32(params)
        x = case.family.sample(key, (N,), **params)
        event = case.family.event_shape({n: p.shape for n, p in params.items()})
        assert x.shape == (N, *event)
        assert x.dtype == case.family.dtype(params)
        assert np.all(case.family.support_of(params).check(x))
        reference = case.reference(**{n: np.float64(p) for n, p in params.items()})
        x = np.asarray(x, np.float64)
        if reference.moments is not None:
            mean, second = reference.moments
            assert np.max(z_score(x, mean)) < Z
            assert np.max(z_score(x**2, second)) < Z
        if reference.cdf is not None:
            assert ss.kstest(x, reference.cdf).pvalue > 1e-7


def test_von_mises_draws(key: jax.Array):
    params = float32(dict(loc=2.5, concentration=0.4))
    x = d.von_mises.family.value.sample(key, (N,), **params)
    mean_length = 0.19610  # I1(0.4) / I0(0.4)
    assert z_score(np.cos(x - 2.5), mean_length) < Z
    assert z_score(np.sin(x - 2.5), 0.0) < Z


@pytest.mark.parametrize("case", [c for c in CASES if c.family.noise is not None], ids=str)
def test_draws_of_noise_drawn_ahead(case: Case, key: jax.Array):
    """A sampler makes of its `Family.noise` what it makes of the key of that noise."""
    for params in map(float32, case.params):
        aval = case.family.noise_aval((3, 2), params)
        noise = case.family.noise(key, aval.shape, aval.dtype)
        samplers = [case.family.sample, case.family.sample_with_log_density]
        for sample in (s for s in samplers if s is not None):
            own, ahead = (sample(k, (3, 2), **params) for k in (key, Ready(noise)))
            for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(ahead), strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_parameters_broadcast_to_the_lanes(case: Case, key: jax.Array):
    params = float32(case.params[0])
    ranks = case.family.parameters
    first = next(iter(params))
    column = {**params, first: np.stack([params[first]] * 2)}  # [2, *event] beside [*event]
    shapes = {n: p.shape for n, p in column.items()}
    assert case.family.batch_shape(shapes) == (2,)
    out = jax.eval_shape(lambda k, p: case.family.sample(k, (4, 2), **p), key, column)
    assert out.shape == (4, 2, *case.family.event_shape(shapes))
    assert ranks[first] == params[first].ndim


def statistics_of(case: Case, params: dict[str, Any]) -> np.ndarray:
    """E[x] and E[x**2] (for Cauchy draws: E[cos x] and E[sin x]), flattened."""
    if case.dist.family.value is d.cauchy.family.value:
        shrink = np.exp(-params["scale"])
        return np.array([shrink * np.cos(params["loc"]), shrink * np.sin(params["loc"])])
    moments = case.reference(**params).moments
    assert moments is not None
    return np.stack([np.asarray(m, np.float64) for m in moments])


def statistics(case: Case, x: jax.Array) -> jax.Array:
    if case.dist.family.value is d.cauchy.family.value:
        return jnp.stack([jnp.cos(x), jnp.sin(x)])
    return jnp.stack([x, x**2])


def directions(params: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Along which to differentiate: each parameter, all of its entries at different speeds."""
    speeds = {n: np.arange(1, p.size + 1).reshape(p.shape) / p.size for n, p in params.items()}
    speeds = {n: s + s.T if s.ndim == 2 and n.startswith("cov") else s for n, s in speeds.items()}
    if "probs" in speeds:  # they must keep their sum
        speeds["probs"] = speeds["probs"] - np.mean(speeds["probs"])
    zero = {n: np.zeros_like(s) for n, s in speeds.items()}
    return [{**zero, n: s} for n, s in speeds.items()]


@pytest.mark.parametrize(
    "case",
    # Angles have no moments in the reference; see tests/compiler/strategies/test_gamma_paths.py.
    [
        c
        for c in CASES
        if c.family.reparam
        and c.family is not d.von_mises.family.value
        and (not c.heavy or c.family is d.cauchy.family.value)
    ],
    ids=str,
)
def test_pathwise_gradients(case: Case, key: jax.Array):
    def derivative(params, tangents):
        draw = lambda p: statistics(case, case.family.sample(key, (N,), **p))
        return jax.jvp(draw, (params,), (tangents,))[1]

    for params in case.params:
        wide = {n: np.asarray(p, np.float64) for n, p in params.items()}
        for tangents in directions(wide):
            found = derivative(float32(params), float32(tangents))
            h = 1e-5
            up = statistics_of(case, {n: p + h * tangents[n] for n, p in wide.items()})
            down = statistics_of(case, {n: p - h * tangents[n] for n, p in wide.items()})
            exact = (up - down) / (2 * h)
            assert np.max(z_score(np.moveaxis(found, 1, 0), exact)) < Z


def test_pathwise_gradient_of_half_cauchy(key: jax.Array):
    # E[exp(-x)] by quadrature; the draw is loc + scale * |standard Cauchy|.
    t = np.tan(np.linspace(0, np.pi / 2, 200_001)[:-1])
    exact = lambda loc, scale: np.mean(np.exp(-(loc + scale * t)))

    def draws(loc, scale):
        return jnp.exp(-d.half_cauchy.family.value.sample(key, (N,), loc=loc, scale=scale))

    for tangents in ((1.0, 0.0), (0.0, 1.0)):
        found = jax.jvp(draws, (0.3, 1.2), tangents)[1]
        h = 1e-4
        up = exact(0.3 + h * tangents[0], 1.2 + h * tangents[1])
        down = exact(0.3 - h * tangents[0], 1.2 - h * tangents[1])
        assert z_score(found, (up - down) / (2 * h)) < Z + 1  # + 1: quadrature


@pytest.mark.parametrize("concentration", [0.02, 0.3, 5.0, 2e3, 1e6])
def test_gamma_quantiles_move_right(concentration: float, key: jax.Array):
    """The derivative of each draw against that of its quantile, at small and large parameters."""
    params = dict(concentration=jnp.float32(concentration), rate=jnp.float32(1))
    draw = lambda c: d.gamma.family.value.sample(key, (N,), **{**params, "concentration": c})
    x, dx = jax.jvp(draw, (params["concentration"],), (jnp.float32(1),))
    x, dx = (np.asarray(a, np.float64) for a in (x, dx))
    x, dx = x[x > 1e-30], dx[x > 1e-30]
    h = concentration * 1e-4
    u = ss.gamma(concentration).cdf(x)
    use = (u > 1e-3) & (u < 0.999)
    quantile = lambda c: np.log(ss.gamma(c).ppf(u[use]))
    exact = x[use] * (quantile(concentration + h) - quantile(concentration - h)) / (2 * h)
    np.testing.assert_allclose(dx[use], exact, rtol=2e-3)


@pytest.mark.parametrize(
    "dist, params",
    [
        (d.gamma, dict(concentration=1e-3, rate=1.0)),
        (d.inverse_gamma, dict(concentration=1e-3, scale=1.0)),
        (d.beta, dict(concentration1=1e-3, concentration0=1e-3)),
        (d.dirichlet, dict(concentration=[1e-3, 1e-3, 1e-3])),
        (d.chi2, dict(df=1e-3)),
    ],
    ids=lambda x: None if isinstance(x, dict) else str(x),
)
def test_draws_that_underflow_stay_in_the_support(dist, params, key: jax.Array):
    family = dist.family.value
    params = float32(params)
    x, dx = jax.jvp(lambda p: family.sample(key, (N,), **p), (params,), (params,))
    assert np.all(family.support_of(params).check(x))
    assert not np.any(np.isnan(dx))
    assert np.all(np.isfinite(dist.log_prob(x, **params)))


def test_a_concentration_that_is_nan_does_not_hang(key: jax.Array):
    x = d.gamma.family.value.sample(
        key, (2,), concentration=jnp.array([np.nan, 1.0]), rate=jnp.ones(())
    )
    np.testing.assert_array_equal(np.isnan(x), [True, False])


def test_counts_draw_with_any_kind_of_key():
    family = d.poisson.family.value
    x = family.sample(jax.random.key(0, impl="rbg"), (N,), rate=jnp.float32(3))
    assert z_score(x, 3.0) < Z
