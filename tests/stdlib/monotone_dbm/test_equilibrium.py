"""The mean-field solution: unique, found from any start by any step, and its derivatives."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import Anderson
from ppl.errors import ShapeError
from stdlib.monotone_dbm.coupling import Dense, monotone
from stdlib.monotone_dbm.equilibrium import Energy, mean_field, parallel, residual
from stdlib.monotone_dbm.experiment import coordinate_ascent, frustrated
from stdlib.monotone_dbm.layers import Layer, Layers

LAYERS = Layers({"a": Layer(4, 2), "b": Layer(3, 3), "c": Layer(1, 5)})
TIGHT = dict(tol=1e-14, max_steps=20_000)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def energy_of(seed=0, layers=LAYERS, margin=0.1, tangent=False, scale=1.0):
    rng = np.random.default_rng(seed)
    rows = (Dense(scale * jnp.asarray(rng.normal(size=(6, layers.size)))),)
    bias = jnp.asarray(rng.normal(size=layers.size))
    return Energy.of(monotone(rows, layers, margin, tangent=tangent), bias, layers)


def with_step(energy, step):
    return eqx.tree_at(lambda e: e.step, energy, jnp.asarray(step))


def objective(energy, q):
    """The ELBO."""
    return energy(q) - jnp.sum(jnp.where(q > 0, q * jnp.log(q), 0))


@pytest.mark.parametrize("tangent", [False, True])
def test_it_depends_on_neither_step_nor_start_nor_method(tangent):
    energy = energy_of(tangent=tangent)
    rng, clamp = np.random.default_rng(1), LAYERS.clamp({})
    q = jax.jit(lambda: mean_field(energy, **TIGHT))()
    assert q.converged
    starts = jnp.stack(
        [LAYERS.join({n: rng.dirichlet(np.ones(l.states), l.nodes) for n, l in LAYERS.items()})
         for _ in range(4)]
    )  # fmt: skip
    solve = jax.jit(jax.vmap(lambda s, a: mean_field(with_step(energy, a), start=s, **TIGHT).value))
    steps = float(energy.step) * jnp.array([1.0, 0.5, 0.2, 1.5])
    np.testing.assert_allclose(solve(starts, steps), np.tile(q.value, (4, 1)), atol=1e-12)
    other = jax.jit(lambda: coordinate_ascent(energy, starts[0], clamp, 200))()
    np.testing.assert_allclose(other, q.value, atol=1e-12)
    fast = jax.jit(lambda: mean_field(energy, acceleration=Anderson(), **TIGHT))()
    np.testing.assert_allclose(fast.value, q.value, atol=1e-12)
    assert residual(energy, q.value) < 1e-12 and fast.steps < q.steps


def test_the_elbo_grows_in_every_step():
    energy, clamp = energy_of(2), LAYERS.clamp({})

    def step(q, _):
        return energy.forward_backward(q, clamp), objective(energy, q)

    values = np.asarray(jax.lax.scan(step, energy.uniform(clamp), None, 60)[1])
    assert np.all(np.diff(values) >= -1e-13) and values[-1] > values[0] + 0.1


def test_no_coupling_and_one_node():
    layers = Layers({"x": Layer(3, 4)})
    bias = jnp.asarray(np.random.default_rng(0).normal(size=12))
    for step in (0.1, 0.5, 1.0):
        energy = with_step(Energy.of(jnp.zeros((12, 12)), bias, layers), step)
        q = mean_field(energy, **TIGHT).value
        np.testing.assert_allclose(q.reshape(3, 4), jax.nn.softmax(bias.reshape(3, 4)), atol=1e-13)


def test_two_nodes_that_repel():
    layers = Layers({"x": Layer(2, 2)})
    off = -0.4 * np.array([[1.0, -1.0], [-1.0, 1.0]])
    phi = jnp.asarray(np.block([[np.zeros((2, 2)), off], [off, np.zeros((2, 2))]]))
    at = lambda b: mean_field(Energy.of(phi, jnp.asarray([b, 0.0, 0, 0]), layers), **TIGHT).value
    np.testing.assert_allclose(at(0.0), 0.5, atol=1e-13)
    assert at(1.0)[0] > 0.5 and at(1.0)[2] < 0.5


def test_clamped_nodes_stay_and_the_last_one_is_its_conditional():
    energy = energy_of(3)
    values = {"a": jnp.array([0, 1, 1, 0]), "b": jnp.array([2, 0, 1]), "c": jnp.array([4])}
    clamp = LAYERS.clamp(values, {"c": jnp.array([False])})
    q = LAYERS.split(mean_field(energy, clamp, **TIGHT).value)
    x = LAYERS.split(energy.field(LAYERS.one_hot(values)))
    np.testing.assert_array_equal(q["a"], jax.nn.one_hot(values["a"], 2))
    np.testing.assert_allclose(q["c"], jax.nn.softmax(x["c"]), atol=1e-13)
    some = LAYERS.clamp({"b": values["b"]}, {"b": jnp.array([True, False, True])})
    found = mean_field(energy, some, **TIGHT).value
    assert residual(energy, found, some) < 1e-12
    np.testing.assert_array_equal(LAYERS.split(found)["b"][2], [0, 1, 0])


def test_masks_are_data():
    """One compiled function for all sets of observed nodes, lane by lane."""
    energy = energy_of(4)
    values = {"a": jnp.array([0, 1, 1, 0])}
    masks = jnp.asarray(np.random.default_rng(0).random((5, 4)) < 0.5)
    solve = lambda m: mean_field(energy, LAYERS.clamp(values, {"a": m}), **TIGHT).value
    together = jax.jit(jax.vmap(solve))(masks)
    for mask, q in zip(masks, together, strict=True):
        assert residual(energy, q, LAYERS.clamp(values, {"a": mask})) < 1e-12


def test_the_elbo_is_below_the_evidence():
    layers = Layers({"x": Layer(4, 2), "y": Layer(1, 3)})
    energy = energy_of(5, layers)
    states = np.stack(np.meshgrid(*[[0, 1]] * 4, [0, 1, 2], indexing="ij"), -1).reshape(-1, 5)
    one_hot = jax.vmap(lambda s: layers.one_hot({"x": s[:4], "y": s[4:]}))(jnp.asarray(states))
    log_z = jax.nn.logsumexp(jax.vmap(energy)(one_hot))
    gap = log_z - objective(energy, mean_field(energy, **TIGHT).value)
    assert 1e-4 < gap < 0.2
    free = Energy.of(jnp.zeros_like(energy.phi), energy.bias, layers)
    log_z = jax.nn.logsumexp(jax.vmap(free)(one_hot))
    np.testing.assert_allclose(objective(free, mean_field(free, **TIGHT).value), log_z, rtol=1e-12)


@pytest.mark.parametrize("acceleration", [None, Anderson()])
def test_derivatives_are_those_of_the_solution_whatever_the_step(acceleration):
    clamp = LAYERS.clamp({"b": jnp.array([2, 0, 1])}, {"b": jnp.array([True, False, True])})
    rng = np.random.default_rng(7)
    weight = jnp.asarray(rng.normal(size=(6, LAYERS.size)))
    bias, target = jnp.asarray(rng.normal(size=(2, LAYERS.size)))
    towards = jnp.asarray(rng.normal(size=weight.shape)), jnp.asarray(rng.normal(size=bias.shape))

    @jax.jit
    def loss(weight, bias, step):
        phi = monotone((Dense(weight),), LAYERS, 0.1)
        energy = with_step(Energy.of(phi, bias, LAYERS), step)
        return target @ mean_field(energy, clamp, acceleration=acceleration, **TIGHT).value

    e = 1e-5
    shifted = [loss(weight + s * towards[0], bias + s * towards[1], 0.2) for s in (e, -e)]
    slope = (shifted[0] - shifted[1]) / (2 * e)
    for step in (0.2, 0.07):
        forward = jax.jit(
            lambda *t, step=step: jax.jvp(lambda w, b: loss(w, b, step), (weight, bias), t)[1]
        )
        np.testing.assert_allclose(forward(*towards), slope, rtol=1e-7)
        back = jax.jit(jax.grad(loss, (0, 1)))(weight, bias, step)
        inner = sum(jnp.vdot(g, t) for g, t in zip(back, towards, strict=True))
        np.testing.assert_allclose(inner, slope, rtol=1e-7)


def test_parallel_updates_of_the_frustrated_machine_cycle():
    changes = frustrated(400)
    assert np.all(changes["parallel"][-50:] > 0.99)  # a cycle of two
    assert np.all(changes["averaged"][-50:] > 0.1)  # averaging does not help
    assert changes["forward-backward"][-1] < 1e-12


def test_bad_observations_are_refused_or_reported():
    for values, seen in [
        ({"d": jnp.zeros(4, int)}, None),
        ({"a": jnp.zeros(3, int)}, None),
        ({"a": jnp.zeros(4, int)}, {"a": jnp.ones(4)}),
        ({"a": jnp.zeros(4, int)}, {"a": jnp.ones(3, bool)}),
        ({}, {"a": jnp.ones(4, bool)}),
    ]:
        with pytest.raises(ShapeError, match=r"do not fit|no observed layer"):
            LAYERS.clamp(values, seen)
    given, _ = LAYERS.clamp({"a": jnp.array([0, 1, 2, -1])})
    bad = np.isnan(LAYERS.split(given)["a"]).any(-1)
    np.testing.assert_array_equal(bad, [False, False, True, True])
    hidden, _ = LAYERS.clamp({"a": jnp.array([0, 1, 2, 0])}, {"a": jnp.array([1, 1, 0, 1]) > 0})
    assert np.isfinite(hidden).all()


def test_parallel_is_softmax_of_the_field():
    energy, q = energy_of(8), jnp.asarray(np.random.default_rng(0).random(LAYERS.size))
    fields = LAYERS.split(energy.field(q))
    expected = LAYERS.join({n: jax.nn.softmax(f) for n, f in fields.items()})
    np.testing.assert_allclose(parallel(energy, q), expected, atol=1e-14)
