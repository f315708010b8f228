"""The hierarchy's programs: against formulae, unbiased, and what they say of themselves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import gen, normal, vi
from ppl.testing import assert_unbiased
from stdlib.niw_meta import niw
from stdlib.niw_meta.programs import NIW, bound, data_loss, full_covariance, independent

SD = 0.5
TASKS, POINTS, SIZE, TOTAL = 3, 4, 2, 30
X = jax.random.normal(jax.random.key(0), (TASKS, POINTS, SIZE))
Y = jax.random.normal(jax.random.key(1), (TASKS, POINTS)) + X[..., 0]
PRIOR = NIW(jnp.zeros(SIZE), 0.1, 0.1 * jnp.eye(SIZE), 4.0)
PARAMS = {"m": jnp.array([0.4, -0.2]), "S": jnp.array([[0.8, 0.0], [0.3, 0.6]])}


@gen
def emission(outputs):
    normal(outputs, SD) @ "y"


def linear(weights, x):
    return x @ weights


def tanh(weights, x):
    return jnp.tanh(x @ weights) * 2


def programs(network=linear):
    return full_covariance(network, emission, PRIOR, total=TOTAL, df=6.0, by=vi.Newton())


def by_hand(params, x=X, y=Y):
    """The negative free energy per task, of the whole as three tasks stand for it."""
    S = jnp.tril(params["S"])
    law = niw.Law(params["m"], 0.1 + TOTAL, 6.0 * S @ S.T, 6.0)
    tasks = niw.regressions(x, y, SD)
    local = niw.local_posteriors(tasks, law)
    prior = niw.Law(PRIOR.loc, PRIOR.strength, PRIOR.scale, PRIOR.df)
    whole = niw.kl(law, prior)
    sampled = niw.free_energy(tasks, local, law, prior) - whole
    return -(whole / TOTAL + sampled / len(y))


def closed(network=linear):
    return vi.compile(bound(*programs(network), TOTAL), rewrites="closed_form")


def test_the_objective_is_the_formula():
    """Value and gradient of the program, with every expectation in closed form; the formula is
    differentiated through the closed-form local posteriors, as the program is."""
    est = closed()
    value, grad = jax.jit(est.value_and_grad)(jax.random.key(0), PARAMS, X, Y)
    wanted, slopes = jax.jit(jax.value_and_grad(by_hand))(PARAMS)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), grad, slopes)


def test_sampling_is_unbiased():
    """The same by draws alone (df = 6: Bartlett's decomposition, reparameterised): a bias of 10 %
    of the largest entry is caught, false alarms 1e-6."""
    est = vi.compile(bound(*programs(), TOTAL))
    assert_unbiased(est, X, Y, params=PARAMS, exact=by_hand, bias=0.1, whole_gradient=True)


def test_explain_says_what_is_left_to_draw():
    text = str(closed().explain(X, Y))
    assert text.count("dead") == 3 and "guide/Sigma  inverse_wishart[-]  dead" in text
    assert "guide/mu: E[log multivariate_normal] in closed form" in text
    text = str(closed(tanh).explain(X, Y))
    assert (
        "guide/tasks/weights  multivariate_normal[3]  reparam" in text and text.count("dead") == 2
    )


def test_envelope():
    """For Gaussian tasks the local posterior is optimal, so holding it changes no gradient; for
    others it does (card, 2.9)."""

    def gradient(network, hold):
        def negative(m):
            S = PARAMS["S"]
            law = niw.Law(m, jnp.inf, 6.0 * S @ S.T, 6.0)

            def task(x, y):
                loss = data_loss(network, emission, x, y)
                quadratic = vi.local_quadratic(loss, m, by=vi.Newton())
                mean, covariance = quadratic.posterior(m, S)
                if hold:
                    mean, covariance = jax.lax.stop_gradient((mean, covariance))
                factor = jnp.linalg.cholesky(covariance)
                # Exact for a quadratic: the mean over points of a cubature rule of degree 3.
                points = jnp.concatenate([factor.T, -factor.T]) * jnp.sqrt(SIZE)
                nll = jnp.mean(jax.vmap(lambda z: loss(mean + z))(points))
                return nll + niw.expected_kl(mean, covariance, law)

            return jnp.sum(jax.vmap(task)(X, Y))

        return jax.jit(jax.grad(negative))(PARAMS["m"])

    with jax.enable_x64(True):
        np.testing.assert_allclose(gradient(linear, True), gradient(linear, False), rtol=1e-5)
        apart = gradient(tanh, True) - gradient(tanh, False)
    assert np.max(np.abs(apart)) > 0.01 * np.max(np.abs(gradient(tanh, False)))


def test_a_batch_is_the_mean_of_its_tasks():
    """No state is kept between tasks."""
    est = closed()
    key = jax.random.key(0)
    whole = jax.jit(est.grad)(key, PARAMS, X, Y)
    one = jax.jit(lambda x, y: est.grad(key, PARAMS, x[None], y[None]))
    parts = [one(x, y) for x, y in zip(X, Y, strict=True)]
    mean = jax.tree.map(lambda *g: sum(g) / TASKS, *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), whole, mean)


def test_independent_coordinates_are_laws_of_size_one():
    """The program of a network's weights: formula (a) and (b) with d = 1, summed."""
    scale, df = jnp.array([0.2, 0.4]), 8.0
    prior = NIW(jnp.array([0.1, -0.3]), 0.5, scale, 3.0)
    start, precision = jnp.array([0.4, -0.2]), jnp.array([2.0, 5.0])
    none = lambda loss, at: vi.Quadratic(at, jnp.array([0.3, 0.5]), jnp.array([1.0, 4.0]))
    options = {"total": TOTAL, "df": df, "by": none, "start": start, "precision": precision}
    constant = lambda weights, x: jnp.zeros(POINTS) + 0 * jnp.sum(weights)
    objective = bound(*independent(constant, emission, prior, **options), TOTAL)
    est = vi.compile(objective, rewrites="closed_form")
    value = est.value(jax.random.key(0), est.init(jax.random.key(0), X, Y), X, Y)

    mean, variance = none(None, start).posterior(start, 1 / jnp.sqrt(precision))
    wanted = jnp.mean(jnp.sum(jax.scipy.stats.norm.logpdf(Y, 0.0, SD), 1))
    for i in range(2):
        q = niw.Law(start[i][None], 0.5 + TOTAL, jnp.array([[df / precision[i]]]), df)
        p = niw.Law(prior.loc[i][None], 0.5, scale[i][None, None], 3.0)
        wanted -= niw.kl(q, p) / TOTAL
        wanted -= niw.expected_kl(mean[i][None], variance[i][None, None], q)
    np.testing.assert_allclose(value, wanted, rtol=1e-4)


def test_improper_laws_are_refused():
    with pytest.raises(ValueError, match=r"the guide's df is 1\.0; it must be above 1"):
        full_covariance(linear, emission, PRIOR, total=3, df=1.0, by=vi.Newton())
    with pytest.raises(ValueError, match=r"the prior's df is 0\.5"):
        prior = NIW(jnp.zeros(2), 1.0, jnp.eye(2), 0.5)
        full_covariance(linear, emission, prior, total=3, df=4.0, by=vi.Newton())
    with pytest.raises(ValueError, match="must be positive"):
        independent(
            linear, emission, PRIOR, total=3, df=4.0, by=vi.Newton(), start=jnp.zeros(2),
            precision=0.0,
        )  # fmt: skip
