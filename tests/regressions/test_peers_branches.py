"""Choices inside branches, whose estimators end at the branch in GenJAX 1.0.14.

What comes after `cond` then sees the branch's expectation instead of its draw. The
numbers that GenJAX got stand beside each program.
"""

from __future__ import annotations

import genjax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppl.compiler import compile
from ppl.compiler.strategies import strategies
from ppl.errors import BiasWarning, StrategyError
from ppl.lang import cond, flip, gen, normal, param, sim, switch
from tests.compiler.exact import check_unbiased


def theta(value=0.3):
    return param("theta", value)


def number(bit):
    return jnp.asarray(bit).astype(float)


def able(distribution):
    """The names of all unbiased strategies that a distribution has."""
    site = compile(lambda: number(distribution(0.5))).plan().staged.sites[0]
    able = {name: s for name, s in strategies.items() if s.refusal(site) is None}
    return sorted(name for name, s in able.items() if not getattr(s, "biased", None))


def standard(loc):
    return normal(loc, 1.0)


# ---------------------------------------------------------------------------- after the branch


@pytest.mark.parametrize("strategy", ["reparam", "score", None])
def test_square_of_a_normal_from_a_branch(strategy):
    """GenJAX: REINFORCE 2.79 +- 0.06 for 2 theta = 1.4; reparam right."""
    site = normal if strategy is None else normal.via(strategy)

    def objective():
        t = theta(0.7)
        x = lax.cond(t > 0, lambda t: site(t, 1.0), lambda t: 0.0, t)
        return x**2

    check_unbiased(objective, 1.4, exact_value=1.49)


@pytest.mark.parametrize("strategy", [*able(flip), None])
def test_exponential_of_a_flip_from_a_branch(strategy):
    """GenJAX, for e^2 - 1 = 6.389: enum 3.644 +- 0 (and the value 1.822 for 2.917), mvd 5.813 +-
    0.041, REINFORCE 14.70 +- 0.16."""
    site = flip if strategy is None else flip.via(strategy)

    def objective():
        t = theta()
        x = lax.cond(t > 0, lambda t: number(site(t)), lambda t: 0.0, t)
        return jnp.exp(2.0 * x)

    check_unbiased(objective, np.exp(2) - 1, exact_value=1 + 0.3 * (np.exp(2) - 1))


def test_square_inside_the_branch():
    """GenJAX: 1.39, right."""

    def objective():
        t = theta(0.7)
        return lax.cond(t > 0, lambda t: normal.score(t, 1.0) ** 2, lambda t: 0.0, t)

    check_unbiased(objective, 1.4)


# ------------------------------------------------------------------------------- three branches


@pytest.mark.parametrize("index", [0, 1, 2])
def test_switch_with_a_known_index(index):
    """GenJAX: TypeError, even with a deterministic index."""

    def objective():
        t = theta()
        branches = [
            lambda: 2.0 * t,
            lambda: number(flip.enum(t)) * normal.reparam(0.0, 1.0) + number(flip.score(t)),
            lambda: number(flip.score(t)) + normal.reparam(t, 1.0),
        ]
        return lax.switch(jnp.array(index), branches) ** 2

    # Squares of 2t; of b z + c (mean t + t); of c + x (mean t + 2 t t + t^2 + 1).
    exact = [8 * 0.3, 2.0, 1 + 4 * 0.3 + 2 * 0.3][index]
    check_unbiased(objective, exact)


@pytest.mark.parametrize("index", ["enum", "score"])
def test_switch_with_a_random_index(index):
    def objective():
        t = theta()
        k = flip.via(index)(t).astype(int) + flip.via(index)(t).astype(int)
        branches = [
            lambda: 1.0,
            lambda: number(flip.enum(t)),
            lambda: 3.0 * number(flip.score(t)),
        ]
        return (lax.switch(k, branches) + k) ** 2

    def exact(t):
        one = t * 4 + (1 - t) * 1
        two = t * 25 + (1 - t) * 4
        return (1 - t) ** 2 * 1 + 2 * t * (1 - t) * one + t**2 * two

    def slope(t, h=1e-6):
        return (exact(t + h) - exact(t - h)) / (2 * h)

    check_unbiased(objective, slope(0.3), exact_value=exact(0.3))


# -------------------------------------------------------------------------------- combinators


def branch_programs():
    @gen
    def drawn(t):
        return normal.score(t, 1.0) @ "x"

    @gen
    def constant(t):
        return normal(0.0, 1e-6) @ "x"

    return drawn, constant


@pytest.mark.parametrize("combinator", [cond, genjax.Cond], ids=["ours", "GenJAX's"])
def test_cond_combinator(combinator):
    """GenJAX's evaluates both branches: 1.4, right."""

    def objective():
        t = theta(0.7)
        choices, _ = sim(combinator(*branch_programs()))(t > 0, t)
        return choices["x"] ** 2

    check_unbiased(objective, 1.4)


def test_switch_combinator():
    def objective():
        t = theta(0.7)
        drawn, constant = branch_programs()
        k = number(flip.score(t)) + number(flip.score(t))
        choices, _ = sim(switch(constant, drawn, constant))(k.astype(int), t)
        return choices["x"] ** 2

    # 2 t (1 - t) (1 + t^2)
    t = 0.7
    check_unbiased(objective, 2 * (1 - 2 * t + 3 * t**2 - 4 * t**3))


# ----------------------------------------------------------------------------- discontinuities
# E[1(x > 0)] for x ~ N(theta, 1): the derivative is the normal density at 0.3, 0.381.

JUMP = float(np.exp(-0.045) / np.sqrt(2 * np.pi))


def jump(site):
    return lambda: lax.cond(site(theta(), 1.0) > 0, lambda: 1.0, lambda: 0.0)


def test_discontinuity_of_a_planned_choice():
    """GenJAX's normal_reparam: 0."""
    (choice,) = compile(jump(normal)).explain().choices
    assert choice.strategy == "score"
    assert "'gt'" in choice.why and "jumps" in choice.why
    check_unbiased(jump(normal), JUMP)


def test_discontinuity_of_a_reparameterised_choice_warns():
    est = compile(jump(normal.reparam))
    with pytest.warns(BiasWarning, match="at address: normal"):
        est.plan()
    assert est.biased() == ["normal"]
    assert any("biased" in w for w in est.explain().warnings)


def test_discontinuity_of_a_reparameterised_choice_is_an_error_if_strict():
    with pytest.raises(StrategyError) as error:
        compile(jump(normal.reparam), strict=True).plan()
    assert error.value.address == "normal"
    assert "'score'" in error.value.fix
    assert "test_peers_branches.py" in error.value.where
