"""Which costs are estimated as one, and that this changes neither value nor gradient."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from jax import lax

from ppl.compiler import compile
from ppl.compiler.strategies import Score
from ppl.lang import flip, normal, param
from ppl.testing import assert_unbiased

WEIGHTS = jnp.array([0.5, -1.0, 2.0])


def draws(site, name="theta", at=0.3):
    return site(jnp.full(3, param(name, at))).astype(float)


def signs(x):
    """Three costs of each lane, the last two with a minus."""
    return jnp.sum(jnp.cos(x)) - jnp.sum((x * WEIGHTS) ** 2 + jnp.exp(x))


def after_sums(x):
    """A sum over lanes, and a cost of all lanes together."""
    return jnp.sum(jnp.exp(x)) + jnp.sum(x) ** 2


def twice(x):
    """A cost that the objective uses in two places."""
    once = jnp.exp(x)
    return jnp.sum(once) + jnp.sum(once * WEIGHTS) + jnp.sum(x**2)


def in_steps(x):
    """Costs of each step of a loop."""

    def step(total, lane):
        return total + jnp.exp(lane) - jnp.sin(3.0 * lane), None

    return lax.scan(step, 0.0, x)[0]


CASES = {signs: {3}, after_sums: set(), twice: set(), in_steps: {2}}
"""Sizes of the groups."""


def sizes(est):
    return {len(m.signs) for m in est.plan().merged.values()}


def value(cost, p):
    """By all outcomes of the three flips."""
    bits = jnp.array([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], float)
    weights = jnp.prod(jnp.where(bits == 1, p, 1 - p), -1)
    return sum(float(w) * float(cost(x)) for w, x in zip(weights, bits, strict=True))


@pytest.mark.parametrize("cost", CASES, ids=lambda f: f.__name__)
def test_costs_of_the_same_choice(cost):
    est = compile(lambda: cost(draws(flip.score)))
    assert sizes(est) == CASES[cost]
    slope = (value(cost, 0.31) - value(cost, 0.29)) / 0.02  # a cubic at most
    assert_unbiased(est, exact={"theta": slope}, exact_value=value(cost, 0.3), bias=0.05)


def test_choices_are_not_charged_with_each_other():
    """Two choices, each with costs of its own: two groups."""

    def objective():
        x, y = draws(flip.score), draws(flip.score, "other", 0.6)
        return jnp.sum(jnp.exp(x) - x**2) + jnp.sum(jnp.exp(y)) - jnp.sum(jnp.sin(y))

    merged = compile(objective).plan().merged
    assert len({id(m) for m in merged.values()}) == 2


@pytest.mark.parametrize("baseline", ["running_mean", "per_lane"])
def test_costs_with_a_baseline_of_their_own_stay_apart(baseline):
    def objective():
        x = draws(flip.via(Score(baseline)))
        return (jnp.sum(x) - 1.0) ** 2 + jnp.exp(jnp.sum(x))

    assert not sizes(compile(objective))


def test_tables_do_not_grow():
    """A cost of two enumerated choices takes in those of one of them, but two tables over different
    choices are not multiplied out."""

    def pair():
        a, b = draws(flip.enum), draws(flip.enum, "other", 0.6)
        return jnp.sum(jnp.exp(a * b) + jnp.exp(a) - jnp.exp(b))

    def apart():
        a, b = draws(flip.enum), draws(flip.enum, "other", 0.6)
        return jnp.sum(jnp.exp(a) - jnp.exp(b))

    assert sizes(compile(pair)) == {3} and not sizes(compile(apart))
    mean = lambda p, q: 3 * (p * q * (jnp.e - 1) + p * (jnp.e - 1) - q * (jnp.e - 1) + 1)
    exact = {"theta": 3 * (jnp.e - 1) * 1.6, "other": 3 * (jnp.e - 1) * (0.3 - 1)}
    assert_unbiased(compile(pair), exact=exact, exact_value=mean(0.3, 0.6))


def test_a_reparameterised_choice():
    def objective():
        x = normal.reparam(param("theta", 0.3), 1.0)
        return x**2 - 2.0 * x

    assert_unbiased(compile(objective), exact={"theta": 2 * 0.3 - 2}, exact_value=1.09 - 0.6)
