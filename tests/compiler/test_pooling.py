"""Choices whose noise is drawn at once have the numbers that they would draw alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppl.compiler import compile, pooling
from ppl.lang import (
    bernoulli,
    cauchy,
    exponential,
    flip,
    half_normal,
    log_normal,
    multivariate_normal_diag,
    normal,
    param,
    uniform,
)

KEY = jax.random.key(3)


def row():
    x = param("x", 0.3)
    for _ in range(4):
        x = normal.reparam(x, 1.0)
    return x**2


def many_kinds():
    """Three of each kind of noise, in turns, and other shapes in between."""
    scale, total = param("scale", 0.4), 0.0
    for i in range(3):
        total += log_normal(0.0, scale)
        total += half_normal(scale)
        total += exponential(scale)
        total += jnp.tanh(cauchy(0.0, scale))
        total += uniform(0.0, scale)
        total += jnp.sum(normal(jnp.zeros(i), scale))
        vector = multivariate_normal_diag(jnp.zeros(2), scale * jnp.ones(2))
        total += jnp.sum(jnp.exp(vector))
        total += total * (flip.score(jnp.minimum(scale, 0.9)))
        total += bernoulli.score(scale)
    return total


def in_a_loop():
    loc = param("loc", 0.3)

    def step(carry, _):
        a = normal.reparam(0.5 * carry, 1.0)
        b = normal.reparam(a + loc, 1.0)
        return b, a * b

    first = normal.reparam(loc, 1.0)
    return jnp.sum(lax.scan(step, first, None, length=5)[1])


def in_branches():
    p = param("p", 0.3)

    def two():
        return jnp.sin(normal.reparam(p, 1.0)) * (normal.reparam(2 * p, 1.0))

    first = normal.reparam(p, 1.0)
    second = normal.reparam(p, 1.0)
    return first * second + lax.cond(flip(0.4), two, lambda: p**2)


def below_an_enumerated_choice():
    """Common random numbers for all values of the choice."""
    p = param("p", 0.3)
    z = flip.enum(p)
    a = normal.reparam(jnp.where(z, p, 2.0), 1.0)
    b = normal.reparam(p, jnp.where(z, 1.0, 3.0))
    return jnp.sin(a) * b


PROGRAMS = [row, many_kinds, in_a_loop, in_branches, below_an_enumerated_choice]


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_the_numbers_are_those_drawn_alone(program, samples, monkeypatch):
    """With each choice's own call of the generator, value and gradient are the same."""

    def estimate():
        est = compile(program, num_samples=samples)
        return jax.jit(est.value_and_grad)(KEY, est.init(KEY))

    together = estimate()
    monkeypatch.setattr(pooling, "_MOST", 0)
    alone = estimate()
    assert jax.tree.structure(together) == jax.tree.structure(alone)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def calls(program, impl: str = "threefry2x32") -> int:
    """How often one run of the estimator's code calls the generator."""
    est = compile(program)
    key = jax.random.key(0, impl=impl)
    return _calls(jax.make_jaxpr(est.surrogate)(key, est.init(key)).jaxpr)


def _calls(jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        total += eqn.primitive.name == "random_bits"
        for inner in jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns")):
            total += _calls(getattr(inner, "jaxpr", inner)) if hasattr(inner, "eqns") else 0
    return total


def large():
    a = normal.reparam(jnp.zeros(2_000), param("scale", 1.0))
    b = normal.reparam(jnp.zeros(2_000), 1.0)
    return jnp.sum(a * b)


def test_calls_of_the_generator():
    assert calls(row) == 1
    assert calls(in_a_loop) == 2
    assert calls(large) == 2


def test_other_generators_draw_alone():
    """With many keys at once they draw other numbers than with each alone."""
    assert calls(row, "philox4x32") == 1
    assert calls(row, "rbg") == 4
