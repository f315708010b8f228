"""Slices that are parts of one split: values, gradients, and when there is none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppl.compiler import compile
from ppl.lang import flip, normal, param

KEY = jax.random.key(0)
START = jnp.arange(1.0, 7.0)


def each(w):
    return sum(jnp.sin((i + 1) * w[i]) for i in range(6))


def with_gaps_out_of_order(w):
    return jnp.sum(w[4:6] ** 3) + jnp.exp(w[2]) * w[1]


def one_twice(w):
    return w[1] * w[2] + jnp.exp(w[1])


def overlapping(w):
    return jnp.sum(w[1:] * w[:-1] ** 2)


def strided(w):
    return jnp.sum(w[::2] * w[1::2] ** 2)


def along_two_axes(w):
    table = w.reshape(2, 3)
    return jnp.sum(table[0] ** 2) + jnp.sum(table[:, 1] ** 3)


def along_the_last_axis(w):
    table = w.reshape(2, 3)
    return jnp.sum(table[:, :1] ** 2 * table[:, 1:])


def empty_and_not(w):
    return jnp.sum(w[:0]) + jnp.sum(w[:3] ** 2) + jnp.sum(w[5:5]) + w[4] + jnp.sum(w[5:] ** 3)


CASES = [
    each,
    empty_and_not,
    with_gaps_out_of_order,
    one_twice,
    overlapping,
    strided,
    along_two_axes,
    along_the_last_axis,
]


@pytest.mark.parametrize("cost", CASES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("enumerated", [False, True], ids=["plain", "enumerated"])
def test_value_and_gradient(cost, enumerated):
    """As JAX alone has them, also where the array has the axis of an enumerated choice."""

    def program():
        w = param("w", START)
        return cost(jnp.where(flip.enum(0.3), w, 2 * w) if enumerated else w)

    def by_hand(w):
        return 0.3 * cost(w) + 0.7 * cost(2 * w) if enumerated else cost(w)

    est = compile(program)
    value, grad = est.value_and_grad(KEY, est.init(KEY))
    expected, slope = jax.value_and_grad(by_hand)(START)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grad["w"], slope, rtol=1e-5, atol=1e-6)


def test_in_a_loop():
    """The array is the loop's state, and the split is made in each step."""

    def program():
        def step(w, _):
            w = jnp.stack([jnp.sin(w[1]), w[2] * w[0], w[1] + 0.1])
            return w, w[0]

        last, firsts = lax.scan(step, param("w", START[:3] / 3), None, length=4)
        return jnp.sum(last) + jnp.sum(firsts)

    def by_hand(w):
        total = 0.0
        for _ in range(4):
            w = jnp.stack([jnp.sin(w[1]), w[2] * w[0], w[1] + 0.1])
            total += w[0]
        return total + jnp.sum(w)

    est = compile(program)
    value, grad = est.value_and_grad(KEY, est.init(KEY))
    expected, slope = jax.value_and_grad(by_hand)(START[:3] / 3)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grad["w"], slope, rtol=1e-5)


def test_the_way_back_is_one_concatenation():
    def operations(cost) -> list[str]:
        def program():
            return cost(param("w", START)) + 0 * (normal(0.0, 1.0))

        est = compile(program)
        jaxpr = jax.make_jaxpr(est.value_and_grad)(KEY, est.init(KEY))
        return [eqn.primitive.name for eqn in jaxpr.eqns]

    assert operations(each).count("concatenate") == 1 and "pad" not in operations(each)
    assert "pad" in operations(overlapping)
