"""Choices inside loops and nested calls, which GenJAX 1.0.14 freezes when it traces.

Around a choice, `scan`, `fori_loop`, `while_loop`, `jit`, `checkpoint` and GenJAX's `Scan` draw
once, at trace time: its estimates have no variance, and are wrong. The numbers that it got stand
beside each program.
"""

from __future__ import annotations

import genjax
import jax
import jax.numpy as jnp
import pytest
from genjax import const
from jax import lax

from ppl.compiler import compile
from ppl.errors import UnsupportedError
from ppl.lang import flip, gen, normal, param, scan, sim
from tests.compiler.exact import check_unbiased

STEPS = 5


def theta(value=0.3):
    return param("theta", value)


def number(bit):
    return jnp.asarray(bit).astype(float)


# ------------------------------------------------------------------------ a random walk, squared
# E[x**2] = 25 theta**2 + 5 = 7.25, and its derivative is 50 theta = 15.


def in_scan(site):
    """GenJAX: 10.78 +- 0 (reparam), 34.32 +- 0 (score)."""
    t = theta()
    return lax.scan(lambda x, _: (x + site(t, 1.0), None), 0.0, None, length=STEPS)[0] ** 2


def in_fori_loop(site):
    """GenJAX: -42.9 +- 0."""
    t = theta()
    return lax.fori_loop(0, STEPS, lambda i, x: x + site(t, 1.0), 0.0) ** 2


def in_our_scan(site):
    @gen
    def step(x, _):
        x = x + (site(theta(), 1.0) @ "step")
        return x, x

    choices, _ = sim(scan(step, length=STEPS))(0.0)
    return jnp.sum(choices["step"]) ** 2


def in_their_scan(site):
    """GenJAX: 67.03 +- 0 (reparam), 44.04 +- 0 (score)."""

    @genjax.gen
    def step(x, _):
        x = x + (site(theta(), 1.0) @ "step")
        return x, x

    choices, _ = sim(genjax.Scan(step, length=const(STEPS)))(0.0, None)
    return jnp.sum(choices["step"]) ** 2


def in_jit(site):
    t = theta()
    draw = jax.jit(lambda: site(t, 1.0))
    return sum(draw() for _ in range(STEPS)) ** 2


def in_checkpoint(site):
    t = theta()
    draw = jax.checkpoint(lambda: site(t, 1.0))
    return sum(draw() for _ in range(STEPS)) ** 2


def in_python_loop(site):
    """GenJAX: 15.17 +- 0.16, right."""
    t = theta()
    return sum(site(t, 1.0) for _ in range(STEPS)) ** 2


WALKS = [
    in_scan, in_fori_loop, in_our_scan, in_their_scan, in_jit, in_checkpoint, in_python_loop
]  # fmt: skip


@pytest.mark.parametrize("strategy", ["reparam", "score"])
@pytest.mark.parametrize("walk", WALKS, ids=lambda w: w.__name__)
def test_random_walk(walk, strategy):
    check_unbiased(lambda: walk(normal.via(strategy)), 15.0, exact_value=7.25)


@pytest.mark.parametrize("walk", WALKS, ids=lambda w: w.__name__)
def test_random_walk_is_planned_as_reparam(walk):
    choices = compile(lambda: walk(normal)).explain().choices
    assert {c.strategy for c in choices} == {"reparam"}


# ---------------------------------------------------------------------- a number of flips, squared
# E = 20 p**2 + 5 p = 3.3 and its derivative is 40 p + 5 = 17 at p = 0.3.


def count(site):
    """GenJAX: 0 +- 0 for enum, mvd and REINFORCE."""
    p = theta()
    step = lambda n, _: (n + number(site(p)), None)
    return lax.scan(step, 0.0, None, length=STEPS)[0] ** 2


@pytest.mark.parametrize("strategy", ["score", None])
def test_count_of_flips_in_scan(strategy):
    site = flip if strategy is None else flip.via(strategy)
    check_unbiased(lambda: count(site), 17.0, exact_value=3.3)


def test_count_of_flips_is_not_enumerated_by_the_planner():
    (choice,) = compile(lambda: count(flip)).explain().choices
    assert choice.strategy == "score"
    assert "remembers" in choice.why


def test_count_of_enumerated_flips_unrolled():
    """Without the loop, the count has 2^5 joint states: exact."""
    p = lambda: theta()
    total = lambda: sum(number(flip.enum(p())) for _ in range(STEPS))
    assert check_unbiased(lambda: total() ** 2, 17.0, exact_value=3.3) < 1e-5


# ------------------------------------------------------------------------------------ while_loop
# Flips until the first success: E[count] = 1 / p, derivative -1 / p**2 = -6.25 at p = 0.4.


def test_while_loop_is_refused():
    """GenJAX: 0."""

    def tosses():
        p = theta(0.4)
        again = lambda state: ~state[1]
        return lax.while_loop(again, lambda s: (s[0] + 1.0, flip.score(p)), (0.0, False))[0]

    with pytest.raises(UnsupportedError) as error:
        compile(tosses).plan()
    assert error.value.address == "flip"
    assert "'while'" in error.value.what
    assert "lax.scan" in error.value.fix and "done" in error.value.fix


def test_while_loop_as_its_error_advises():
    """A bounded scan with a `done` flag; 40 steps leave out 1e-9 of the probability."""

    def tosses():
        p = theta(0.4)

        def step(state, _):
            count, done = state
            count = count + jnp.where(done, 0.0, 1.0)
            return (count, done | flip.score(p)), None

        return lax.scan(step, (0.0, False), None, length=40)[0][0]

    check_unbiased(tosses, -6.25, exact_value=2.5)


# -------------------------------------------------------------------- one choice in a nested call


def test_score_choice_in_jit():
    """GenJAX: 3.24 +- 0 for 2 theta = 1.4."""
    draw = jax.jit(lambda t: normal.score(t, 1.0))
    check_unbiased(lambda: draw(theta(0.7)) ** 2, 1.4, exact_value=1.49)


def test_enumerated_choice_in_jit():
    """GenJAX: 0 for e."""
    draw = jax.jit(lambda p: flip.enum(p))
    objective = lambda: jnp.where(draw(theta()), jnp.e, 0.0)
    assert check_unbiased(objective, jnp.e, exact_value=0.3 * jnp.e) < 1e-6


def test_score_choice_in_checkpoint():
    """GenJAX: 4.31 +- 0 for 2 theta = 1.4."""
    draw = jax.checkpoint(lambda t: normal.score(t, 1.0))
    check_unbiased(lambda: draw(theta(0.7)) ** 2, 1.4, exact_value=1.49)
