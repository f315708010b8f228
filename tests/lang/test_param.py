"""`param`: declared anywhere, shared by name, with any structure."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppl.errors import DataError, ShapeError, UnsupportedError
from ppl.lang.bind_params import bind_params
from ppl.lang.density import sim
from ppl.lang.distributions.normal import normal
from ppl.lang.loop import scan
from ppl.lang.param import param
from ppl.lang.plate import plate
from ppl.lang.program import gen
from ppl.lang.seed import seed
from ppl.lang.staged import initial_params, stage
from ppl.lang.supports import positive

from .programs import xs


def declared(fun, *args):
    return initial_params(stage(fun, *args), jax.random.key(0), jax.tree.leaves(args))


def test_one_name_is_one_parameter():
    def run():
        return param("a", 1.0) + jax.jit(lambda: param("a", 1.0))() + param("b", jnp.zeros(2))

    params = declared(run)
    assert set(params) == {"a", "b"} and params["b"].shape == (2,)


def test_it_is_shared_by_lanes_and_steps():
    @gen
    def row(x):
        normal(x * param("slope", 2.0), param("scale", 1.0, support=positive)) @ "y"

    @gen
    def step(c, x):
        plate(row)(xs) @ "rows"
        return c, None

    params = declared(lambda: sim(scan(step, length=2))(0.0))
    assert {n: np.shape(p) for n, p in params.items()} == {"slope": (), "scale": ()}


def test_two_declarations_must_agree():
    with pytest.raises(ShapeError, match="'a' is declared twice, differently") as e:
        declared(lambda: param("a", 1.0) + jnp.sum(param("a", jnp.zeros(2))))
    assert "test_param.py" in e.value.where and "test_param.py" in e.value.because
    with pytest.raises(ShapeError, match="on positive"):
        declared(lambda: param("a", 1.0) + param("a", 1.0, support=positive))


def test_a_network():
    net = eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0))
    run = lambda x: param("net", net)(x)[0]
    found = declared(run, jnp.ones(2))["net"]
    assert jax.tree.structure(found) == jax.tree.structure(net)
    np.testing.assert_allclose(seed(run)(jax.random.key(1), jnp.ones(2)), net(jnp.ones(2))[0])


def test_an_initialiser_draws_from_the_key():
    staged = stage(lambda: param("w", lambda key: {"a": jax.random.normal(key, (3,))})["a"])
    one, two = (initial_params(staged, jax.random.key(i), [])["w"]["a"] for i in range(2))
    assert one.shape == (3,) and np.all(one != two)


def test_an_initial_value_from_the_data():
    params = declared(lambda y: param("centre", jnp.mean(y)) + 0.0, xs)
    np.testing.assert_allclose(params["centre"], jnp.mean(xs))


def test_an_initial_value_from_a_choice_is_refused():
    with pytest.raises(UnsupportedError, match="not known before the run"):
        declared(lambda: param("a", normal.sample(0.0, 1.0)) + 0.0)
    with pytest.raises(UnsupportedError, match="not known before the run"):
        declared(lambda: lax.scan(lambda c, x: (c + param("a", x), None), 0.0, xs)[0])


def test_an_initial_value_outside_of_the_support_is_refused():
    with pytest.raises(DataError, match="not in its support"):
        declared(lambda: param("scale", -1.0, support=positive) + 0.0)


def test_a_value_that_differs_by_lane_is_refused():
    with pytest.raises(ShapeError, match="differs from lane to lane"):
        declared(lambda: jax.vmap(lambda x: param("a", x))(xs))


def test_values_can_be_bound():
    run = lambda: param("a", 1.0) * 2
    np.testing.assert_allclose(seed(run)(jax.random.key(0)), 2.0)
    np.testing.assert_allclose(seed(bind_params(run, {"a": 3.0}))(jax.random.key(0)), 6.0)
