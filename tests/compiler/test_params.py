"""Parameters of compiled objectives: any structure, any place, any support."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppl import vi
from ppl.compiler import compile
from ppl.lang import (
    categorical,
    correlation_cholesky,
    flip,
    gen,
    greater_than,
    interval,
    lower_cholesky,
    normal,
    ordered,
    param,
    plate,
    positive,
    positive_definite,
    real,
    scan,
    sim,
    simplex,
    unit_interval,
)
from tests.compiler.exact import check_unbiased


def number(bit):
    return jnp.asarray(bit).astype(float)


def gradient(objective, key, params=None, **options):
    est = compile(objective, **options)
    params = est.init(key) if params is None else params
    return est.grad(key, params)


# ------------------------------------------------------------------------------- structures


def test_numbers_arrays_and_trees(key):
    tree = {"w": jnp.ones((2, 3)), "b": [1.5, np.zeros(2, np.float32)], "steps": 4, "name": "net"}

    def objective():
        p = param("tree", tree)
        assert p["name"] == "net" and p["steps"] == 4
        return jnp.sum(p["w"]) * p["b"][0] + jnp.sum(p["b"][1] * 2.0) + param("number", 2)

    est = compile(objective)
    params = est.init(key)
    assert params["tree"]["steps"] == 4 and params["tree"]["name"] == "net"
    assert params["number"].shape == () and params["number"].dtype == jnp.float32
    value, grad = est.value_and_grad(key, params)
    assert value == pytest.approx(6 * 1.5 + 2)
    np.testing.assert_allclose(grad["tree"]["w"], 1.5 * np.ones((2, 3)))
    np.testing.assert_allclose(grad["tree"]["b"][0], 6.0)
    np.testing.assert_allclose(grad["tree"]["b"][1], [2.0, 2.0])
    assert grad["tree"]["steps"] is None and grad["tree"]["name"] is None
    assert grad["number"] == 1.0


def network(key=None):
    return eqx.nn.MLP(2, 1, 4, 1, jax.nn.tanh, key=jax.random.key(3) if key is None else key)


def test_an_equinox_module(key):
    """Its gradient, next to plain JAX."""

    def objective(x):
        return jnp.sum(param("net", network())(x) ** 2) + normal(0.0, 1.0)

    def by_hand(net, x):
        return jnp.sum(net(x) ** 2)

    est, x = compile(objective), jnp.array([0.4, -0.2])
    params = est.init(key, x)
    _, grad = eqx.filter_jit(est.value_and_grad)(key, params, x)
    assert grad["net"].activation is None  # what does not train has no gradient
    exact = jax.tree.leaves(eqx.filter_grad(by_hand)(network(), x))
    for ours, plain in zip(jax.tree.leaves(grad["net"]), exact, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5)


class Scaled(eqx.Module):
    weight: jax.Array
    scale: float = 0.5


def test_a_float_in_a_module_is_a_constant(key):
    est = compile(lambda: jnp.sum(param("net", Scaled(jnp.ones(2))).weight * 3.0) * 0.5)
    params = est.init(key)
    assert params["net"].scale == 0.5 and isinstance(params["net"].scale, float)
    grad = est.grad(key, params)["net"]
    assert grad.scale is None
    np.testing.assert_allclose(grad.weight, [1.5, 1.5])
    tree = compile(lambda: param("tree", {"scale": 0.5})["scale"] ** 2)
    np.testing.assert_allclose(tree.grad(key, tree.init(key))["tree"]["scale"], 1.0)


def test_an_initialiser_is_a_function_of_the_key():
    def objective():
        net = param("net", network)
        other = param("other", lambda key: jax.random.normal(key, (3,)))
        return jnp.sum(net(jnp.ones(2))) + jnp.sum(other)

    est = compile(objective)
    first, second, again = (est.init(jax.random.key(i)) for i in (0, 1, 0))
    weight = lambda params: params["net"].layers[0].weight
    assert np.any(weight(first) != weight(second))
    np.testing.assert_array_equal(weight(first), weight(again))
    np.testing.assert_array_equal(first["other"], again["other"])
    value, grad = est.value_and_grad(jax.random.key(0), first)
    np.testing.assert_allclose(grad["other"], np.ones(3))
    assert np.isfinite(value)


def test_integers_are_left_alone(key):
    def objective():
        p = param("table", {"weights": jnp.ones(3), "index": jnp.array([2, 0])})
        return jnp.sum(p["weights"][p["index"]] * normal(0.0, 1.0) ** 2)

    est = compile(objective)
    params = est.init(key)
    grad = est.grad(key, params)["table"]
    assert grad["index"] is None and grad["weights"].shape == (3,)
    free = est.unconstrain(params)
    assert free["table"]["index"] is None
    back = est.constrain(free, params)["table"]
    np.testing.assert_array_equal(back["index"], [2, 0])
    assert back["index"].dtype == jnp.int32


def test_python_numbers_may_be_given(key):
    est = compile(lambda: normal.reparam(param("theta", 0.3), 1.0) ** 2)
    as_array = est.value_and_grad(key, {"theta": jnp.array(0.5)})
    as_number = est.value_and_grad(key, {"theta": 0.5})
    assert as_number[0] == as_array[0] and as_number[1] == as_array[1]


def test_initial_values_from_the_arguments(key):
    def objective(xs):
        return jnp.sum((param("centre", jnp.mean(xs, 0)) - xs) ** 2)

    xs = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(compile(objective).init(key, xs)["centre"], [2.0, 3.0])


# --------------------------------------------------------------------------------- supports

SUPPORTS = {
    "real": (real, np.array([-1.0, 2.5])),
    "positive": (positive, np.array([0.01, 30.0])),
    "unit_interval": (unit_interval, np.array([0.01, 0.9])),
    "interval": (interval(-2.0, 5.0), np.array([-1.9, 4.0])),
    "greater_than": (greater_than(3.0), np.array([3.1, 9.0])),
    "simplex": (simplex, np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])),
    "ordered": (ordered, np.array([-1.0, 0.5, 2.0])),
    "positive_definite": (positive_definite, np.array([[2.0, 0.3], [0.3, 1.0]])),
    "lower_cholesky": (lower_cholesky, np.array([[1.0, 0.0], [-0.4, 0.2]])),
    "correlation_cholesky": (correlation_cholesky, np.array([[1.0, 0.0], [0.6, 0.8]])),
}


@pytest.mark.parametrize("name", SUPPORTS)
def test_constrain_is_the_inverse_of_unconstrain(name, key):
    support, init = SUPPORTS[name]
    est = compile(lambda: jnp.sum(param("p", jnp.array(init, jnp.float32), support=support)))
    params = est.init(key)
    free = est.unconstrain(params)
    assert np.all(np.isfinite(free["p"]))
    np.testing.assert_allclose(est.constrain(free, params)["p"], init, rtol=1e-4, atol=1e-5)
    moved = est.constrain({"p": free["p"] + 0.5}, params)["p"]
    assert moved.shape == init.shape and np.all(support.check(moved))


def test_gradient_is_with_respect_to_the_constrained_value():
    """A positive scale: d E[x^2] / d scale = 2 scale, not its value in unconstrained space."""
    scale = lambda: param("theta", 0.5, support=positive)
    check_unbiased(lambda: normal.score(0.0, scale()) ** 2, 1.0, exact_value=0.25)


# ----------------------------------------------------------------------------------- places


def test_one_name_in_model_and_guide_is_one_parameter(key):
    """z ~ N(t, 1) against q(z) = N(t, 1): the ELBO's gradient only has the likelihood's part."""

    @gen
    def model():
        z = normal(param("theta", 0.5), 1.0) @ "z"
        normal(z, 1.0) @ "y"

    @gen
    def guide():
        normal(param("theta", 0.5), 1.0) @ "z"

    objective = vi.elbo(model, guide, observed={"y": 2.0})
    assert set(compile(objective).init(key)) == {"theta"}
    check_unbiased(objective, 1.5, data=objective.data)


def in_scan():
    step = lambda x, _: (param("theta", 0.3) * x + normal.score(0.0, 1.0), None)
    return lax.scan(step, 1.0, None, length=3)[0]


def in_vmap():
    draw = lambda x: normal.score(param("theta", 0.3) * x, 1.0)
    return jnp.sum(jax.vmap(draw)(jnp.arange(3.0)))


def in_cond():
    high = flip.score(0.5)
    draw = lambda c: lambda: normal.score(c * param("theta", 0.3), 1.0)
    return lax.cond(high, draw(2.0), draw(1.0))


def in_checkpoint():
    return jax.checkpoint(lambda: normal.score(param("theta", 0.3), 1.0))()


def in_jit():
    return jax.jit(lambda: normal.score(param("theta", 0.3), 1.0) * param("theta", 0.3))()


def in_combinators():
    @gen
    def lane(x):
        normal.score(param("theta", 0.3) * x, 1.0) @ "z"

    @gen
    def step(carry, x):
        plate(lane)(jnp.ones(2)) @ "lanes"
        return carry, None

    choices, _ = sim(scan(step, length=3))(0.0)
    return jnp.sum(choices["lanes"]["z"])


PLACES = {
    in_scan: 3 * 0.09,
    in_vmap: 3.0,
    in_cond: 1.5,
    in_checkpoint: 1.0,
    in_jit: 0.6,
    in_combinators: 6.0,
}


@pytest.mark.parametrize("program", PLACES, ids=lambda p: p.__name__)
def test_parameter_inside(program):
    assert set(compile(program).params()) == {"theta"}
    check_unbiased(program, PLACES[program], bias=0.05)


def test_rows_of_one_parameter_per_lane():
    """The way to have a parameter per lane: declared outside, its rows passed in."""
    start = jnp.array([0.2, -0.4, 0.6])

    @gen
    def lane(logits):
        categorical.enum(logits) @ "k"

    def objective():
        rows = param("theta", start)[:, None] * jnp.arange(3.0)
        choices, _ = sim(plate(lane))(rows)
        return jnp.sum(jnp.array([0.0, 1.0, 4.0])[choices["k"]])

    def exact(t):
        return jnp.sum(jax.nn.softmax(t[:, None] * jnp.arange(3.0)) * jnp.array([0.0, 1.0, 4.0]))

    assert check_unbiased(objective, np.asarray(jax.grad(exact)(start))) < 1e-5


# ------------------------------------------------------------------------- transformations


def test_estimators_compose_with_jit_vmap_and_scan(key):
    est = compile(lambda: (normal(param("theta", 0.3), 1.0) - 1.0) ** 2)

    def step(params, key):
        value, grad = est.value_and_grad(key, params)
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, grad), value

    starts = {"theta": jnp.array([0.0, 3.0])}
    run = jax.jit(jax.vmap(lambda params, keys: lax.scan(step, params, keys)[0]))
    ends = run(starts, jax.random.split(key, (2, 300)))
    np.testing.assert_allclose(ends["theta"], [1.0, 1.0], atol=0.8)


def test_another_shape_of_data_is_another_program(key):
    est = compile(lambda xs: jnp.mean((param("theta", 0.3) - xs) ** 2))
    for n in (3, 5, 3):
        assert est.value(key, {"theta": 0.0}, jnp.ones(n)) == 1.0


def test_double_precision(key):
    with jax.enable_x64(True):
        est = compile(lambda: jnp.exp(number(flip.enum(param("theta", 0.3)))).astype(float))
        value, grad = est.value_and_grad(key, est.init(key))
        assert value.dtype == grad["theta"].dtype == jnp.float64
        np.testing.assert_allclose(grad["theta"], np.e - 1, rtol=1e-14)
