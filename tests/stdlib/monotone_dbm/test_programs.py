"""The programs: model, guides and objectives."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import density, seed, sim, vi
from ppl.errors import NonFiniteError
from ppl.testing import assert_unbiased
from stdlib.monotone_dbm.baselines import Restricted, regression_objective
from stdlib.monotone_dbm.coupling import Dense, monotone
from stdlib.monotone_dbm.equilibrium import Energy, mean_field
from stdlib.monotone_dbm.layers import Layer, Layers
from stdlib.monotone_dbm.programs import (
    convolutional,
    dense,
    equilibrium,
    free,
    inner,
    machine,
    outer,
)

LAYERS = Layers({"a": Layer(3, 2), "b": Layer(1, 3)})


def energy_of(seed=0):
    rng = np.random.default_rng(seed)
    rows = (Dense(jnp.asarray(rng.normal(size=(4, LAYERS.size)), jnp.float32)),)
    bias = jnp.asarray(rng.normal(size=LAYERS.size), jnp.float32)
    return Energy.of(monotone(rows, LAYERS, 0.1), bias, LAYERS)


def images(n=5, pixels=4):
    rng = np.random.default_rng(0)
    draw = lambda high, *shape: jnp.asarray(rng.integers(0, high, shape), jnp.int32)
    return draw(2, n, pixels), draw(10, n)


def test_the_machine_is_its_energy():
    energy = energy_of()
    x = {"a": jnp.array([1, 0, 1]), "b": jnp.array([2])}
    np.testing.assert_allclose(density(machine)(x, energy), energy(LAYERS.one_hot(x)), rtol=1e-5)


def test_the_guide_draws_what_is_observed():
    clamp = LAYERS.clamp({"b": jnp.array([1])})
    x, log_q = seed(sim(equilibrium))(jax.random.key(0), energy_of(), clamp)
    assert x["b"] == 1
    q = LAYERS.split(mean_field(energy_of(), clamp).value)
    chosen = jnp.take_along_axis(q["a"], x["a"][:, None], 1)
    np.testing.assert_allclose(log_q, jnp.log(chosen).sum(), rtol=1e-4)


@pytest.mark.parametrize("observed", [{}, {"a": jnp.array([1, 0, 1])}])
def test_no_product_guide_is_better_than_the_equilibrium(observed):
    """The ELBO is exact by enumeration, and its gradient at the equilibrium's logits vanishes."""
    energy, clamp = energy_of(1), LAYERS.clamp(observed)
    key = jax.random.key(0)
    at_solution = vi.compile(inner(energy, clamp)).value(key, {})
    estimator = vi.compile(inner(energy, clamp, free))
    q = LAYERS.split(mean_field(energy, clamp, tol=1e-6).value)
    logits = {f"logits of {n}": jnp.log(jnp.maximum(p, 1e-9)) for n, p in q.items()}
    value, gradient = estimator.value_and_grad(key, logits)
    np.testing.assert_allclose(value, at_solution, rtol=1e-5)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_allclose(leaf, 0, atol=2e-5)
    moved = jax.tree.map(lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), logits)
    assert estimator.value(key, moved) < value - 1e-3


def test_the_gradient_through_the_equilibrium_is_the_direct_one():
    """At the optimum of the inner problem, the ELBO's derivative in the energy is the partial one
    (envelope theorem): enumerated choices from an equilibrium, exactly."""
    bias = energy_of().bias

    def through(bias):
        energy = eqx.tree_at(lambda e: e.bias, energy_of(), bias)
        return vi.compile(inner(energy)).value(jax.random.key(0), {})

    q = mean_field(energy_of(), tol=1e-6).value
    np.testing.assert_allclose(jax.grad(through)(bias), q, atol=1e-4)


def test_the_outer_objective_is_unbiased():
    """Catches a bias of 3 % of any gradient entry with a false-alarm rate below 1e-6; the draws
    are the masks."""
    layers, init = dense(2, pixels=2, labels=10)
    objective = outer(layers, init, tangent=True, tol=1e-5)
    assert_unbiased(objective, *images(2, 2), bias=0.05)


def test_explain_says_what_is_drawn():
    layers, init = dense(3, pixels=4)
    text = str(vi.compile(outer(layers, init)).explain(*images()))
    assert "seen  flip[5, 4]  score" in text and "programs.py" in text


@pytest.mark.parametrize(
    "architecture", [dense(4), convolutional(4, 1, 2, 3, 6)], ids=["dense", "conv"]
)
def test_a_machine_learns(architecture):
    layers, init = architecture
    x, y = images(40, layers["pixels"].nodes)
    objective = outer(layers, init, tangent=True, tol=1e-3)
    fit = vi.fit(objective, (x, y), steps=25, batch_size=20, num_samples=1, progress=False)
    assert fit.losses[-5:].mean() < fit.losses[:5].mean()


def test_a_fit_that_does_not_converge_says_so():
    layers, init = dense(4, pixels=4)
    objective = outer(layers, init, tol=1e-6, max_steps=2)
    with pytest.raises(NonFiniteError, match="a fixed point has not converged"):
        vi.fit(objective, images(), steps=2, num_samples=1, progress=False)


def test_the_baselines_learn():
    x, y = images(40, 6)
    for objective in (regression_objective(), Restricted(3, pixels=6).objective()):
        fit = vi.fit(objective, (x, y), steps=60, batch_size=20, num_samples=1, progress=False)
        assert np.isfinite(fit.losses).all()
        assert any(np.abs(leaf).max() > 0.05 for leaf in jax.tree.leaves(fit.params))
