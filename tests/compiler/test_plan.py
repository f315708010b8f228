"""What the planner picks for choices that can neither be reparameterised nor enumerated."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from ppl import param, poisson, positive
from ppl.compiler import compile
from ppl.compiler.plan import MAX_WORLDS
from ppl.testing import assert_unbiased


def rate():
    return param("rate", 2.0, support=positive)


def one_count():
    return jnp.square(poisson(rate()) - 3.0)


def lanes():
    """Each entry of the cost sees one lane, so that all lanes share a world."""
    return jnp.sum(jnp.square(poisson(rate() * jnp.ones(50)) - 3.0))


def remembered():
    """Each step's count is remembered, so that each needs worlds of its own."""
    step = lambda total, _: (total + poisson(rate()), None)
    total, _ = lax.scan(step, 0.0, length=MAX_WORLDS + 1)
    return jnp.square(total)


def planned(objective):
    plan = compile(objective).plan()
    return {s.name for s in plan.strategies.values()}, plan.reasons


def test_few_worlds_are_compared():
    assert planned(one_count)[0] == planned(lanes)[0] == {"mvd"}


def test_many_worlds_are_not():
    names, reasons = planned(remembered)
    assert names == {"score"}
    (why,) = set(reasons.values())
    assert "worlds are too many" in why


def test_the_planned_gradient_is_unbiased():
    """E (n - 3)^2 = rate + (rate - 3)^2; catches a bias of 3 %, false alarms below 1e-6."""
    assert_unbiased(one_count, exact={"rate": 1.0 + 2 * (2.0 - 3.0)})
