"""The card's exact numbers and identities for normal-inverse-Wishart laws, in double precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from stdlib.niw_meta import niw

Law = niw.Law


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def example() -> tuple[jax.Array, jax.Array, float, Law]:
    """The card's worked example (6.2): X, y, variance of the noise, q."""
    x, y = jnp.array([[1.0, 0], [1, 1], [1, 2]]), jnp.array([0.5, 1, 2.5])
    law = Law(jnp.array([0.0, 0.5]), 4.0, jnp.array([[2.0, 0.3], [0.3, 1]]), 6.0)
    return x, y, 0.25, law


def local_objective(mean, covariance):
    """f_i, the part of F that is the example's task."""
    x, y, variance, law = example()
    squares = (y - x @ mean) ** 2 + jnp.einsum("ni,ij,nj->n", x, covariance, x)
    nll = 0.5 * jnp.sum(squares / variance + jnp.log(2 * jnp.pi * variance))
    return nll, niw.expected_kl(mean, covariance, law)


def test_the_worked_example():
    x, y, variance, law = example()
    tasks = niw.regressions(x[None], y[None], variance**0.5)
    np.testing.assert_allclose(tasks.precision[0], [[12, 12], [12, 20]])
    np.testing.assert_allclose(jnp.linalg.solve(tasks.precision[0], tasks.linear[0]), [1 / 3, 1])
    local = niw.local_posteriors(tasks, law)
    np.testing.assert_allclose(local.mean[0], [0.3918261926, 0.8678213309], rtol=1e-9)
    wanted = [[0.0953357642, -0.0401093892], [-0.0401093892, 0.0549225160]]
    np.testing.assert_allclose(local.covariance[0], wanted, rtol=1e-8)
    nll, kl = local_objective(local.mean[0], local.covariance[0])
    np.testing.assert_allclose([nll, kl], [1.7530968587, 1.7674618938], rtol=1e-9)
    prior = Law(jnp.zeros(2), 1.0, jnp.eye(2), 4.0)
    np.testing.assert_allclose(niw.kl(law, prior), 1.9552117313, rtol=1e-9)
    at = law.log_weight_density(jnp.array([1.0, -1.0]))
    np.testing.assert_allclose(at, -5.3359264485, rtol=1e-9)


def test_the_gap_to_the_evidence():
    """min f_i = -log evidence + gap(df) + d / (2 strength), for Gaussian tasks."""
    x, y, variance, law = example()
    local = niw.local_posteriors(niw.regressions(x[None], y[None], variance**0.5), law)
    total = sum(local_objective(local.mean[0], local.covariance[0]))
    covariance = x @ (law.scale / law.df) @ x.T + variance * jnp.eye(3)
    evidence = stats.multivariate_normal.logpdf(y, x @ law.loc, covariance)
    np.testing.assert_allclose([-evidence, total], [2.9849169518, 3.5205587525], rtol=1e-9)
    np.testing.assert_allclose(total + evidence, niw.gap(law.df, 2) + 2 / (2 * 4.0), rtol=1e-10)


def test_the_gap_decreases_to_d_times_d_plus_1_over_4_df():
    df = jnp.array([3.0, 6, 20, 200, 2e6])
    gaps = jnp.stack([niw.gap(n, 2) for n in df])
    wanted = [0.6758279536, 0.2856418008, 0.0778398603, 0.0075272090]
    np.testing.assert_allclose(gaps[:4], wanted, rtol=1e-8)
    assert jnp.all(jnp.diff(gaps) < 0)
    np.testing.assert_allclose(gaps[-1] * df[-1], 2 * 3 / 4, rtol=1e-5)


def test_the_local_posterior_is_the_minimiser():
    x, y, variance, law = example()
    local = niw.local_posteriors(niw.regressions(x[None], y[None], variance**0.5), law)

    def objective(flat):
        factor = jnp.array([[jnp.exp(flat[2]), 0], [flat[3], jnp.exp(flat[4])]])
        return sum(local_objective(flat[:2], factor @ factor.T))

    both = jax.jit(jax.value_and_grad(objective))
    best = optimize.minimize(both, np.zeros(5), jac=True, method="BFGS", tol=1e-10).x
    factor = np.array([[np.exp(best[2]), 0], [best[3], np.exp(best[4])]])
    np.testing.assert_allclose(best[:2], local.mean[0], atol=1e-6)
    np.testing.assert_allclose(factor @ factor.T, local.covariance[0], atol=1e-6)


def test_divergences_are_affine_invariant_positive_and_zero_for_equals():
    *_, law = example()
    other = Law(jnp.array([0.3, -0.2]), 1.3, jnp.array([[1.0, -0.2], [-0.2, 0.8]]), 4.5)
    matrix, shift = jnp.array([[1.5, 0.4], [-0.3, 0.7]]), jnp.array([2.0, -1.0])

    def moved(q: Law) -> Law:
        return Law(matrix @ q.loc + shift, q.strength, matrix @ q.scale @ matrix.T, q.df)

    np.testing.assert_allclose(niw.kl(moved(law), moved(other)), niw.kl(law, other), rtol=1e-10)
    np.testing.assert_allclose(niw.kl(law, law), 0, atol=1e-12)
    assert niw.kl(law, other) > 0 and niw.kl(other, law) > 0
    m, v = jnp.array([0.1, 0.2]), jnp.array([[0.5, 0.1], [0.1, 0.3]])
    plain = niw.expected_kl(m, v, law)
    turned = niw.expected_kl(matrix @ m + shift, matrix @ v @ matrix.T, moved(law))
    np.testing.assert_allclose(turned, plain, rtol=1e-10)


def test_size_one_is_normal_inverse_gamma():
    """A product of laws of size 1 is the formula summed; IW(V, n) is inverse gamma(n/2, V/2)."""
    m1, v1, law = 0.4, 0.3, Law(jnp.array([-0.2]), 2.0, jnp.array([[0.7]]), 3.0)
    a, b = law.df / 2, law.scale[0, 0] / 2
    draws = 1 / np.random.default_rng(0).gamma(a, 1 / b, 400_000)
    mu = -0.2 + np.sqrt(draws / 2.0) * np.random.default_rng(1).standard_normal(400_000)
    kl = 0.5 * (v1 / draws + (m1 - mu) ** 2 / draws - 1 + np.log(draws / v1))
    found = niw.expected_kl(jnp.array([m1]), jnp.array([[v1]]), law)
    assert abs(kl.mean() - found) < 5.5 * kl.std() / np.sqrt(len(kl))  # 1 % would be seen
    inverse_gamma = stats.invgamma.logpdf(0.9, a, scale=b)
    np.testing.assert_allclose(stats.invwishart.logpdf(0.9, 3.0, 0.7), inverse_gamma)


def test_the_mode_maximises_the_joint_density():
    *_, law = example()
    mu, sigma = law.mode

    def log_density(flat):
        factor = jnp.array([[jnp.exp(flat[2]), 0], [flat[3], jnp.exp(flat[4])]])
        covariance = factor @ factor.T
        apart, inverse = flat[:2] - law.loc, jnp.linalg.inv(covariance)
        log_det = jnp.linalg.slogdet(covariance)[1]
        square = law.strength * apart @ inverse @ apart + jnp.trace(law.scale @ inverse)
        return -0.5 * (square + (law.df + 2 + 2) * log_det)

    factor = jnp.linalg.cholesky(sigma)
    best = jnp.array([*mu, jnp.log(factor[0, 0]), factor[1, 0], jnp.log(factor[1, 1])])
    slope, curvature = jax.jit(lambda x: (jax.grad(log_density)(x), jax.hessian(log_density)(x)))(
        best
    )
    np.testing.assert_allclose(slope, jnp.zeros(5), atol=1e-10)
    assert np.all(np.linalg.eigvalsh(curvature) < 0)


def many_tasks() -> tuple[niw.GaussianTasks, Law]:
    rng = np.random.default_rng(0)
    theta = np.array([1.0, -2.0]) + rng.standard_normal((30, 2))
    x = rng.standard_normal((30, 3, 2))
    y = np.einsum("tpd,td->tp", x, theta) + 0.3 * rng.standard_normal((30, 3))
    tasks = niw.regressions(jnp.asarray(x), jnp.asarray(y), 0.3)
    return tasks, Law(jnp.zeros(2), 0.01, 0.1 * jnp.eye(2), 4.0)


def test_coordinate_ascent_never_raises_the_free_energy_and_ends_at_a_minimum():
    tasks, prior = many_tasks()
    law, local, energies = jax.jit(niw.coordinate_ascent, static_argnums=2)(tasks, prior, 200)
    assert np.all(np.diff(energies) < 1e-9)
    energy = jax.jit(lambda law: niw.free_energy(tasks, local, law, prior))
    best = energy(law)
    others = [
        law._replace(strength=1.05 * law.strength),
        law._replace(df=1.05 * law.df),
        law._replace(loc=law.loc + 0.01),
        law._replace(scale=1.03 * law.scale),
    ]
    assert all(energy(other) > best for other in others)


def test_without_tasks_the_update_is_the_prior():
    prior = Law(jnp.ones(2), 0.5, jnp.eye(2), 4.0)
    none = niw.LocalPosterior(jnp.zeros((0, 2)), jnp.zeros((0, 2, 2)))
    jax.tree.map(np.testing.assert_allclose, niw.update(prior, none), prior)
