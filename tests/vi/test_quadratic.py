"""Local quadratic fits: solvers on losses whose quadratic is known, and no derivative through them.

The statistical test (Langevin) has |z| < 5.5 and says what it would catch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import gen, normal, param, seed, vi
from ppl.errors import ShapeError

A = jnp.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 0.0625]])
A = A @ A  # positive definite
CENTER = jnp.array([0.5, -1.0, 2.0])
LOC, FACTOR = jnp.array([0.1, 0.2, 0.3]), jnp.array([[1.0, 0, 0], [0.4, 0.7, 0], [-0.2, 0.3, 1.5]])


def quadratic_loss(x):
    return 0.5 * (x - CENTER) @ A @ (x - CENTER)


def exact_posterior(a):
    precision = jnp.linalg.inv(FACTOR @ FACTOR.T)
    covariance = jnp.linalg.inv(a + precision)
    return covariance @ (a @ CENTER + precision @ LOC), covariance


@pytest.mark.parametrize("start", [jnp.zeros(3), jnp.array([5.0, -3.0, 1.0])])
def test_newton_is_exact_for_a_quadratic(start):
    found = vi.local_quadratic(quadratic_loss, start, by=vi.Newton())
    np.testing.assert_allclose(found.precision, A, rtol=1e-4, atol=1e-5)
    for got, wanted in zip(found.posterior(LOC, FACTOR), exact_posterior(A), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=2e-4)


def test_newton_steps_reach_the_minimum_and_flat_directions_stay():
    loss = lambda x: jnp.cosh(x[0] - 1.0) + 0 * x[1]
    found = vi.local_quadratic(loss, jnp.array([0.0, 7.0]), by=vi.Newton(steps=6))
    np.testing.assert_allclose(found.center, [1.0, 7.0], atol=1e-4)
    mean, covariance = found.posterior(jnp.zeros(2), jnp.eye(2))
    np.testing.assert_allclose(mean, [0.5, 0.0], atol=1e-4)
    np.testing.assert_allclose(covariance, [[0.5, 0], [0, 1]], atol=1e-4)


def test_downward_curvature_counts_as_none():
    found = vi.local_quadratic(lambda x: x[0] ** 2 - x[1] ** 2, jnp.ones(2), by=vi.Newton())
    np.testing.assert_allclose(found.precision, [[2, 0], [0, 0]], atol=1e-5)


def test_limits_of_the_posterior():
    """No data: the prior. Much data: the centre. A flat prior: Laplace's approximation."""
    zero, sd = jnp.zeros(3), jnp.array([0.3, 1.0, 2.0])
    mean, variance = vi.Quadratic(CENTER, zero, zero).posterior(LOC, sd)
    np.testing.assert_allclose(mean, LOC)
    np.testing.assert_allclose(variance, sd**2, rtol=1e-6)
    mean, variance = vi.Quadratic(CENTER, zero, zero + 1e8).posterior(LOC, sd)
    np.testing.assert_allclose(mean, CENTER, rtol=1e-5)
    assert jnp.max(variance) < 1e-7
    mean, covariance = vi.Quadratic(CENTER, zero, A).posterior(LOC, 300 * jnp.eye(3))
    with jax.enable_x64(True):
        wanted = np.linalg.inv(np.asarray(A, float) + np.eye(3) / 300**2)
    np.testing.assert_allclose(covariance, wanted, rtol=0.02)


def test_gauss_newton_of_a_regression():
    """A = sum of squared derivatives / sd^2; exact for a linear network."""
    x = jax.random.normal(jax.random.key(0), (5, 3))
    loss = vi.Composed(lambda w: x @ w, lambda f: 0.5 * jnp.sum((f - 1.0) ** 2) / 0.25)
    found = vi.local_quadratic(loss, jnp.zeros(3), by=vi.GradientDescent(3000, 1e-2))
    np.testing.assert_allclose(found.precision, jnp.sum(x**2, 0) / 0.25, rtol=1e-5)
    np.testing.assert_allclose(found.center, jnp.linalg.lstsq(x, jnp.ones(5))[0], atol=1e-3)
    clipped = vi.GradientDescent(1, 1.0, max_norm=1e-2, max_precision=3.0)
    found = vi.local_quadratic(loss, jnp.zeros(3), by=clipped)
    np.testing.assert_allclose(jnp.linalg.norm(found.center), 1e-2, rtol=1e-5)
    assert jnp.max(found.precision) == 3.0


def test_damped_gauss_newton_is_ridge_regression_for_a_linear_network():
    x = jax.random.normal(jax.random.key(0), (4, 6))  # more weights than data
    loss = vi.Composed(lambda w: x @ w, lambda f: 0.5 * jnp.sum((f - 1.0) ** 2) / 0.25)
    found = vi.local_quadratic(loss, jnp.zeros(6), by=vi.GaussNewton(1, damping=3.0))
    ridge = jnp.linalg.solve(x.T @ x / 0.25 + 3.0 * jnp.eye(6), x.T @ jnp.ones(4) / 0.25)
    np.testing.assert_allclose(found.center, ridge, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.precision, jnp.sum(x**2, 0) / 0.25, rtol=1e-5)
    many = vi.local_quadratic(loss, jnp.zeros(6), by=vi.GaussNewton(100, damping=3.0))
    np.testing.assert_allclose(x @ many.center, jnp.ones(4), atol=1e-3)


@pytest.mark.parametrize(("a", "step", "variance"), [(50.0, 0.05, 0.0533), (10.0, 0.02, 0.1053)])
def test_langevin_has_its_stationary_variance(a, step, variance):
    """1/(a (1 - step a/4)): the curvature is seen too small by that factor (card, 6.7). 20,000
    iterates of autocorrelation 1 - step a/2: an error of 5 % in the variance is seen."""
    steps, rho = 20_000, abs(1 - step * a / 2)
    solver = vi.Langevin(steps=steps, burn_in=200, step_size=step)
    run = seed(
        lambda: vi.local_quadratic(lambda x: 0.5 * a * jnp.sum(x**2), jnp.zeros(2), by=solver)
    )
    found = jax.jit(run)(jax.random.key(0))
    sd = np.sqrt(2 * (1 + rho**2) / (1 - rho**2) / steps)
    assert np.all(np.abs(1 / found.precision / variance - 1) < 5.5 * sd + 0.002)


def test_langevin_inside_of_a_guide():
    """The noise is no choice of the guide, and its draws differ from step to step."""

    @gen
    def model():
        w = normal(jnp.zeros(2), 1.0) @ "w"
        normal(w, 0.5) @ "y"

    @gen
    def guide():
        m = param("m", jnp.zeros(2))
        loss = lambda w: 2.0 * jnp.sum((w - 1.0) ** 2)
        by = vi.Langevin(steps=8, step_size=0.1)
        mean, variance = vi.local_quadratic(loss, m, by=by).posterior(m, jnp.ones(2))
        normal.reparam(mean, jnp.sqrt(variance)) @ "w"

    est = vi.compile(vi.elbo(model, guide, observed={"y": jnp.ones(2)}), rewrites="closed_form")
    params = est.init(jax.random.key(0))
    values = [est.value(jax.random.key(k), params) for k in range(3)]
    evidence = 2 * float(jax.scipy.stats.norm.logpdf(1.0, 0.0, jnp.sqrt(1.25)))
    assert len(set(map(float, values))) == 3
    assert max(values) < evidence  # given the noise each is a bound, and nothing else is drawn


def test_nothing_is_differentiated_through_a_solver():
    """The derivative is that of the closed form, with the quadratic held."""

    def mean_of(m, held=None):
        found = held or vi.local_quadratic(lambda x: jnp.sum(x**4), m, by=vi.Newton(2))
        return jnp.sum(found.posterior(m, jnp.eye(2) * 0.7)[0])

    m = jnp.array([0.5, -1.0])
    held = vi.local_quadratic(lambda x: jnp.sum(x**4), m, by=vi.Newton(2))
    np.testing.assert_allclose(jax.grad(mean_of)(m), jax.grad(lambda m: mean_of(m, held))(m))
    tangents = jax.jvp(
        lambda m: vi.local_quadratic(quadratic_loss, m, by=vi.Newton()), (CENTER,), (CENTER,)
    )
    assert all(not np.any(t) for t in jax.tree.leaves(tangents[1]))


def test_memory_does_not_grow_with_the_steps():
    x = jnp.linspace(-1, 1, 50)

    def temporary(steps):
        def objective(m):
            loss = vi.Composed(lambda w: jnp.tanh(x * w[0]) + w[1], lambda f: jnp.sum((f - x) ** 2))
            found = vi.local_quadratic(loss, m, by=vi.GradientDescent(steps, 1e-3))
            return jnp.sum(found.posterior(m, jnp.ones(2))[0] ** 2)

        compiled = jax.jit(jax.grad(objective)).lower(jnp.ones(2)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(1000) < 1.1 * temporary(10)


def test_errors():
    with pytest.raises(ShapeError, match="the start is a vector"):
        vi.local_quadratic(jnp.sum, jnp.ones((2, 2)), by=vi.Newton())
    with pytest.raises(ShapeError, match="the loss is a number"):
        vi.local_quadratic(lambda x: x, jnp.ones(2), by=vi.Newton())
    with pytest.raises(TypeError, match="Composed"):
        vi.local_quadratic(lambda x: jnp.sum(x), jnp.ones(2), by=vi.GradientDescent(1, 0.1))
    with pytest.raises(ValueError, match="two or more"):
        vi.Langevin(steps=5, burn_in=4, step_size=0.1)
    with pytest.raises(ShapeError, match="give the prior's Cholesky factor"):
        vi.Quadratic(CENTER, LOC, A).posterior(LOC, jnp.ones(3))
