"""The objective: its loss, its gradient, its plan; and filters as programs."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import digamma

from ppl import bind_params, density, gen, normal, param, scan, seed, sim, vi
from ppl.testing import assert_unbiased
from stdlib.distribution_transformer import references, tasks
from stdlib.distribution_transformer.mixture import Mixture, log_density
from stdlib.distribution_transformer.programs import (
    amortised,
    filtering,
    guides,
    initial_prior,
    network,
    recycled,
    run_filter,
)

SMALL = dict(width=8, heads=2, layers=1, hidden=8)
TASKS = ["variance", "squared", "quantum", "process", "fusion"]


@pytest.mark.parametrize("name", TASKS)
def test_no_choice_of_the_simulator_needs_a_gradient_strategy(name):
    task = getattr(tasks, name)
    plan = vi.compile(amortised(task, network(task, 4, **SMALL)), num_samples=2).explain()
    assert {c.strategy for c in plan.choices} == {"drawn"}
    assert "no gradient strategy is needed" in str(plan)
    assert not plan.costs and not plan.warnings


def test_the_gradient_is_that_of_the_guide_at_the_drawn_sample(key):
    """Check 9: nothing comes from the simulator, sample by sample."""
    task, init = tasks.variance, network(tasks.variance, 3, **SMALL)
    est = vi.compile(amortised(task, init))
    params = est.init(key)
    value, grad = eqx.filter_jit(est.value_and_grad)(key, params)
    task_draws = vi.compile(_picked(task, init))
    run = eqx.filter_jit(task_draws.value)
    pick = lambda i: run(key, params | {"pick": jnp.float32(i)})
    c = dict(zip(("log_alpha", "log_beta", "x", "z"), map(pick, range(4)), strict=True))
    c = c | {"x": c["x"][None], "z": c["z"][None]}
    posterior, reconstruction = guides(task, init)

    def log_q(net):
        x, prior = {"x": task.latent(c)}, task.prior(c)
        q = lambda program, *args: bind_params(density(program), {"network": net})(x, *args)
        return q(posterior, prior, task.data(c)) + q(reconstruction, prior)

    expected, by_hand = eqx.filter_jit(eqx.filter_value_and_grad(log_q))(params["network"])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (grad["network"], by_hand)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def _picked(task, init):
    """One of the four numbers that the objective draws, with the same key."""

    @vi.objective
    def distribution_transformer():
        c, _ = sim(task.joint)()
        param("network", init)
        values = jnp.stack([c["log_alpha"], c["log_beta"], c["x"][0], c["z"][0]])
        return jnp.sum(jnp.where(jnp.arange(4) == param("pick", 0.0), values, 0.0))

    return distribution_transformer


class OneNormal(eqx.Module):
    """In a network's place: one normal law of log x, whatever the prior and the data."""

    loc: jax.Array

    def prior_mixture(self, prior):
        return Mixture(jnp.zeros(1), self.loc[None, None], jnp.ones((1, 1, 1)))

    def __call__(self, prior, *data):
        return self.prior_mixture(prior)


def test_the_objective_is_unbiased():
    """Its gradient is 2 (E log x - loc), and E log x = E log beta - E digamma(alpha) by quadrature.
    Catches a bias of 3 %, false alarms below 1e-6."""
    low, high = np.log(0.7), np.log(8.0)
    psi = quad(lambda a: digamma(np.exp(a)), low, high)[0] / (high - low)
    mean = (np.log(0.3) + np.log(10.0)) / 2 - psi
    objective = amortised(tasks.variance, lambda key: OneNormal(jnp.array(1.0)))
    assert_unbiased(objective, exact={"network": OneNormal(jnp.asarray(2 * (mean - 1.0)))})


def test_the_loss_is_the_entropy_plus_the_divergence(key):
    """Check 6: for a fixed q, E[-log q] over 4,000 problems less the mean entropy of the exact
    posteriors equals the mean KL by other draws; |z| < 5.5, false alarms below 1e-6."""
    task, init = tasks.variance, network(tasks.variance, 3, **SMALL)
    net = init(key)
    keys = jax.random.split(key, 4_000)

    def one(key):
        c = seed(lambda: sim(task.joint)()[0])(key)
        q = net(task.prior(c), *task.data(c))
        alpha, beta = jnp.exp(c["log_alpha"]), jnp.exp(c["log_beta"])
        a, b = references.inverse_gamma_posterior(alpha, beta, c["z"][0])
        loss = -log_density(q, jnp.log(c["x"]))
        u = jnp.log(b) - jax.random.loggamma(jax.random.fold_in(key, 1), a, (32,))
        log_p = references.log_inverse_gamma(u, a, b)
        kl = jnp.mean(log_p - log_density(q, u[:, None]))
        # Of u = log x: E[-log p] = -a log b + log Γ(a) + a (log b - ψ(a)) + a.
        entropy = a + jax.scipy.special.gammaln(a) - a * jax.scipy.special.digamma(a)
        return loss - entropy - kl

    gap = jax.jit(jax.vmap(one))(keys)
    assert jnp.abs(jnp.mean(gap)) < 5.5 * jnp.std(gap) / np.sqrt(len(gap))
    assert jnp.std(gap) / np.sqrt(len(gap)) < 0.05


@pytest.mark.parametrize("name", ["variance", "quantum", "process"])
def test_the_density_of_x_has_the_jacobian(name, key):
    """log q(x) = log q_u(f(x)) + log |f'(x)|."""
    task = getattr(tasks, name)
    init = network(task, 3, **SMALL)
    c = seed(lambda: sim(task.joint)()[0])(key)
    x, prior, data = task.latent(c), task.prior(c), task.data(c)
    posterior, _ = guides(task, init)
    net = init(key)
    found = bind_params(density(posterior), {"network": net})({"x": x}, prior, data)
    u = jax.scipy.special.logit if name == "quantum" else jnp.log
    slope = jnp.linalg.slogdet(jax.jacfwd(u)(x))[1]
    np.testing.assert_allclose(found, log_density(net(prior, *data), u(x)) + slope, rtol=1e-4)


def test_a_filter_as_a_program_of_the_states(key):
    """Its density is the product of the filtering densities, each step's prior the prediction."""
    init = network(tasks.squared, 4, **SMALL)
    net = init(key)
    transition, noise = jnp.array([[0.95]]), jnp.array([[0.09]])
    program = filtering(init, transition, noise, lambda z: (z[None, None],))
    prior = initial_prior(jnp.zeros(1), jnp.eye(1), 4)
    np.testing.assert_allclose(prior.weights, [0.1, 0.2, 0.3, 0.4], rtol=1e-5)
    z, x = jnp.array([0.3, 1.0, 0.7]), jnp.array([[0.5], [1.0], [1.5]])
    log_p, posteriors = run_filter(program, {"network": net}, prior, z, x)
    total = bind_params(density(program), {"network": net})({"x": x}, prior, z)
    np.testing.assert_allclose(total, jnp.sum(log_p), rtol=1e-5)
    first = net(prior, z[:1, None])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, atol=1e-5), posteriors, first)
    second = net(
        first._replace(
            loc=0.95 * first.loc, scale_tril=jnp.sqrt(0.9025 * first.covariances + 0.09)
        ),
        z[1:2, None],
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, atol=1e-4), posteriors, second)


@gen
def walk_step(x, _):
    normal(x, 1.0) @ "z"
    return normal(0.5 * x, 1.0) @ "next", None


@gen
def walk():
    start = normal(jnp.ones(1), 1.0) @ "start"
    scan(walk_step, length=3)(start, None) @ "on"


def seen_on_walk(c):
    return jnp.concatenate([c["start"][None], c["on"]["next"][:-1]]), c["on"]["z"]


def test_the_objective_of_a_filter_is_unbiased():
    """Of normal laws of variance 1 around one number, the gradient is sum (E x_t - loc), with
    E x_t = 1, 1/2, 1/4. Catches a bias of 3 %, false alarms below 1e-6."""
    loc, one = 0.2, jnp.eye(1)
    init = lambda key: OneNormal(jnp.array(loc))
    program = filtering(init, 0.5 * one, one, lambda z: (z[None],))
    prior = Mixture(jnp.zeros(1), jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
    objective = recycled(program, prior, walk, seen_on_walk)
    assert_unbiased(objective, exact={"network": OneNormal(jnp.asarray(1.75 - 3 * loc))})


def test_no_choice_of_a_journey_needs_a_gradient_strategy():
    init = network(tasks.fusion, 4, relative=True, **SMALL)
    noise = jnp.diag(jnp.square(jnp.asarray(tasks.TRANSITION_SD)))
    transition = jnp.asarray(tasks.TRANSITION)
    program = filtering(init, transition, noise, lambda z: tasks.sensor_features(*z))
    objective = recycled(program, tasks.start_prior(), tasks.journey(3), tasks.seen_on_journey)
    plan = vi.compile(objective, num_samples=2).explain()
    assert {c.strategy for c in plan.choices} == {"drawn"} and not plan.warnings
