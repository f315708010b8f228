"""Strategies with alternative worlds, through every construct and beside every other strategy.

References are exact, by enumeration. z-tests: |z| below the bound for a false-alarm rate of 1e-6
per test, and as many gradients as it takes to see a bias of 3 % (of 10 % for the structures, where
`exact_estimate` has tested most already) of the largest entry with a probability of 99 %.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppl.compiler import compile
from ppl.compiler.strategies import Arms, Rebar, Spa, SumAndSample, UnorderedSet
from ppl.errors import StrategyError
from ppl.lang.distribution import make_distribution
from ppl.lang.distributions import (
    beta,
    categorical,
    dirichlet,
    flip,
    geometric,
    gumbel,
    negative_binomial,
    normal,
    one_hot_categorical,
    poisson,
    weibull,
)
from ppl.lang.family import Family
from ppl.lang.param import param
from ppl.lang.weak_derivatives import moved_to
from ppl.testing import exact_estimate
from tests.compiler.exact import brute, check_unbiased
from tests.compiler.test_structures import PROGRAMS, THETA


def number(x):
    return jnp.asarray(x).astype(float)


def slope(f, at: float) -> float:
    """The derivative of a smooth function, in float64."""
    return (f(at + 1e-5) - f(at - 1e-5)) / 2e-5


# -------------------------------------------------------------------------------- structures

EXACT = {
    "scan_accumulates_nonlinear": 4,
    "lanes_of_parameters": 4,
    "nonlinear_per_lane": 2,
    "scan_over_plate": 4,
    "running_sum_of_scan_outputs": 4,
    "switch_with_three_branches": 5,
    "costs_inside_checkpoint": 3,
    "enumerated_below_score": 2,
    "charge_carries_an_axis": 2,
    "shifted_lanes_are_mixed": 4,
    "markov_unrolled": 4,
}
SAMPLED = {"markov_with_global_regime": 4, "markov_lanes": 3, "nested_scans": 3, "cond_in_scan": 5}
"""Programs, and how many worlds a flip with one alternate per lane needs there."""


@pytest.mark.parametrize("name", EXACT)
def test_mean_over_all_outcomes(name):
    make, reference, flips, _ = PROGRAMS[name]
    value, grad = brute(reference, flips, THETA)
    est = compile(lambda: make(flip.mvd), num_samples=1)
    mean = exact_estimate(est)
    assert abs(mean.value - value) < 1e-5 * max(1, abs(value))
    assert abs(float(mean.grad["theta"]) - grad) < 1e-5 * max(1, abs(grad))
    assert est.plan().worlds.size == EXACT[name]


@pytest.mark.parametrize("name", SAMPLED)
def test_loops_and_branches(name):
    make, reference, flips, _ = PROGRAMS[name]
    value, grad = brute(reference, flips, THETA)
    objective = lambda: make(flip.mvd)
    check_unbiased(objective, grad, exact_value=value, bias=0.1)
    assert compile(objective).plan().worlds.size == SAMPLED[name]


# ------------------------------------------------------------------------------ each strategy


def aligned(flip, t):
    """Lanes and steps that stay apart."""
    return jnp.sum(jnp.exp(jnp.array([0.5, -1.0]) * number(flip(t * jnp.array([1.0, 0.8])))))


def mixed(flip, t):
    return jnp.sum(number(flip(t * jnp.array([1.0, 0.5, 0.9])))) ** 2


def remembered(flip, t):
    def step(carry, _):
        z, total = carry
        z = number(flip(t + 0.4 * z))
        return (z, total + z), None

    (z, total), _ = lax.scan(step, (jnp.zeros(()), jnp.zeros(())), None, length=2)
    return total**2 + z


def branched(flip, t):
    a = flip(t)
    b = lax.cond(globals()["flip"].score(0.5), lambda: number(flip(t)), lambda: 0.3)
    return (number(a) + 2.0 * b) ** 2


def _exact_parts() -> dict[str, float]:
    def bits(ps, cost):
        out = 0.0
        for z in np.ndindex(*(2,) * len(ps)):
            out += cost(*z) * np.prod([p if b else 1 - p for p, b in zip(ps, z, strict=True)])
        return out

    means = {
        "aligned": lambda t: (
            bits([t], lambda a: np.exp(0.5 * a)) + bits([0.8 * t], lambda a: np.exp(-a))
        ),
        "mixed": lambda t: bits([t, 0.5 * t, 0.9 * t], lambda *z: sum(z) ** 2),
        "remembered": lambda t: sum(
            ((a + b) ** 2 + b) * (t if a else 1 - t) * (t + 0.4 * a if b else 1 - t - 0.4 * a)
            for a in (0, 1)
            for b in (0, 1)
        ),
        "branched": lambda t: (
            0.5 * bits([t, t], lambda a, b: (a + 2 * b) ** 2)
            + 0.5 * bits([t], lambda a: (a + 0.6) ** 2)
        ),
    }
    return {n: slope(f, THETA) for n, f in means.items()}


PARTS = (aligned, mixed, remembered, branched)
STRATEGIES = {
    "mvd": "mvd",
    "arm": "arm",
    "disarm": "disarm",
    "arms": Arms(4),
    "unordered_set": UnorderedSet(2),
    "sum_and_sample": SumAndSample(2),
    "spa": "spa",
    "spa pruned": Spa(prune=True),
    "rebar": Rebar(temperature=0.4, scale=0.8),
}


@pytest.mark.parametrize("name", [n for n, s in STRATEGIES.items() if not isinstance(s, str)])
def test_strategy_on_flips(name):
    """With options; as they are by default, `tests/compiler/test_strategies.py` has them all."""
    chosen = flip.via(STRATEGIES[name])

    def objective():
        return sum(part(chosen, param(part.__name__, THETA)) for part in PARTS)

    check_unbiased(objective, _exact_parts())


LOGITS, SLOPES = np.array([0.2, -0.3, 0.5, 0.1]), np.array([0.0, 0.7, 1.4, -1.0])
COSTS = np.array([[1.0, -2.0, 5.0, 3.0], [0.0, 2.0, -1.0, 1.0], [2.0, 4.0, 1.0, 0.5], [1, 1, 3, 0]])


def _exact_categorical(t: float) -> float:
    p = np.exp(t * SLOPES + LOGITS)
    p /= p.sum()
    return float(p @ COSTS @ p + 2 * p @ COSTS[0])


@pytest.mark.parametrize("name", [n for n in STRATEGIES if not n.startswith("spa")])
def test_strategy_on_categories(name):
    """Two lanes, alone and combined; spa's neighbours are far apart here (it is tested below)."""
    strategy = STRATEGIES[name]
    samples = {"unordered_set": UnorderedSet(3), "sum_and_sample": SumAndSample(3)}
    rebar = name == "rebar"
    family = one_hot_categorical if rebar else categorical
    draw = family.via(samples.get(name, strategy))

    def objective():
        t = param("theta", THETA)
        z = draw(jnp.broadcast_to(t * SLOPES + LOGITS, (2, 4)))
        z = number(z) if rebar else jax.nn.one_hot(z, 4)
        return z[0] @ jnp.array(COSTS, float) @ z[1] + jnp.sum(z @ jnp.array(COSTS[0], float))

    check_unbiased(
        objective, slope(_exact_categorical, THETA), exact_value=_exact_categorical(THETA)
    )


COUNTS = np.arange(200.0)


@pytest.mark.parametrize("strategy", ["mvd", "spa", Spa(prune=True)], ids=str)
def test_counts(strategy):
    """Sums of three geometric variables, lanes and steps: negative binomial variables."""

    def objective():
        lanes, steps = param("lanes", 0.5), param("steps", 0.5)
        total = jnp.sum(number(geometric.via(strategy)(probs=lanes * jnp.ones(3))))
        step = lambda c, _: (c + number(geometric.via(strategy)(probs=steps)), None)
        return jnp.tanh(0.3 * total) + jnp.cos(lax.scan(step, jnp.zeros(()), None, length=3)[0])

    def mean(p, cost):
        return np.sum((COUNTS + 1) * (COUNTS + 2) / 2 * p**3 * (1 - p) ** COUNTS * cost(COUNTS))

    costs = {"lanes": lambda k: np.tanh(0.3 * k), "steps": np.cos}
    check_unbiased(objective, {n: slope(lambda p, c=c: mean(p, c), 0.5) for n, c in costs.items()})


def test_normal_with_a_jump():
    """A threshold, which a reparameterised draw would miss; below and above pathwise choices."""

    def objective():
        t, s = param("t", 0.4), param("s", 0.8)
        x = normal.mvd(t, s)
        y = normal.reparam(x + t, 0.5)
        z = normal.mvd(0.3 * y, 1.0)
        return jnp.where(x > 0.5, 1.0, 0.0) + x * y + jnp.where(z > 0, t, 0.0) + z**2

    # E[xy] = t^2 + s^2 + t^2, z is normal with mean 0.6 t and variance 0.09 (s^2 + 0.25) + 1
    def exact(t, s):
        cdf = NormalDist().cdf
        variance = 0.09 * (s**2 + 0.25) + 1
        jump = cdf((t - 0.5) / s) + t * cdf(0.6 * t / math.sqrt(variance))
        return jump + 2 * t**2 + s**2 + (0.6 * t) ** 2 + variance

    grads = {"t": slope(lambda t: exact(t, 0.8), 0.4), "s": slope(lambda s: exact(0.4, s), 0.8)}
    check_unbiased(objective, grads, exact_value=exact(0.4, 0.8))


def test_alternates_are_independent_of_the_draw():
    """Gamma variables inside the draw and inside its alternates: of keys that must not meet."""

    def objective():
        a, b = param("a", 2.0), param("b", 1.5)
        x = beta.mvd(a, 2.0)
        y = dirichlet.mvd(b * jnp.array([1.0, 1.2, 0.8]))
        return x**2 + 4 * y[0] * y[1]

    def shares(b):
        return 4 * 1.0 * 1.2 * b**2 / (3 * b * (3 * b + 1))

    square = lambda a: a * (a + 1) / ((a + 2) * (a + 3))
    exact = {"a": slope(square, 2.0), "b": slope(shares, 1.5)}
    check_unbiased(objective, exact, exact_value=square(2.0) + shares(1.5), bias=0.06)


# ------------------------------------------------------------------------------------ worlds


def test_choices_without_a_common_cost_share_worlds():
    def objective():
        t = param("theta", THETA)
        return sum(jnp.exp(number(flip.mvd(t))) for _ in range(20))

    assert compile(objective).plan().worlds.size == 2


# -------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda t: weibull.mvd(t, 1.0), "no measure-valued derivative in concentration"),
        (lambda t: gumbel.mvd(t, 1.0), "Family.weak_derivatives"),
        (lambda t: normal.spa(t, 1.0), "Family.shifts"),
        (lambda t: number(negative_binomial.spa(t, probs=0.5)), "rate of shifts in total_count"),
        (lambda t: number(poisson.disarm(t)), "finite support"),
        (lambda t: number(poisson.local(t)), "finite support"),
        (lambda t: number(categorical.rebar(t * jnp.ones(3))), "one_hot_categorical"),
    ],
)
def test_refused(make, says):
    with pytest.raises(StrategyError, match=says):
        compile(lambda: make(param("theta", THETA))).plan()


@pytest.mark.parametrize(
    "make", [lambda: Arms(1), lambda: UnorderedSet(9), lambda: SumAndSample(1), lambda: Rebar(0.0)]
)
def test_impossible_options(make):
    with pytest.raises(StrategyError):
        make()


def test_local_expectation_is_offered_where_lanes_mix():
    make = lambda: jnp.exp(jnp.sum(number(flip.enum(param("theta", THETA) * jnp.ones(30)))))
    with pytest.raises(StrategyError, match="'local'"):
        compile(make).plan()


def test_constant_parameters_need_no_worlds():
    objective = lambda: param("theta", THETA) * number(flip.mvd(0.3)) + normal.mvd(0.0, 1.0) ** 2
    assert compile(objective).plan().worlds.size == 1


def test_a_weak_derivative_of_ones_own():
    """A family of the user's: 1 with probability theta, else 0."""

    def of_theta(key, value, theta):
        return moved_to(1.0 - value, jnp.where(value == 1.0, -1.0, 1.0))

    coin = make_distribution(
        Family(
            "coin",
            {"theta": 0},
            lambda key, shape, theta: 1.0 * (jax.random.uniform(key, shape) < theta),
            lambda value, theta: jnp.where(value == 1.0, jnp.log(theta), jnp.log(1 - theta)),
            weak_derivatives={"theta": of_theta},
        )
    )
    est = compile(lambda: jnp.exp(coin.mvd(param("theta", THETA))))
    grad = est.grad(jax.random.key(0), est.init(jax.random.key(0)))
    assert abs(float(grad["theta"]) - (math.e - 1)) < 1e-5
