"""The programs: model, guides and objectives."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ppl import density, seed, sim, vi
from ppl.testing import assert_exactly_unbiased
from stdlib.monotone_dbm.baselines import Restricted, regression_objective
from stdlib.monotone_dbm.coupling import Dense, check_coupling, monotone
from stdlib.monotone_dbm.equilibrium import Energy, mean_field
from stdlib.monotone_dbm.layers import Layer, Layers
from stdlib.monotone_dbm.programs import (
    convolutional,
    dense,
    equilibrium,
    field,
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


def test_no_product_guide_is_better_than_the_equilibrium():
    """The ELBO is exact by enumeration, and its gradient at the equilibrium's logits vanishes."""
    energy = energy_of(1)
    clamp = LAYERS.clamp({"a": jnp.array([1, 0, 1])}, {"a": jnp.array([True, False, False])})
    key = jax.random.key(0)
    at_solution = vi.compile(inner(energy, clamp)).value(key, {})
    estimator = vi.compile(inner(energy, clamp, free))
    q = LAYERS.split(mean_field(energy, clamp, tol=1e-6).value)
    logits = {f"logits of {n}": jnp.log(jnp.maximum(p, 1e-9)) for n, p in q.items()}
    value, gradient = jax.jit(estimator.value_and_grad)(key, logits)
    np.testing.assert_allclose(value, at_solution, rtol=1e-5, atol=1e-5)  # of terms about 1
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
    """Exactly: the sum over all masks."""
    layers, init = dense(2, pixels=2)
    objective = outer(layers, init, tangent=True, tol=1e-5)
    assert_exactly_unbiased(objective, *images(1, 2))


def test_explain_says_what_is_drawn():
    layers, init = dense(3, pixels=4)
    text = str(vi.compile(outer(layers, init)).explain(*images()))
    assert "corruption/seen  flip[5x4]  score" in text and "programs.py" in text


def test_a_convolutional_machine_completes():
    layers, init = convolutional(side=4, groups=1, states=3, features=3, shared=6)
    rows, image = init(jax.random.key(0)), images(1, 16)[0][0]
    energy = eqx.filter_jit(
        lambda rows: Energy.of(monotone(rows, layers, 0.1), jnp.zeros(layers.size), layers)
    )(rows)
    check_coupling(energy.phi, layers, 0.1)
    seen = jnp.arange(16) % 2 == 0
    fields, found = eqx.filter_jit(field)(energy, image, seen)
    assert found.converged and {n: x.shape for n, x in fields.items()} == {
        "pixels": (16, 2),
        "hidden": (16, 3),
        "label": (1, 10),
    }
    pixels = layers.split(found.value)["pixels"]
    np.testing.assert_array_equal(pixels[seen, 1], image[seen])
    np.testing.assert_allclose(pixels[~seen], jax.nn.softmax(fields["pixels"])[~seen], atol=1e-3)


def test_the_baselines_learn():
    x, y = images(40, 6)
    for objective in (regression_objective(), Restricted(3, pixels=6).objective()):
        fit = vi.fit(objective, (x, y), steps=60, batch_size=20, num_samples=1, progress=False)
        assert np.isfinite(fit.losses).all()
        assert any(np.abs(leaf).max() > 0.05 for leaf in jax.tree.leaves(fit.params))
