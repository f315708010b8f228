"""The exact references, against the card's numbers and against independent computations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from scipy import stats
from scipy.integrate import quad

from stdlib.distribution_transformer import references, tasks


def test_inverse_gamma_in_logs():
    """Check 3 of the card: alpha 3, beta 2, z 1.5."""
    with jax.enable_x64(True):
        a, b = references.inverse_gamma_posterior(3.0, 2.0, 1.5)
        assert (a, b) == (3.5, 3.125)
        mean, variance = references.inverse_gamma_moments(a, b)
        np.testing.assert_allclose(mean, 0.0362776425, atol=1e-9)
        np.testing.assert_allclose(variance, 0.330357756, atol=1e-9)
        np.testing.assert_allclose(
            references.log_student_evidence(3.0, 2.0, 1.5), -2.319690561, atol=1e-9
        )
        student = stats.t.logpdf(1.5, 6.0, scale=np.sqrt(2.0 / 3.0))
        np.testing.assert_allclose(student, -2.319690561, atol=1e-9)

        def integrand(u):
            log_p = float(references.log_inverse_gamma(u, a, b))
            return np.exp(log_p) * (
                log_p - stats.norm.logpdf(u, float(mean), float(variance) ** 0.5)
            )

        np.testing.assert_allclose(quad(integrand, -4, 12)[0], 0.0252236219, atol=1e-8)


def test_bayes_rule_in_logs():
    u, alpha, beta, z = 0.4, 1.7, 2.3, -0.8
    a, b = references.inverse_gamma_posterior(alpha, beta, z)
    left = references.log_inverse_gamma(u, alpha, beta) + stats.norm.logpdf(z, 0, np.exp(u / 2))
    left = left - references.log_student_evidence(alpha, beta, z)
    np.testing.assert_allclose(left, references.log_inverse_gamma(u, a, b), atol=1e-5)


def test_with_one_prior_the_blind_best_is_the_posterior():
    alphas, betas = jnp.full(5, 1.7), jnp.full(5, 2.3)
    a, b = references.inverse_gamma_posterior(1.7, 2.3, -0.8)
    found = references.prior_information(jnp.array(0.4), jnp.array(-0.8), alphas, betas)
    np.testing.assert_allclose(found, references.log_inverse_gamma(0.4, a, b), atol=1e-5)


@pytest.mark.parametrize(
    ("delta", "time", "start", "p"),
    [
        (0.3, 1.0, (1.0, 0.0), 0.9261087342),
        (0.5, 3.0, (1.0, 1.0), 0.8631654643),
        (0.0, 0.7, (1.0, 1.0), 0.5),
        (0.0, 2.9, (1.0, 1.0), 0.5),
        (1.0, np.pi / 2, (1.0, 0.0), 0.0),
    ],
)
def test_the_two_level_system(delta, time, start, p):
    """Check 4 of the card."""
    with jax.enable_x64(True):
        found = tasks.zero_probability(delta, time, jnp.array(start))
    np.testing.assert_allclose(found, p, atol=1e-9)


def test_the_two_level_system_is_a_matrix_exponential():
    rng = np.random.default_rng(0)
    x, z = np.array([[0, 1], [1, 0]]), np.diag([1, -1])
    with jax.enable_x64(True):
        for _ in range(20):
            delta, time, start = rng.uniform(), rng.uniform(0, 5), rng.normal(size=2)
            evolve = scipy.linalg.expm(-1j * time * (delta * x + (1 - delta) * z))
            expected = abs((evolve @ start / np.linalg.norm(start))[0]) ** 2
            found = tasks.zero_probability(delta, time, jnp.asarray(start))
            np.testing.assert_allclose(found, expected, atol=1e-12)
            assert 0 <= found <= 1


def test_averaged_probabilities_and_the_quantum_posterior(key):
    """Quadrature over set-ups against 40,000 draws of them: |error| < 5.5 standard errors, at most
    0.005, false alarms below 1e-6; the posterior integrates to 1 and importance sampling
    gives its density (1,000,000 draws)."""
    grid = references.logit_grid(401)
    table = references.mean_probabilities(grid.points)
    keys = jax.random.split(key, 3)
    at = 220
    starts = tasks.STARTS + tasks.START_SD * jax.random.normal(keys[0], (40_000, 10, 2))
    times = tasks.TIMES + tasks.TIME_SD * jax.random.normal(keys[1], (40_000, 10))
    p = tasks.zero_probability(grid.points[at], times, starts)
    bound = 5.5 * p.std(0) / np.sqrt(len(p)) + 1e-5
    assert np.all(np.abs(p.mean(0) - table[at]) < bound)
    assert np.all(bound < 0.005)
    z = jnp.array([1, 0, 1, 1, 1, 0, 0, 1, 0, 1], bool)
    log_p = references.quantum_log_posterior(grid, table, 2.0, 3.0, z)
    np.testing.assert_allclose(jnp.sum(jnp.exp(log_p) * grid.widths), 1, rtol=1e-4)
    delta = jnp.array(0.45)
    sampled = references.quantum_importance(keys[2], 2.0, 3.0, z, delta, 100_000)
    np.testing.assert_allclose(references.at_point(grid, log_p, delta), sampled, atol=0.1)


def mean_of_chains(log_density, key):
    """The log of the mean density of eight chains: one alone is off by a fifth now and then."""
    each = jax.jit(jax.vmap(log_density))(jax.random.split(key, 8))
    return jax.nn.logsumexp(each, 0) - np.log(8)


def test_the_quantum_posterior_by_nuts(key):
    """Under a prior that leaves one mode: a chain goes seldom from one to another, and its kernels
    fill the valley between."""
    grid = references.logit_grid(401)
    z = jnp.array([1, 0, 1, 1, 1, 0, 0, 1, 0, 1], bool)
    table = references.mean_probabilities(grid.points)
    log_p = references.quantum_log_posterior(grid, table, 15.0, 30.0, z)
    at = jnp.array([0.25, 0.3, 0.35])
    exact = jax.vmap(lambda x: references.at_point(grid, log_p, x))(at)
    by_nuts = jax.vmap(references.quantum_nuts, (None, None, None, None, 0, None))
    chains = mean_of_chains(lambda key: by_nuts(key, 15.0, 30.0, z, at, 500), key)
    np.testing.assert_allclose(exact, chains, atol=0.15)


def test_process_posterior(key):
    """Against a density over a grid that is normalised by hand, and both samplers against it: the
    error of kernels with 5,000 draws, and of eight chains (their bias is some hundredths)."""
    with jax.enable_x64(True):
        at = jax.random.uniform(key, (tasks.POINTS,), float)
        y = jnp.sin(6 * at)
        data = references.ProcessData(*map(jnp.asarray, (3.0, 6.0, 0.2, 0.1)), at, y)

        def log_joint(l, s):
            cov = np.asarray(tasks.covariance(at, l, s))
            log_lik = stats.multivariate_normal.logpdf(np.asarray(y), np.full(len(y), 0.1), cov)
            log_prior = stats.gamma.logpdf(l, 3.0, scale=1 / 6.0)
            log_prior += stats.lognorm.logpdf(s, tasks.SCALE_SD, scale=np.exp(0.2))
            return log_lik + log_prior

        lengths, scales = np.exp(np.linspace(-4, 1.5, 80)), np.exp(np.linspace(-2.5, 3, 50))
        masses = np.array([[np.exp(log_joint(l, s)) * l * s for s in scales] for l in lengths])
        total = masses.sum() * np.log(lengths[1] / lengths[0]) * np.log(scales[1] / scales[0])
        expected = log_joint(0.4, 1.1) - np.log(total)
        x = jnp.array([0.4, 1.1])
        found = jax.jit(references.process_log_posterior)(data, x)
        np.testing.assert_allclose(found, expected, atol=0.01)
        sampled = jax.jit(references.process_importance, static_argnums=3)(key, data, x, 5_000)
        np.testing.assert_allclose(found, sampled, atol=0.15)
        chains = mean_of_chains(lambda key: references.process_nuts(key, data, x, 1_000), key)
        np.testing.assert_allclose(found, chains, atol=0.15)


def test_the_sensor_s_density_is_its_sampler_s(key):
    """Range readings: atoms at both ends and a histogram between them, 200,000 draws; |z| < 5.5
    per bin, false alarms below 1e-6 (the authors' code has two weights interchanged here)."""
    from ppl import seed

    x = jnp.array([3.0, 0.0, 2.0, 0.0])
    program = lambda: tasks.sensors.simulate(x).get_retval()
    keys = jax.random.split(key, 200_000)
    reading, angle = jax.jit(jax.vmap(seed(program)))(keys)
    given = lambda r: references.log_likelihood(r, tasks.bearing_of(x), x)
    at_mode = stats.norm.logpdf(0.0, 0.0, tasks.BEARING_SD)
    edges = np.linspace(0, 10, 41)
    fine = jnp.linspace(0.0, 10.0, 4001)
    density = np.exp(np.asarray(jax.vmap(given)(fine[1:-1])) - at_mode)
    mass = np.array([np.sum(density[i * 100 : (i + 1) * 100]) for i in range(40)]) * 0.0025
    counts, _ = np.histogram(np.asarray(reading), edges)
    atoms = [np.sum(reading <= 0), np.sum(reading >= 10)]
    counts[0] -= atoms[0]
    counts[-1] -= atoms[1]
    expected = np.exp(np.asarray([given(jnp.array(r)) for r in (0.0, 10.0)]) - at_mode)
    p, seen = np.concatenate([mass, expected]), np.concatenate([counts, atoms]) / len(keys)
    np.testing.assert_allclose(p.sum(), 1, atol=2e-3)
    z = (seen - p) / np.sqrt(p / len(keys) + (3e-3 * p) ** 2 + 1e-10)  # 3e-3: quadrature
    assert np.max(np.abs(z)) < 5.5
    np.testing.assert_allclose(jnp.std(angle), tasks.BEARING_SD, rtol=0.03)


def test_filters_of_a_linear_model_are_the_kalman_filter(key):
    """The extended Kalman filter with a linear sensor, against exact conditioning of the joint."""
    with jax.enable_x64(True):
        transition, noise = jnp.array([[0.9]]), jnp.array([[0.3]])
        z, x = jax.random.normal(key, (2, 6, 1), float)
        sensor = lambda z: (lambda m: m - z, lambda m: jnp.array([[0.5]]))
        start = references.Normal(jnp.zeros(1), jnp.eye(1))
        found = references.extended_kalman(start, z, x, sensor, transition, noise)
        cov = np.zeros((6, 6))
        variance = 1.0
        for i in range(6):
            for j in range(i, 6):
                cov[i, j] = cov[j, i] = variance * 0.9 ** (j - i)
            variance = 0.81 * variance + 0.3
        for t in range(6):
            seen = cov[: t + 1, : t + 1]
            gain = cov[t, : t + 1] @ np.linalg.inv(seen + 0.5 * np.eye(t + 1))
            mean, var = gain @ z[: t + 1, 0], cov[t, t] - gain @ cov[: t + 1, t]
            np.testing.assert_allclose(
                found[t], stats.norm.logpdf(x[t, 0], mean, var**0.5), atol=1e-9
            )


def test_the_grid_filter_s_first_step_is_bayes_rule():
    points = jnp.linspace(-8.0, 8.0, 801)
    prior = stats.norm.logpdf(points)
    found = references.grid_filter(jnp.asarray(prior), jnp.array([0.6]), jnp.array([0.5]), points)
    weight = lambda x: stats.norm.pdf(x) * stats.norm.pdf(0.6, x**2 / 4, tasks.OBSERVATION_SD)
    np.testing.assert_allclose(found[0], np.log(weight(0.5) / quad(weight, -8, 8)[0]), atol=1e-3)


def test_the_particle_filter_s_first_step_is_bayes_rule(key):
    """20,000 particles: the evidence is within 5 % of a Monte Carlo mean over 400,000 states."""
    x, z = jnp.array([[1.3, 0.2, 0.9, -0.1]]), (jnp.array([1.5]), jnp.array([0.9]))
    found = references.particle_filter(key, z, x, 20_000)
    states = tasks.START_LOC + jax.random.normal(jax.random.key(5), (400_000, 4))
    log_lik = references.log_likelihood(z[0][0], z[1][0], states)
    log_evidence = jax.nn.logsumexp(log_lik) - np.log(len(states))
    prior = stats.norm.logpdf(np.asarray(x[0]), tasks.START_LOC, 1.0).sum()
    expected = references.log_likelihood(z[0][0], z[1][0], x[0]) + prior - log_evidence
    np.testing.assert_allclose(found[0], expected, atol=0.05)
