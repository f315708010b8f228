"""Log-densities of all distributions against SciPy in float64, inside and outside the support."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl.lang.distributions as d

from .cases import CASES, DISCRETE, NUMBERS, Case, float32, log_prob_of

with_case = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_distribution_has_a_case():
    covered = {c.family.name for c in CASES}
    assert {x.family.value.name for x in d.ALL} <= covered


@with_case
def test_log_density(case: Case):
    values = np.asarray(case.values)
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    for params in case.params:
        params = float32(params)
        found = log_prob_of(case.family)(values, params)
        wide = {n: np.float64(p) for n, p in params.items()}
        reference = case.reference(**wide).log_density
        expected = reference(values.astype(np.float64) if values.dtype == np.float32 else values)
        assert found.dtype == jnp.float32
        assert found.shape == (len(values),)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


@with_case
def test_support_accepts_the_values(case: Case):
    for params in case.params:
        assert np.all(case.family.support_of(float32(params)).check(np.asarray(case.values)))


@pytest.mark.parametrize("case", [c for c in CASES if len(c.outside)], ids=str)
def test_outside_of_the_support(case: Case):
    outside = jnp.asarray(case.outside, jnp.float32)
    params = float32(case.params[0])
    log_density = lambda x, params: case.dist.log_prob(x, **params)
    found, pullback = jax.jit(lambda *a: jax.vjp(log_density, *a))(outside, params)
    np.testing.assert_array_equal(found, -np.inf)
    for gradient in jax.tree.leaves(pullback(jnp.ones_like(found))):
        np.testing.assert_array_equal(gradient, 0)
    assert not np.any(case.family.support_of(params).check(outside))


@pytest.mark.parametrize(
    "case", [c for c in NUMBERS if c.reference(**c.params[0]).cdf is not None], ids=str
)
def test_densities_integrate_to_one(case: Case):
    for params in case.params:
        cdf = case.reference(**params).cdf
        grid = np.linspace(-60, 60, 400_001, dtype=np.float32)
        density = np.exp(np.asarray(log_prob_of(case.family)(grid, float32(params)), np.float64))
        inside = (grid > -30) & (grid < 30) & (density < 50)
        mass = np.sum(np.where(inside, density, 0)) * (120 / 400_000)
        assert mass == pytest.approx(cdf(30.0) - cdf(-30.0), abs=0.01)


@pytest.mark.parametrize("case", [c for c in DISCRETE if np.ndim(c.values) == 1], ids=str)
def test_probabilities_sum_to_one(case: Case):
    counts = np.arange(400)
    for params in case.params:
        log_probs = log_prob_of(case.family)(counts, float32(params))
        assert np.sum(np.exp(np.asarray(log_probs, np.float64))) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("x64", [False, True])
def test_dtypes_follow_the_parameters(x64: bool):
    with jax.enable_x64(x64):
        for case in CASES:
            params = float32(case.params[0])
            values = jax.ShapeDtypeStruct(np.shape(case.values), jnp.float32)
            found = jax.eval_shape(lambda x, p, c=case: c.dist.log_prob(x, **p), values, params)
            formula = jax.eval_shape(
                lambda x, p, c=case: c.family.log_density(x, **p), values, params
            )
            assert found.dtype == formula.dtype == jnp.float32, case


@pytest.mark.parametrize(
    "dist, value, params, expected",
    [
        # From mpmath; each cancels in float32 if it is written with plain log-gammas.
        (d.binomial, 500, dict(total_count=1000, logits=0.0), -3.6801573),
        (d.beta, 0.5, dict(concentration1=1e4, concentration0=1e4), 4.7256028),
        (d.student_t, 0.5, dict(df=1e6), -1.0439386),
        (d.negative_binomial, 1000, dict(total_count=1000.0, logits=0.0), -4.7191043),
        (d.beta, 1e-6, dict(concentration1=1.0, concentration0=1e6), 12.8155106),
        (d.von_mises, 1e-3, dict(loc=0.0, concentration=1e6), 5.4888166),
    ],
)
def test_large_parameters(dist, value, params, expected):
    assert float(dist.log_prob(value, **params)) == pytest.approx(expected, abs=5e-4)
