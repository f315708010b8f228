"""`vi.nuts` on a normal law that is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import vi

pytest.importorskip("blackjax")

LOC = jnp.array([1.0, -2.0])
COVARIANCE = jnp.array([[1.0, 1.2], [1.2, 4.0]])


def log_density(x):
    away = x - LOC
    return -0.5 * away @ jnp.linalg.solve(COVARIANCE, away)


def test_moments_of_a_correlated_normal_law():
    """Eight chains under `jit` and `vmap`. With at least 1,000 effective draws a mean's standard
    error is at most .032 sd and a variance's .045: .25 is 5.5 of the latter (false alarm rate
    4e-8); a bias twice as large always shows."""
    from blackjax.diagnostics import effective_sample_size

    chain = lambda key: vi.nuts(key, log_density, jnp.zeros(2), num_warmup=200, num_samples=400)
    draws, diverged = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(0), 8))
    assert draws.shape == (8, 400, 2) and diverged.shape == (8, 400)
    assert float(jnp.mean(diverged)) < 0.01
    assert np.min(effective_sample_size(draws)) > 1_000
    every = np.asarray(draws).reshape(-1, 2)
    sd = np.sqrt(np.diag(COVARIANCE))
    np.testing.assert_allclose((every.mean(0) - LOC) / sd, 0.0, atol=0.25)
    np.testing.assert_allclose((np.cov(every.T) - COVARIANCE) / np.outer(sd, sd), 0.0, atol=0.25)


def test_the_same_key_gives_the_same_chain():
    run = lambda key: vi.nuts(key, log_density, jnp.zeros(2), num_warmup=20, num_samples=5)[0]
    first, again = run(jax.random.key(0)), run(jax.random.key(0))
    np.testing.assert_array_equal(first, again)
    assert jnp.any(first != run(jax.random.key(1)))
