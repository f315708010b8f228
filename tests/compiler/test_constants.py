"""What is computed from an enumerated choice's values alone is a constant table."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl import categorical, flip, param, unit_interval, vi
from ppl._compat import sub_jaxprs
from ppl.compiler.tables import as_array, distinct

LANES, VALUES = 50, 3
P = np.array([0.2, 0.3, 0.5], np.float32)
ROWS = np.linspace(-1.0, 2.0, VALUES * 2).reshape(VALUES, 2).astype(np.float32)


def test_repeats_are_not_stored():
    table = np.broadcast_to(np.arange(3)[:, None, None], (3, 4, 5))
    assert distinct(table).shape == (3, 1, 1)
    np.testing.assert_array_equal(as_array(table), table)
    plain = np.arange(6).reshape(2, 3)
    assert distinct(plain).shape == (2, 3) and as_array(2.0).shape == ()


def lookups(jaxpr):
    """Sizes of the index arrays of all lookups, there and back."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("gather", "scatter-add"):
            yield eqn.invars[1].aval.size
        for inner in sub_jaxprs(eqn.params):
            yield from lookups(inner)


def test_one_lookup_for_all_lanes():
    """Rows picked by choices in 50 lanes, after some arithmetic on them, against the plain sum."""

    def objective():
        rows = param("rows", ROWS)
        z = categorical.enum(jnp.broadcast_to(jnp.log(P), (LANES, VALUES)))
        picked = rows[(2 - z)[None, :].T[:, 0]] * jnp.arange(1.0, LANES + 1)[:, None]
        return jnp.sum(picked**2 * (1.0 + z[:, None] % 2))

    est = vi.compile(objective)
    params = est.init(jax.random.key(0))
    run = lambda p: est.value_and_grad(jax.random.key(0), p)
    value, grad = jax.jit(run)(params)

    def exact(rows):
        weight = P * (1.0 + np.arange(VALUES) % 2) * jnp.sum(jnp.arange(1.0, LANES + 1) ** 2)
        return jnp.sum(weight[:, None] * rows[2 - np.arange(VALUES)] ** 2)

    expected, expected_grad = jax.value_and_grad(exact)(ROWS)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grad["rows"], expected_grad, rtol=1e-5)
    assert set(lookups(jax.make_jaxpr(run)(params).jaxpr)) == {VALUES}


def test_indexing_by_all_values_is_no_lookup():
    """Rows, columns, and single numbers by a choice with the values 0, 1, 2, and the plain sum."""

    def objective():
        table = param("table", np.stack([ROWS, ROWS**2]))
        z = categorical.enum(jnp.log(P))
        return jnp.sum(table[:, z] ** 2) + table[1, z, 0] * jnp.take(P, z) + jnp.sum(table[0, z])

    def exact(table):
        cost = lambda z: jnp.sum(table[:, z] ** 2) + table[1, z, 0] * P[z] + jnp.sum(table[0, z])
        return sum(P[z] * cost(z) for z in range(VALUES))

    est = vi.compile(objective)
    params = est.init(jax.random.key(0))
    run = lambda p: est.value_and_grad(jax.random.key(0), p)
    value, grad = jax.jit(run)(params)
    expected, expected_grad = jax.value_and_grad(exact)(params["table"])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grad["table"], expected_grad, rtol=1e-5)
    assert len([*lookups(jax.make_jaxpr(run)(params).jaxpr)]) == 1  # of `take`


def test_one_choice_decides_for_a_whole_array():
    """A scalar predicate of `select_n` is a table of less rank than its cases."""

    def objective():
        on = flip.enum(param("p", 0.3, support=unit_interval))
        row = lax.select(on, jnp.array([1.0, 2.0, 4.0]), jnp.zeros(3))
        return jnp.sum(row**2)

    est = vi.compile(objective)
    value, grad = est.value_and_grad(jax.random.key(0), est.init(jax.random.key(0)))
    np.testing.assert_allclose([value, grad["p"]], [0.3 * 21.0, 21.0], rtol=1e-5)
