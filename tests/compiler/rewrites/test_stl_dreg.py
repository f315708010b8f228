"""Sticking the landing and doubly-reparameterised gradients: unbiased, with less variance.

Exact references by Gauss-Hermite quadrature. |z| < 5.5 (false-alarm rate 4e-8) with as many draws
as it takes to see a bias of 3 %.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppl import vi
from ppl.compiler import compile
from ppl.errors import StrategyError
from ppl.lang import factor, gen, normal, param
from tests.compiler.exact import check_unbiased
from tests.compiler.rewrites.test_closed_form import AT, parts, parts_value, slopes


def test_stl_in_every_construct():
    est = compile(parts(normal.reparam), rewrites="stl")
    assert len(est.plan().rewritten) == 3 and all(
        "test_closed_form.py" in r.where for r in est.plan().rewritten
    )
    check_unbiased(parts(normal.reparam), slopes(parts_value, AT), rewrites="stl", num_samples=1)


@gen
def model():
    normal(normal(param("prior", 0.2), 1.0) @ "z", 0.5) @ "y"


@gen
def guide():
    normal.reparam(param("m", 0.5), param("s", 0.6)) @ "z"


def test_no_variance_at_the_optimum():
    """Prior N(0.2, 1), y = 1 with sd 0.5: the posterior is N(0.84, 1/5), and there is no noise.

    The likelihood is a factor, which no rewrite knows to be Gaussian.
    """

    @gen
    def model():
        z = normal(param("prior", 0.2), 1.0) @ "z"
        factor(-2 * (1.0 - z) ** 2) @ "y"

    program = vi.elbo(model, guide, observed={})
    best = {"prior": jnp.float32(0.2), "m": jnp.float32(0.84), "s": jnp.float32(0.2**0.5)}
    keys = jax.random.split(jax.random.key(0), 1000)
    noise = {}
    for name, options in {"none": (), "stl": "stl", "closed_form": "closed_form"}.items():
        est = compile(program, rewrites=options)
        draw = jax.jit(jax.vmap(lambda k, e=est: e.grad(k, best)["m"]))
        noise[name] = float(np.std(draw(keys)))
    assert noise["stl"] < 1e-4 < 1.0 < min(noise["none"], noise["closed_form"])


def test_it_is_not_applied_to_bounds_or_scored_choices():
    bound = vi.iwelbo(model, guide, particles=3, observed={"y": 1.0})
    assert compile(bound, rewrites="stl").plan().rewritten == []
    program = vi.elbo(model, guide, observed={"y": 1.0})
    scored = compile(program, rewrites="stl", strategies={"guide/z": "score"})
    assert scored.plan().rewritten == []


# ---------------------------------------------------------------------------------------- dreg

POINT = dict(prior=0.2, m=0.5, s=0.6)
ALPHA = 0.5


def bound_value(particles, combine):
    """The expected bound of the model and guide above, at y = 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()

    def value(prior, m, s):
        z = m + s * nodes
        log_q = -0.5 * nodes**2 - np.log(s)
        log_p = -0.5 * (z - prior) ** 2 - 2 * (1 - z) ** 2 - np.log(0.5) - 0.5 * np.log(2 * np.pi)
        logs = log_p - log_q
        total = 0.0
        for which in itertools.product(range(40), repeat=particles):
            ids = list(which)
            total += np.prod(weights[ids]) * combine(logs[ids])
        return total

    return value


def log_mean_exp(logs):
    return np.log(np.mean(np.exp(logs)))


def test_dreg():
    program = vi.iwelbo(model, guide, particles=2, observed={"y": 1.0})
    check_unbiased(program, slopes(bound_value(2, log_mean_exp), POINT), rewrites="dreg")
    program = vi.iwelbo(model, guide, particles=5, observed={"y": 1.0})
    noise = {r: sd(program, r) for r in ((), "dreg")}
    assert noise["dreg"]["m"] < 0.3 * noise[()]["m"]
    assert noise["dreg"]["s"] < 0.3 * noise[()]["s"]
    np.testing.assert_allclose(noise["dreg"]["prior"], noise[()]["prior"], rtol=1e-3)


def sd(program, rewrites):
    est = compile(program, rewrites=rewrites)
    params = est.init(jax.random.key(0))
    grads = jax.jit(jax.vmap(lambda k: est.grad(k, params)))(
        jax.random.split(jax.random.key(0), 5000)
    )
    return {n: float(np.std(g)) for n, g in grads.items()}


def renyi(shared=False):
    """A Renyi bound; with `shared`, the guide's mean is also the prior's."""

    def objective():
        m, s = param("m", 0.5), param("s", 0.6)
        prior = m if shared else param("prior", 0.2)

        def log_weight(_):
            z = normal.reparam(m, s)
            log_p = normal.logpdf(z, prior, 1.0) + normal.logpdf(1.0, z, 0.5)
            return log_p - normal.logpdf(z, m, s)

        weights = jax.vmap(log_weight)(jnp.arange(2))
        return jax.scipy.special.logsumexp((1 - ALPHA) * weights) / (1 - ALPHA)

    return objective


def test_any_function_of_log_weights():
    combine = lambda logs: np.log(np.sum(np.exp((1 - ALPHA) * logs))) / (1 - ALPHA)
    value = bound_value(2, combine)
    check_unbiased(renyi(), slopes(value, POINT), rewrites="dreg")


def test_a_parameter_of_both_programs():
    """Its derivative through the model keeps the weights, that through the guide does not."""
    combine = lambda logs: np.log(np.sum(np.exp((1 - ALPHA) * logs))) / (1 - ALPHA)
    value = bound_value(2, combine)
    exact = slopes(lambda m, s: value(m, m, s), dict(m=0.5, s=0.6))
    check_unbiased(renyi(shared=True), exact, rewrites="dreg")


def test_rows_with_particles_each():
    """Rows of data, each with its bound: each row's weights are its own."""

    def objective():
        m, s = param("m", jnp.array([0.5, 0.9])), param("s", 0.6)

        def row(m):
            def log_weight(_):
                z = normal.reparam(m, s)
                log_p = normal.logpdf(z, 0.2, 1.0) + normal.logpdf(1.0, z, 0.5)
                return log_p - normal.logpdf(z, m, s)

            weights = jax.vmap(log_weight)(jnp.arange(2))
            return jax.scipy.special.logsumexp(weights) - jnp.log(2)

        return jnp.sum(jax.vmap(row)(m))

    value = bound_value(2, log_mean_exp)
    rows = [slopes(value, dict(prior=0.2, m=m, s=0.6)) for m in (0.5, 0.9)]
    exact = {"m": np.array([r["m"] for r in rows]), "s": rows[0]["s"] + rows[1]["s"]}
    check_unbiased(objective, exact, rewrites="dreg")


def refused(objective, **options):
    with pytest.raises(StrategyError, match="nothing to reparameterise twice") as caught:
        compile(objective, rewrites="dreg", **options).plan()
    return str(caught.value.because)


def test_refusals():
    program = vi.iwelbo(model, guide, particles=2, observed={"y": 1.0})
    assert "no function of log-weights" in refused(vi.elbo(model, guide, observed={"y": 1.0}))
    assert "follows no path" in refused(program, strategies={"guide/z": "score"})

    def chained():
        def log_weight(_):
            a = normal.reparam(param("m", 0.5), 1.0)
            b = normal.reparam(a, 1.0)
            return -(b**2) - normal.logpdf(a, param("m", 0.5), 1.0) - normal.logpdf(b, a, 1.0)

        return jax.scipy.special.logsumexp(jax.vmap(log_weight)(jnp.arange(2)))

    assert "depends on another choice" in refused(chained)

    def without_density():
        def log_weight(_):
            return -(normal.reparam(param("m", 0.5), 1.0) ** 2)

        return jax.scipy.special.logsumexp(jax.vmap(log_weight)(jnp.arange(2)))

    assert "does not enter" in refused(without_density)

    def looped():
        def step(total, _):
            z = normal.reparam(param("m", 0.5) * jnp.ones(2), 1.0)
            log_q = normal.log_prob(z, param("m", 0.5) * jnp.ones(2), 1.0)
            return total - z**2 - log_q, None

        return jax.scipy.special.logsumexp(lax.scan(step, jnp.zeros(2), None, length=2)[0])

    assert "loop" in refused(looped)
    assert "no cost depends" in refused(lambda: param("t", 0.1) ** 2)
