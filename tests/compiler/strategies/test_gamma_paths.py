"""Implicit reparameterisation, and paths through rejection samplers.

|z| < 5.5 (false-alarm rate 4e-8) with as many draws as it takes to see a bias of 3 % of the
largest gradient; all distributions at once, with gradients of similar size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import integrate, stats
from scipy.special import digamma

from ppl.compiler import compile
from ppl.compiler.strategies import Rejection
from ppl.compiler.strategies.rejection import _log_gamma
from ppl.errors import StrategyError
from ppl.lang import (
    beta,
    dirichlet,
    flip,
    gamma,
    inverse_gamma,
    mixture_same_family,
    normal,
    param,
    student_t,
    von_mises,
)
from tests.compiler.exact import check_unbiased

AT = {
    "gamma": 0.7, "beta": 1.5, "dirichlet": 0.8, "student_t": 3.0, "mixture": 0.4, "angle": 0.5,
    "spread": 0.6,
}  # fmt: skip


def implicit_value(**t):
    a, b, c, df, w, k = (
        t[n] for n in ("gamma", "beta", "dirichlet", "student_t", "mixture", "angle")
    )
    total = a * (a + 1) / 1.5
    total += 5 * b * (b + 1) / ((b + 2) * (b + 3))
    total += 20 * c * 1.2 / ((c + 1.7) * (c + 2.7))
    total += 5 * (digamma((df + 1) / 2) - digamma(df / 2))
    p = 1 / (1 + np.exp(-w))
    total += (1 - p) * 1.0 + p * (4 * t["spread"] ** 2 + 0.25)
    density = lambda x: stats.vonmises.pdf(x, 1.5, loc=k)
    cost = lambda x: 2 * np.sin(x) + 0.5 * x**2
    return total + integrate.quad(lambda x: cost(x) * density(x), -np.pi, np.pi)[0]


def implicit_objective():
    t = {n: param(n, v) for n, v in AT.items()}
    probs = dirichlet.reparam(jnp.stack([t["dirichlet"], 1.2, 0.5]))
    angle = von_mises.reparam(t["angle"], 1.5)
    two = mixture_same_family(normal).reparam
    mixed = two(
        jnp.stack([0.0, t["mixture"]]), jnp.stack([0.0, 2 * t["spread"]]), jnp.array([1.0, 0.5])
    )
    return (
        1.5 * gamma.reparam(t["gamma"], 1.5) ** 2
        + 5 * beta.reparam(t["beta"], 2.0) ** 2
        + 20 * probs[0] * probs[1]
        + 5 * jnp.log1p(student_t.reparam(t["student_t"]) ** 2 / t["student_t"])
        + mixed**2
        + 2 * jnp.sin(angle) + 0.5 * angle**2  # the square is not periodic
    )  # fmt: skip


def slopes(value, at, h=1e-4):
    return {
        n: (value(**at | {n: v + h}) - value(**at | {n: v - h})) / (2 * h) for n, v in at.items()
    }


def test_implicit():
    check_unbiased(implicit_objective, slopes(implicit_value, AT), exact_value=implicit_value(**AT))


def test_the_planner_scores_angles():
    """Near pi the path's variance explodes; whoever knows better asks for it."""
    plan = compile(lambda: jnp.cos(von_mises(param("loc", 0.5), 1.0))).plan()
    assert [s.name for s in plan.strategies.values()] == ["score"]


# ---------------------------------------------------------------------------------- rejection

POINT = {
    "plain": 0.6,
    "plate": 0.8,
    "scan": 1.0,
    "cond": 1.2,
    "beta": 1.5,
    "dirichlet": 0.8,
    "inverse": 1.3,
}


def rejection_objective(strategy, samples_cond=flip.enum):
    def objective():
        t = {n: param(n, v) for n, v in POINT.items()}
        a = gamma.via(strategy)(t["plain"], 2.0)
        b = gamma.via(strategy)(1.0 + a, 2.0)  # parent and child
        plain = 2 * a * b

        lanes = gamma.via(strategy)(t["plate"] * jnp.ones(3), jnp.array([1.0, 2.0, 3.0]))
        plate = jnp.sum(lanes) ** 2 / 2

        def step(x, _):
            x = gamma.via(strategy)(t["scan"] + 0.2 * x, 2.0)
            return x, x

        chain = 2 * jnp.sum(lax.scan(step, 1.0, None, length=3)[1])
        up = samples_cond(0.5)
        side = lax.cond(up, lambda: gamma.via(strategy)(t["cond"], 1.0), lambda: t["cond"])
        probs = dirichlet.via(strategy)(jnp.stack([t["dirichlet"], 1.2, 0.5]))
        other = 20 / (1 + inverse_gamma.via(strategy)(t["inverse"], 1.0))
        rest = 9 * beta.via(strategy)(t["beta"], 2.0) ** 2 + 30 * probs[0] * probs[1]
        return plain + plate + chain + 2 * side + rest + other

    return objective


def rejection_value(**t):
    a = t["plain"]
    total = 2 * (a / 2 / 2 + a * (a + 1) / 4 / 2)
    mean = t["plate"] * (1 + 1 / 2 + 1 / 3)
    total += (mean**2 + t["plate"] * (1 + 1 / 4 + 1 / 9)) / 2
    x = 1.0
    for _ in range(3):
        x = (t["scan"] + 0.2 * x) / 2
        total += 2 * x
    b, c = t["beta"], t["dirichlet"]
    total += 2 * t["cond"] + 9 * b * (b + 1) / ((b + 2) * (b + 3))
    inverse = integrate.quad(lambda x: stats.gamma.pdf(x, t["inverse"]) * x / (1 + x), 0, np.inf)
    return total + 30 * c * 1.2 / ((c + 1.7) * (c + 2.7)) + 20 * inverse[0]


@pytest.mark.parametrize("augment", [1, 5])
def test_rejection(augment):
    """In every construct, for concentrations above and below 1."""
    objective = rejection_objective(Rejection(augment))
    exact = slopes(rejection_value, POINT)
    check_unbiased(objective, exact, exact_value=rejection_value(**POINT))


def test_the_score_part_shrinks_with_augmentation():
    """The density of the accepted noise depends ever less on the concentration."""

    def size(augment):
        charge = lambda a, key: _log_gamma(key, (), a, augment)[1]
        slopes = jax.vmap(jax.grad(charge), (None, 0))(
            1.0, jax.random.split(jax.random.key(0), 2000)
        )
        assert abs(jnp.mean(slopes)) < 5.5 * jnp.std(slopes) / 2000**0.5  # a score has mean 0
        return float(jnp.std(slopes))

    assert size(9) < 0.3 * size(1) < 0.1


def test_refusals():
    with pytest.raises(StrategyError, match="no 'rejection' strategy"):
        compile(lambda: normal.via("rejection")(param("t", 0.0), 1.0)).plan()
    with pytest.raises(StrategyError, match="at least 1"):
        Rejection(0)
