"""`require`: conditions that a fit reports by name."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import flip, gen, param, plate, require, sim, vi
from ppl.errors import NonFiniteError, ShapeError


def test_it_is_nan_where_the_condition_fails():
    x = {"a": jnp.array([1.0, 2.0]), "n": jnp.array([1, 2])}
    out = require(x, jnp.array([True, False]), "odd")
    np.testing.assert_array_equal(out["a"], [1.0, np.nan])
    np.testing.assert_array_equal(out["n"], [1, 2])
    assert np.isnan(require(jnp.ones(3), False, "all")).all()


@pytest.mark.parametrize("condition", [jnp.ones(3, bool), jnp.ones(2), jnp.ones((2, 2), bool)])
def test_a_condition_that_does_not_fit_is_refused(condition):
    with pytest.raises(ShapeError, match="does not fit the value"):
        require(jnp.ones(2), condition, "odd")


def test_derivatives_pass_where_it_holds():
    f = lambda x: require(x**2, x > 0, "x is not positive")
    xs = jnp.array([3.0, -1.0])
    np.testing.assert_array_equal(jax.vmap(jax.grad(f))(xs), [6.0, np.nan])
    np.testing.assert_array_equal(jax.vmap(lambda x: jax.jvp(f, (x,), (1.0,))[1])(xs), [6, np.nan])
    np.testing.assert_array_equal(jax.jit(jax.vmap(f))(xs), [9.0, np.nan])


def test_vmap_maps_either_operand():
    ok = jnp.array([[True, False], [True, True]])
    both = jax.vmap(lambda c: require(jnp.ones(2), c, "odd"), in_axes=1, out_axes=1)(ok)
    np.testing.assert_array_equal(np.isnan(both), ~np.asarray(ok))


@gen
def lane(p):
    x = flip.enum(p) @ "x"
    value = require(jnp.where(x, 2.0, 1.0), p < 0.9, "p is at least 0.9")
    return value


def objective(scale):
    p = param("p", jnp.array([0.2, 0.3]))
    x, _ = sim(plate(lane))(p)
    value = require(jnp.where(x["x"], 2.0, 1.0), p * scale < 0.9, "p is at least 0.9")
    return jnp.sum(value)


def test_lanes_stay_apart_in_an_objective():
    estimator = vi.compile(objective)
    params = estimator.init(jax.random.key(0), 1.0)
    value, grad = estimator.value_and_grad(jax.random.key(0), params, 1.0)
    np.testing.assert_allclose(value, 2.5, rtol=1e-6)
    np.testing.assert_allclose(grad["p"], [1.0, 1.0], rtol=1e-6)
    assert "2 values, all lanes together" not in str(estimator.explain(1.0))


def test_a_fit_says_which_condition_failed():
    with pytest.raises(NonFiniteError, match=r"(?s)step 0.*p is at least 0\.9 \(at .*test_require"):
        vi.fit(objective, 3.5, steps=3, progress=False)
