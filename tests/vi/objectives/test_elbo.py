"""Objectives: exact values on conjugate models, order of the bounds, their arguments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import gen, normal, param, positive, vi

Y = 2.0


@gen
def model():
    z = normal(0.0, 1.0) @ "z"
    normal(z, 1.0) @ "y"


@gen
def prior_guide():
    normal(param("loc", 0.0), param("scale", 1.0, support=positive)) @ "z"


@gen
def amortised(y):
    normal(param("slope", 0.5) * y, param("scale", np.sqrt(0.5), support=positive)) @ "z"


def values(objective, n=100_000):
    est = vi.compile(objective)
    params = est.init(jax.random.key(0))
    run = jax.jit(jax.vmap(lambda k: est.value(k, params)))
    return np.asarray(run(jax.random.split(jax.random.key(1), n)), np.float64)


# By quadrature: ELBO and IWELBO of z ~ N(0, 1), y ~ N(z, 1) at y = 2 with the prior as guide.
@pytest.mark.parametrize("particles, exact", [(1, -3.418939), (2, -2.757902), (3, -2.560759)])
def test_bounds_with_the_prior_as_guide(particles, exact):
    """100,000 draws, |z| < 5.5 (false-alarm rate 4e-8); a bias of 0.03 nats would fail."""
    draws = values(vi.iwelbo(model, prior_guide, particles=particles, observed={"y": Y}))
    stderr = draws.std() / np.sqrt(len(draws))
    assert 5.5 * stderr < 0.04
    assert abs(draws.mean() - exact) < 5.5 * stderr


def test_one_particle_is_the_elbo():
    assert values(vi.elbo(model, prior_guide, observed={"y": Y})).mean() == pytest.approx(
        -3.418939, abs=0.05
    )


def test_guide_arguments():
    """An amortised guide that is the posterior: every draw of the bound is log p(y)."""
    objective = vi.elbo(model, amortised, observed={"y": Y}, guide_args=(jnp.float32(Y),))
    log_evidence = -(Y**2) / 4 - 0.5 * np.log(4 * np.pi)
    np.testing.assert_allclose(values(objective, 100), log_evidence, atol=1e-4)
    fit = vi.fit(objective, steps=10, progress=False)
    assert fit.sample(5)["z"].shape == (5,)


def test_no_particles():
    with pytest.raises(ValueError, match="at least 1"):
        vi.iwelbo(model, prior_guide, particles=0, observed={"y": Y})
