"""What the planner picks: for choices that can neither be reparameterised nor enumerated, and for
those that no parameter moves."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from ppl import flip, frozen, gamma, normal, param, plate, poisson, positive
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


def loc():
    return param("loc", 0.5)


def simulated():
    """No parameter reaches the draws; twelve flips decide together, so a table has 4,096 rows."""
    rate = gamma(2.0, 1.0)
    count = poisson(rate)
    flips = plate(flip)(jnp.full(12, 0.3))
    return loc() * count * jnp.square(jnp.sum(flips * 1.0))


def below_a_score():
    """The score choice's draw is cut, so that what is drawn from it needs no strategy."""
    center = normal.score(loc(), 1.0)
    return jnp.square(normal(center, 1.0))


def along_a_path():
    """The path goes on through the second draw."""
    return jnp.square(normal(normal.reparam(loc(), 1.0), 1.0))


def constant_copy():
    """What is drawn with frozen parameters has no derivative."""
    return loc() * frozen(lambda: poisson(jnp.exp(loc())))()


def test_choices_that_no_parameter_moves_are_drawn():
    names, reasons = planned(simulated)
    assert names == {"drawn"}
    assert all("no gradient strategy is needed" in why for why in reasons.values())
    assert planned(below_a_score)[0] == {"score", "drawn"}
    assert planned(along_a_path)[0] == {"reparam"}
    assert planned(constant_copy)[0] == {"drawn"}


def test_a_few_values_that_no_parameter_moves_are_still_summed():
    assert planned(lambda: loc() * flip(0.3))[0] == {"enum"}


def test_the_gradient_by_plain_draws_is_unbiased():
    """Exact: E count = 2, E (sum of flips)^2 = 12 * 0.3 * 0.7 + 3.6^2; d E x^2 = 2 loc; the Poisson
    mean e^loc. Catches a bias of 3 %, false alarms below 1e-6 each."""
    assert_unbiased(simulated, exact={"loc": 2.0 * (12 * 0.21 + 3.6**2)})
    assert_unbiased(below_a_score, exact={"loc": 1.0})
    assert_unbiased(constant_copy, exact={"loc": jnp.exp(0.5)})
