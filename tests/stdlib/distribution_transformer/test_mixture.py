"""Mixtures: Bayes' rule, a worked example, moments, the enumerated label."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal as dense

from ppl import density
from stdlib.distribution_transformer.mixture import (
    Mixture,
    condition,
    draw,
    gmm,
    log_density,
    moments,
    predict,
    small_cholesky,
    small_product,
)
from stdlib.distribution_transformer.programs import labelled, summed


def some_mixture(k: int, n: int, seed: int = 0) -> Mixture:
    rng = np.random.default_rng(seed)
    tril = np.tril(rng.normal(size=(k, n, n)), -1) * 0.5 + np.eye(n) * rng.uniform(
        0.5, 1.5, (k, n, 1)
    )
    return Mixture(*map(jnp.asarray, (rng.normal(size=k), rng.normal(size=(k, n)), tril)))


def of_numbers(weights, means, variances) -> Mixture:
    scale = np.sqrt(np.array(variances))[:, None, None]
    return Mixture(*map(jnp.asarray, (np.log(weights), np.array(means)[:, None], scale)))


@pytest.mark.parametrize(("k", "n", "d"), [(1, 1, 1), (3, 2, 1), (4, 3, 3), (2, 4, 2)])
def test_bayes_rule_for_linear_gaussian_data(k, n, d):
    """log prior + log likelihood - log evidence = log posterior, at any x (card, check 1)."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(k)
        prior, matrix = some_mixture(k, n), jnp.asarray(rng.normal(size=(d, n)))
        noise = jnp.eye(d) * 0.3 + 0.1
        z, x = jnp.asarray(rng.normal(size=d)), jnp.asarray(rng.normal(size=n))
        posterior, log_evidence = condition(prior, matrix, noise, z)
        left = log_density(prior, x) + dense.logpdf(z, matrix @ x, noise) - log_evidence
        np.testing.assert_allclose(left, log_density(posterior, x), atol=1e-10)


def test_one_component_is_the_kalman_update():
    with jax.enable_x64(True):
        prior, matrix, noise = some_mixture(1, 3), jnp.ones((1, 3)), jnp.eye(1) * 0.2
        posterior, _ = condition(prior, matrix, noise, jnp.array([0.7]))
        p = prior.covariances[0]
        gain = p @ matrix.T / (matrix @ p @ matrix.T + noise)
        mean = prior.loc[0] + gain @ (jnp.array([0.7]) - matrix @ prior.loc[0])
        np.testing.assert_allclose(posterior.loc[0], mean, atol=1e-12)
        left = jnp.eye(3) - gain @ matrix
        np.testing.assert_allclose(posterior.covariances[0], left @ p, atol=1e-12)


def test_data_without_information_leave_the_prior_and_exact_data_leave_nothing_else():
    with jax.enable_x64(True):
        prior, z = some_mixture(3, 2), jnp.array([0.4, -0.2])
        vague, _ = condition(prior, jnp.eye(2), 1e9 * jnp.eye(2), z)
        np.testing.assert_allclose(vague.weights, prior.weights, atol=1e-6)
        np.testing.assert_allclose(vague.loc, prior.loc, atol=1e-6)
        sharp, _ = condition(prior, jnp.eye(2), 1e-9 * jnp.eye(2), z)
        np.testing.assert_allclose(sharp.loc, jnp.broadcast_to(z, (3, 2)), atol=1e-6)
        assert jnp.all(jnp.abs(sharp.covariances) < 1e-8)


def test_the_worked_example():
    """The card's numbers (check 2)."""
    with jax.enable_x64(True):
        prior = of_numbers([0.3, 0.7], [-1.0, 2.0], [0.5, 1.5])
        one = jnp.eye(1)
        posterior, log_evidence = condition(prior, one, 0.4 * one, jnp.array([0.8]))
        np.testing.assert_allclose(posterior.weights, [0.130704588, 0.869295412], atol=1e-9)
        np.testing.assert_allclose(posterior.loc[:, 0], [0.0, 1.052631579], atol=1e-9)
        np.testing.assert_allclose(
            posterior.covariances[:, 0, 0], [0.2222222, 0.3157895], atol=1e-7
        )
        np.testing.assert_allclose(log_evidence, -1.835415522, atol=1e-9)
        after = predict(posterior, 0.95 * one, one)
        np.testing.assert_allclose(after.loc[:, 0], [0.0, 1.0], atol=1e-9)
        np.testing.assert_allclose(after.covariances[:, 0, 0], [1.200555556, 1.285], atol=1e-8)
        mean, covariance = moments(after)
        np.testing.assert_allclose(mean, [0.869295412], atol=1e-9)
        np.testing.assert_allclose(covariance, [[1.387583622]], atol=1e-9)


def test_prediction_moves_the_moments():
    """Mean A m and covariance A C Aᵀ + Q, exactly (check 10)."""
    with jax.enable_x64(True):
        mixture, rng = some_mixture(4, 3), np.random.default_rng(1)
        matrix, noise = jnp.asarray(rng.normal(size=(3, 3))), jnp.eye(3) * 0.2 + 0.05
        mean, covariance = moments(mixture)
        new_mean, new_covariance = moments(predict(mixture, matrix, noise))
        np.testing.assert_allclose(new_mean, matrix @ mean, atol=1e-12)
        np.testing.assert_allclose(
            new_covariance, matrix @ covariance @ matrix.T + noise, atol=1e-12
        )


@pytest.mark.parametrize(("k", "n"), [(1, 1), (4, 1), (3, 2)])
def test_the_label_summed_out_by_the_language_gives_the_primitive_density(k, n):
    """Values and gradients (check 8)."""
    with jax.enable_x64(True):
        mixture, x = some_mixture(k, n), jnp.linspace(-1.0, 0.7, n)
        by_sum = lambda mixture: density(summed)({"x": x}, mixture)
        by_primitive = lambda mixture: gmm.logpdf(x, *mixture)
        a, grad_a = jax.value_and_grad(by_sum)(mixture)
        b, grad_b = jax.value_and_grad(by_primitive)(mixture)
        np.testing.assert_allclose(a, b, atol=1e-10)
        jax.tree.map(lambda s, t: np.testing.assert_allclose(s, t, atol=1e-10), grad_a, grad_b)
        joint = [density(labelled)({"label": j, "x": x}, mixture) for j in range(k)]
        np.testing.assert_allclose(jax.nn.logsumexp(jnp.array(joint)), b, atol=1e-10)


def test_draws_have_the_mixture_s_moments(key):
    """50,000 draws; |z| < 5.5 for each entry: false alarms below 1e-6, errors of 3 % of a standard
    deviation are seen."""
    mixture = some_mixture(3, 2)
    x = draw(mixture, key, 50_000)
    mean, covariance = moments(mixture)
    z = (x.mean(0) - mean) / (x.std(0) / np.sqrt(len(x)))
    assert jnp.all(jnp.abs(z) < 5.5)
    products = (x - mean)[:, :, None] * (x - mean)[:, None]
    z = (products.mean(0) - covariance) / (products.std(0) / np.sqrt(len(x)))
    assert jnp.all(jnp.abs(z) < 5.5)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_small_matrices_are_those_of_the_library(n, key):
    """Products and Cholesky factors that are written out, and their derivatives."""
    a, b = jax.random.normal(key, (2, 5, n, n))
    square = a @ jnp.swapaxes(a, -1, -2) + jnp.eye(n)
    np.testing.assert_allclose(small_product(a, b), a @ b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        small_cholesky(square), jnp.linalg.cholesky(square), rtol=1e-4, atol=1e-5
    )
    # Of symmetric matrices: the library's derivative is for these.
    cost = lambda f: lambda x: jnp.sum(jnp.cos(f(x @ jnp.swapaxes(x, -1, -2) + jnp.eye(n))))
    found, wanted = (jax.grad(cost(f))(a) for f in (small_cholesky, jnp.linalg.cholesky))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
