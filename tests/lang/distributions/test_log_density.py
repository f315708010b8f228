"""Log-densities of all distributions against SciPy in float64, inside and outside the support."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl.lang.distributions as d

from .cases import CASES, Case, float32

with_case = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_distribution_has_a_case():
    covered = {c.family.name for c in CASES}
    assert {x.family.value.name for x in d.ALL} <= covered


@with_case
def test_log_density(case: Case):
    values = np.asarray(case.values)
    is_number = values.ndim == 1 and case.family.name != "delta"
    if is_number:  # and a grid, to integrate or to sum
        discrete = values.dtype != np.float64
        grid = np.arange(400) if discrete else np.linspace(min(values), max(values), 4001)
        values = np.concatenate([values, grid])
    given = values if values.dtype != np.float64 else values.astype(np.float32)
    compiled = jax.jit(lambda x, params: case.dist.log_prob(x, **params))
    n = len(case.values)
    for params in case.params:
        found = compiled(given, float32(params))
        assert found.dtype == jnp.float32
        assert found.shape == (len(values),)
        reference = case.reference(**{k: np.float64(np.float32(p)) for k, p in params.items()})
        expected = reference.log_density(np.asarray(given[:n], values.dtype))
        np.testing.assert_allclose(found[:n], expected, rtol=1e-5, atol=2e-5)
        density = np.exp(np.asarray(found[n:], np.float64))
        if is_number and discrete:
            assert np.sum(density) == pytest.approx(1, abs=1e-5)
        elif reference.cdf is not None:
            mass = reference.cdf(max(values)) - reference.cdf(min(values))
            assert np.trapezoid(density, values[n:]) == pytest.approx(mass, abs=1e-3)


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
