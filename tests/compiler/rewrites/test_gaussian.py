"""Gaussian log-densities averaged over value, mean and scale: programs against formulae.

No draw is left in most of these programs, so they are compared exactly (to float32's rounding).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import digamma, gammaln, multigammaln

from ppl import vi
from ppl.compiler import compile
from ppl.lang import (
    gamma,
    gen,
    inverse_gamma,
    inverse_wishart,
    multivariate_normal,
    multivariate_normal_diag,
    multivariate_normal_tri,
    normal,
    param,
    plate,
    positive,
)
from ppl.testing import assert_unbiased

EPISODES, POINTS, SIZE = 2, 3, 2
X = jax.random.normal(jax.random.key(1), (EPISODES, POINTS, SIZE))
Y = jax.random.normal(jax.random.key(2), (EPISODES, POINTS)) + 1
MEANS = jnp.array([[0.3, -1.0], [0.8, 0.1]])
FACTOR = jnp.array([[0.6, 0.0], [0.2, 0.4]])


def kl_to_random_normal(m, cov, m0, l0, V0, n0):
    """E KL(N(m, cov) || N(mu, Sigma)) over mu, Sigma of a normal-inverse-Wishart law."""
    d, inverse = len(m0), jnp.linalg.inv(V0)
    psi = jnp.sum(digamma((n0 - jnp.arange(d)) / 2))
    log_dets = jnp.linalg.slogdet(V0)[1] - jnp.linalg.slogdet(cov)[1]
    quadratic = n0 * jnp.trace(inverse @ cov) + n0 * (m - m0) @ inverse @ (m - m0)
    return 0.5 * (quadratic + d / l0 - d + log_dets - psi - d * jnp.log(2.0))


def kl_niw(first, second):
    """KL between two normal-inverse-Wishart laws (mean, strength, scale matrix, df)."""
    (m1, l1, V1, n1), (m2, l2, V2, n2) = first, second
    d, inverse = len(m1), jnp.linalg.inv(V1)
    psi = jnp.sum(digamma((n1 - jnp.arange(d)) / 2))
    mean = d * l2 / l1 - d + d * jnp.log(l1 / l2) + l2 * n1 * (m1 - m2) @ inverse @ (m1 - m2)
    scale = 0.5 * n2 * (jnp.linalg.slogdet(V1)[1] - jnp.linalg.slogdet(V2)[1])
    scale += multigammaln(n2 / 2, d) - multigammaln(n1 / 2, d) + 0.5 * (n1 - n2) * psi
    return 0.5 * mean + scale + 0.5 * n1 * (jnp.trace(V2 @ inverse) - d)


def run(objective, params=None, key=0):
    """Value and gradient with nothing drawn: two keys agree."""
    est = compile(objective, rewrites="closed_form", num_samples=1)
    data = objective.data if hasattr(objective, "data") else ()
    params = est.init(jax.random.key(0), *data) if params is None else params
    both = jax.jit(est.value_and_grad)
    found = [both(jax.random.key(k), params) for k in (key, key + 1)]
    jax.tree.map(np.testing.assert_array_equal, *found)
    return params, *found[0]


def check(objective, formula, params=None):
    params, value, grad = run(objective, params)
    expected, slopes = jax.value_and_grad(lambda p: formula(**p))(params)
    np.testing.assert_allclose(value, expected, rtol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), grad, slopes)


# ------------------------------------------------------------------ normal-inverse-Wishart


@gen
def task(x, mu, Sigma):
    theta = multivariate_normal(mu, Sigma) @ "theta"
    normal(x @ theta, 0.5) @ "y"


@gen
def tasks(x):
    Sigma = inverse_wishart(4.0, jnp.eye(SIZE)) @ "Sigma"
    mu = multivariate_normal(jnp.zeros(SIZE), Sigma / 0.1) @ "mu"
    plate(task, in_axes=(0, None, None), total=10)(x, mu, Sigma) @ "tasks"


@gen
def local(m):
    multivariate_normal_tri(m, FACTOR) @ "theta"


@gen
def niw(x):
    n = param("n", 6.0, support=positive)
    Sigma = inverse_wishart(n, param("L", jnp.array([[1.5, 0.0], [0.7, 1.3]]))) @ "Sigma"
    strength = param("l", 3.0, support=positive)
    mu = multivariate_normal(param("m", jnp.array([0.3, -0.5])), Sigma / strength) @ "mu"
    plate(local, total=10)(param("means", MEANS)) @ "tasks"
    return mu


def negative_objective(m, l, L, n, means):
    """Minus the ELBO of `tasks` and `niw`: all of it by hand."""
    V = jnp.tril(L) @ jnp.tril(L).T
    cov = FACTOR @ FACTOR.T
    total = kl_niw((m, l, V, n), (jnp.zeros(SIZE), 0.1, jnp.eye(SIZE), 4.0))
    for x, y, mean in zip(X, Y, means, strict=True):
        total += 5 * kl_to_random_normal(mean, cov, m, l, V, n)
        squares = (y - x @ mean) ** 2 + jnp.einsum("ni,ij,nj->n", x, cov, x)
        total += 5 * jnp.sum(squares / (2 * 0.25) + jnp.log(0.5) + 0.5 * jnp.log(2 * jnp.pi))
    return total


def test_the_elbo_of_a_normal_inverse_wishart_hierarchy():
    """Kullback-Leibler terms and the Gaussian likelihood of a linear map, all in closed form."""
    objective = vi.elbo(tasks, niw, observed={"tasks": {"y": Y}}, args=(X,))
    check(objective, lambda **p: -negative_objective(**p))
    lines = str(compile(objective, rewrites="closed_form").explain())
    assert lines.count("dead") == 3
    assert "niw/Sigma: E[log multivariate_normal] in closed form at" in lines


def test_sampling_agrees():
    """Bartlett's decomposition, reparameterised, with 10 % bias to be caught (df = 12: moments of
    the inverse exist that the gradients' variance needs)."""
    objective = vi.elbo(tasks, niw, observed={"tasks": {"y": Y}}, args=(X,))
    est = compile(objective)
    params = est.init(jax.random.key(0)) | {"n": jnp.array(12.0), "l": jnp.array(9.0)}
    formula = lambda p: -negative_objective(**p)
    assert_unbiased(est, params=params, exact=formula, bias=0.1, whole_gradient=True)


# --------------------------------------------------------------- normal-(inverse-)gamma lanes

LANES = 3


def nig_program(draw_scale, to_sd):
    """log p - log q of lanes of a normal with random mean and scale, and a child of each."""

    def objective():
        a = param("a", jnp.array([2.0, 3.0, 1.5]), support=positive)
        b = param("b", jnp.array([1.0, 0.5, 2.0]), support=positive)
        strength = param("l", 2.5, support=positive)
        m = param("m", jnp.arange(3.0))
        t = draw_scale.reparam(a, b)
        mu = normal.reparam(m, to_sd(strength, t))
        x = normal.reparam(param("x", jnp.ones((2, LANES))), 0.7)  # two children of each lane
        total = jnp.sum(normal.log_prob(x, mu, to_sd(1.0, t)))
        total -= jnp.sum(normal.log_prob(mu, m, to_sd(strength, t)))
        total += jnp.sum(normal.log_prob(mu, 0.4, to_sd(0.2, t)))
        total += jnp.sum(draw_scale.log_prob(t, 1.2, 0.9)) - jnp.sum(draw_scale.log_prob(t, a, b))
        return total

    return objective


def nig_formula(a, b, l, m, x):
    """The same of inverse gamma variances: minus Kullback-Leibler divergences."""
    mean_log, precision = jnp.log(b) - digamma(a), a / b

    def expected(square, share):  # E log N with E[(x - m)^2] = square, plus share times T
        return -0.5 * (jnp.log(2 * jnp.pi) + mean_log + precision * square + share)

    total = jnp.sum(expected((x - m) ** 2 + 0.49, 1 / l))
    total += jnp.sum(0.5 * (jnp.log(2 * jnp.pi) + mean_log - jnp.log(l) + 1))
    total += jnp.sum(expected(0.2 * (m - 0.4) ** 2, 0.2 / l) + 0.5 * jnp.log(0.2))
    log_p = 1.2 * jnp.log(0.9) - gammaln(1.2) - 2.2 * mean_log - 0.9 * precision
    log_q = a * jnp.log(b) - gammaln(a) - (a + 1) * mean_log - a
    return total + jnp.sum(log_p - log_q)


def test_inverse_gamma_variances():
    check(nig_program(inverse_gamma, lambda l, t: jnp.sqrt(t / l)), nig_formula)


def test_gamma_precisions():
    """A gamma precision is an inverse gamma variance; the Jacobians of log p and log q cancel."""
    check(nig_program(gamma, lambda l, t: 1 / jnp.sqrt(l * t)), nig_formula)


# ------------------------------------------------------------------------------ random means


@gen
def schools(x):
    mu = normal(0.0, 5.0) @ "mu"
    theta = normal.repeat(4)(mu, 0.8) @ "theta"
    normal(jnp.sum(x * theta[:, None], 1) - 0.3, 1.5) @ "y"


@gen
def mean_field(x):
    normal(param("m", 0.4), 0.5) @ "mu"
    normal(param("t", jnp.arange(4.0)), 0.6) @ "theta"


def test_a_random_mean_and_an_affine_one():
    x, y = jnp.arange(12.0).reshape(4, 3) / 10, jnp.array([0.3, -0.2, 1.0, 0.8])

    def formula(m, t):
        log_n = lambda square, sd: -0.5 * square / sd**2 - jnp.log(sd) - 0.5 * jnp.log(2 * jnp.pi)
        total = log_n(m**2 + 0.25, 5.0) + jnp.sum(log_n((t - m) ** 2 + 0.25 + 0.36, 0.8))
        slope = jnp.sum(x, 1)
        total += jnp.sum(log_n((y - slope * t + 0.3) ** 2 + 0.36 * slope**2, 1.5))
        return total - log_n(0.25, 0.5) - 4 * log_n(0.36, 0.6)

    check(vi.elbo(schools, mean_field, observed={"y": y}, args=(x,)), formula)


@pytest.mark.parametrize(
    "site", [multivariate_normal, multivariate_normal_diag, multivariate_normal_tri], ids=str
)
def test_a_vector_of_any_kind_as_mean(site):
    scale = {"multivariate_normal": FACTOR @ FACTOR.T, "multivariate_normal_tri": FACTOR}
    scale = scale.get(str(site), jnp.array([0.6, 0.4]))
    factor = jnp.diag(scale) if scale.ndim == 1 else FACTOR

    def objective():
        z = site(param("m", jnp.array([0.4, -0.3])), scale)
        return multivariate_normal.logpdf(X[0, 0], z, jnp.eye(2) * 2.0)

    def formula(m):
        square = jnp.sum((X[0, 0] - m) ** 2) + jnp.sum(factor**2)
        return -0.25 * square - jnp.log(2.0) - jnp.log(2 * jnp.pi)

    check(objective, formula)


# --------------------------------------------------------------------------- what is left alone


def _averaged(objective):
    return [r.address for r in compile(objective, rewrites="closed_form").plan().rewritten]


def _matrix_times():
    T = inverse_wishart(6.0, FACTOR + jnp.eye(2))
    return multivariate_normal.logpdf(jnp.ones(2), jnp.zeros(2), T * FACTOR @ FACTOR.T)


def _mixed_lanes():
    w = normal(param("m", jnp.zeros(3)), 1.0)
    return normal.logpdf(0.3, jnp.sum(w), 1.0)


def _mean_that_knows_the_scale():
    t = inverse_gamma(2.0, 1.0)
    return normal.logpdf(0.3, normal(t, 1.0), jnp.sqrt(t))


def _standard_deviation():
    return normal.logpdf(0.3, param("m", 0.0), inverse_gamma(2.0, 1.0))


def _not_affine():
    return normal.logpdf(0.3, jnp.exp(normal(param("m", 0.0), 1.0)), 1.0)


@pytest.mark.parametrize(
    "objective",
    [_matrix_times, _mixed_lanes, _mean_that_knows_the_scale, _standard_deviation, _not_affine],
)
def test_what_has_no_such_form_stays(objective):
    assert _averaged(objective) == []


@pytest.mark.parametrize("other", [lambda t: t[::-1], jnp.transpose], ids=["reversed", "turned"])
def test_the_scale_of_another_lane(other):
    """The draw is averaged given all scales; its own scale is not that of the density."""

    def objective():
        t = inverse_gamma(jnp.full((2, 2), 2.0), 1.0)
        mu = normal(param("m", jnp.zeros((2, 2))), jnp.sqrt(t))
        return normal.logpdf(mu, 0.0, jnp.sqrt(other(t)))

    assert _averaged(objective) == ["normal"]
