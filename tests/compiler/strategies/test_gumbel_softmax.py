"""Relaxed choices: marked as biased everywhere, right where they must be, refused elsewhere."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppl import vi
from ppl.compiler import compile
from ppl.compiler.strategies import GumbelSoftmax, StraightThrough
from ppl.errors import BiasWarning, StrategyError
from ppl.lang import (
    bernoulli,
    categorical,
    flip,
    gen,
    normal,
    one_hot_categorical,
    param,
    poisson,
    unit_interval,
)
from tests.compiler.exact import QUICK
from tests.compiler.strategies.programs import flips, number

KEYS = jax.random.split(jax.random.key(0), 20_000)
BIASED = [GumbelSoftmax(0.3), StraightThrough(), StraightThrough(0.5)]


def gradients(objective, keys=KEYS, **options):
    est = compile(objective, **options)
    params = est.init(jax.random.key(0))
    run = jax.vmap(lambda key: est.value_and_grad(key, params))
    values, grads = jax.jit(run, compiler_options=QUICK)(keys)
    return np.asarray(values), {n: np.asarray(g) for n, g in grads.items()}


@pytest.mark.parametrize("strategy", BIASED, ids=str)
def test_a_linear_cost(strategy):
    """Straight-through is exact for it; relaxations are within a fifth."""
    objective = lambda: jnp.sum(jnp.array([1.0, 3.0]) * flip.via(strategy)(param("p", 0.4)))
    value, grad = gradients(objective)
    soft = isinstance(strategy, GumbelSoftmax)
    np.testing.assert_allclose(value.mean(), 1.6, atol=0.1 if soft else 0.05)
    np.testing.assert_allclose(grad["p"].mean(), 4.0, rtol=0.2)
    if strategy == StraightThrough():
        np.testing.assert_allclose(grad["p"], 4.0, rtol=1e-5)


def test_low_temperatures_tend_to_the_truth():
    """E (z - 0.45)^2 has gradient 0.1; the bias shrinks with the temperature."""
    objective = lambda t: lambda: (number(flip.via(GumbelSoftmax(t))(param("p", 0.4))) - 0.45) ** 2
    errors = [abs(gradients(objective(t))[1]["p"].mean() - 0.1) for t in (1.0, 0.1)]
    assert errors[1] < 0.3 * errors[0] and errors[0] > 0.05


@pytest.mark.parametrize("strategy", [StraightThrough(), StraightThrough(0.5)], ids=str)
def test_values_are_those_of_the_draw(strategy):
    """Through loops, branches, `where` and comparisons, the program is the discrete one."""

    def objective(site):
        def run():
            p = param("p", 0.4)
            lanes = site(p * jnp.ones(3))
            mixed = jnp.where(lanes, 2.0, -1.0) + number(~lanes) + number(lanes & lanes[::-1])

            def step(carry, _):
                z = site(0.3 + 0.4 * number(carry))
                return z, 1.0 * z

            last, ones = lax.scan(step, site(p), None, length=3)
            return jnp.sum(mixed**2) + jnp.sum(ones) + number(last)

        return run

    value = lambda site: compile(objective(site), num_samples=1).value(
        jax.random.key(3), {"p": jnp.float32(0.4)}
    )
    np.testing.assert_allclose(value(flip.via(strategy)), value(flip.score), rtol=1e-5)


def test_a_branch_on_a_relaxed_float_is_reported():
    objective = flips(lambda p: bernoulli.via(StraightThrough(1.0))(probs=p))
    with pytest.warns(BiasWarning, match="jumps"):
        compile(objective).plan()


def test_a_branch_on_a_relaxed_choice_is_refused():
    def objective():
        z = flip.via("straight_through")(param("p", 0.4))
        return lax.cond(z, lambda: 1.0, lambda: normal(0.0, 1.0))

    with pytest.raises(StrategyError, match="only a discrete one") as caught:
        compile(objective).plan()
    assert "'cond'" in str(caught.value) and "test_gumbel_softmax.py" in caught.value.where


@pytest.mark.parametrize("strategy", BIASED, ids=str)
def test_one_hot_vectors(strategy):
    probs = jnp.array([0.2, 0.5, 0.3])

    def objective():
        z = one_hot_categorical.via(strategy)(probs=param("p", probs))
        return number(z) @ jnp.array([1.0, -1.0, 2.0])

    value, grad = gradients(objective)
    np.testing.assert_allclose(value.mean(), 0.3, atol=0.08)
    g = grad["p"].mean(0)
    np.testing.assert_allclose(g - g.mean(), np.array([1.0, -1, 2]) - 2 / 3, atol=0.35)


def test_uses_that_cannot_be_relaxed():
    def index():
        z = bernoulli.via("gumbel_softmax")(probs=param("p", 0.4))
        return jnp.array([1.0, 2.0])[z]

    with pytest.raises(StrategyError, match="only a discrete one") as caught:
        compile(index).plan()
    assert caught.value.address == "bernoulli" and "test_gumbel_softmax.py" in caught.value.where
    for dist in (categorical, poisson, normal):
        with pytest.raises(StrategyError, match="no 'gumbel_softmax' strategy"):
            compile(lambda d=dist: jnp.sum(1.0 * d.via("gumbel_softmax")(*_args(d)))).plan()
    with pytest.raises(StrategyError, match="positive"):
        GumbelSoftmax(0.0)


def _args(dist):
    return (0.5, 1.0) if dist is normal else (jnp.ones(2),)


@gen
def model():
    z = flip.repeat(2)(0.5) @ "z"
    normal(number(z), 0.5) @ "y"


@gen
def guide():
    p = param("p", 0.5 * jnp.ones(2), support=unit_interval)
    flip.via("gumbel_softmax")(p) @ "z"


def test_it_is_marked_in_plan_and_fit():
    program = vi.elbo(model, guide, observed={"y": jnp.array([1.0, 0.1])})
    fit = vi.fit(program, steps=300, progress=False, num_samples=4)
    assert fit.biased == ["guide/z"] and "biased gradients of guide/z" in repr(fit)
    assert any("biased: guide/z: 'gumbel_softmax'" in w for w in fit.explain().warnings)
    assert fit.params["p"][0] > 0.7 > 0.3 > fit.params["p"][1]
    with pytest.raises(StrategyError, match="'gumbel_softmax' is biased"):
        vi.compile(program, strict=True).plan()
    assert vi.compile(program, strategies={"guide/z": "enum"}, strict=True).biased() == []
