"""Every strategy as parent and as child of every other; and each in loops, branches and plates.

The table is the registry's: a strategy without a case fails `test_every_strategy_has_a_case`. The
z-tests catch a bias of 10 % in any parameter's gradient; false alarms: at most 1e-6 a test.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats
from scipy.special import expit

from ppl.compiler import compile
from ppl.compiler.strategies import strategies
from ppl.lang import flip, gamma, normal, param
from ppl.testing import assert_unbiased

THETA = 0.4
BIAS = 0.1

FLIPS = """score enum mvd local arm disarm arms relax rebar gumbel_softmax straight_through
unordered_set sum_and_sample spa dropped""".split()

CASES = dict.fromkeys(FLIPS, flip) | {"reparam": normal, "lax": normal, "rejection": gamma}
"""The choice that each strategy is tested on."""

ALSO = [("score", normal), ("mvd", normal)]
"""Other kinds of choice that a strategy treats otherwise."""


def test_every_strategy_has_a_case():
    assert set(CASES) == set(strategies), "add the new strategy to CASES, with a choice it can have"
    unbiased = [n for n, s in strategies.items() if not getattr(s, "biased", None)]
    assert set(CASES) & set(unbiased), "nothing is tested"


def number(x):
    return jnp.asarray(x).astype(float)


def draw(dist, name, at):
    """A flip whose log-odds, a normal whose location, or a gamma whose log-concentration, is `at`
    (the last but for factors that keep it near 1)."""
    site = dist.via(name)
    if dist is gamma:
        return site(2 * jnp.exp(at / 4), 2.0)
    return number(site(jax.nn.sigmoid(at)) if dist is flip else site(at, 1.0))


def law(dist, at):
    """Values of `draw` and their probabilities, along a new last axis, by quadrature."""
    at = np.asarray(at)[..., None]
    if dist is flip:
        return np.array([0.0, 1.0]), np.concatenate([expit(-at), expit(at)], -1)
    if dist is normal:
        nodes, weights = np.polynomial.hermite_e.hermegauss(24)
        return at + nodes, weights / weights.sum()
    nodes, weights = np.polynomial.legendre.leggauss(60)
    return stats.gamma.ppf((nodes + 1) / 2, 2 * np.exp(at / 4), scale=0.5), weights / 2


def mean(dist, at, f):
    """E f(x) of `draw`."""
    x, p = law(dist, at)
    return np.sum(p * f(x), -1)


def slope(f, at=THETA, h=1e-5):
    return (f(at + h) - f(at - h)) / (2 * h)


CHECKS = [*CASES.items(), *ALSO]


def label(case):
    return f"{case[0]}-{case[1]}"


def check(objective, exact, exact_value, names, bias=BIAS):
    est = compile(objective)
    assert set(names) >= {s.name for s in est.plan().strategies.values()} - {"score"}
    if any(getattr(strategies[n], "biased", None) for n in names):
        assert est.biased()
        return
    assert not est.biased()
    assert_unbiased(est, exact=exact, exact_value=exact_value, bias=bias)


# --------------------------------------------------------------- a parent and all kinds of children
# z ~ draw(2 theta); for each strategy a child x ~ draw(t + 0.7 z) with a parameter t of its own and
# a cost of the two. What a child's parameter does, and what theta does through each child, tests
# the pair; a child whose cost were not charged to z would change theta's gradient by a twelfth.


def cost(z, x, t):
    return (1.5 * x + z - 0.6) ** 2 * (1.0 + 0.3 * x) + t * z


UNBIASED = {n: d for n, d in CASES.items() if not getattr(strategies.get(n), "biased", None)}


OF_EACH_KIND = ("reparam", "enum", "score", "mvd", "relax")
"""By a path, exactly, by a charge, by worlds, by a control variate."""


@pytest.mark.parametrize("case", CHECKS, ids=label)
def test_a_parent_with_every_child(case):
    name, parent = case
    children = UNBIASED
    if case in ALSO:  # all children have had this strategy above them, of its other kind
        children = {n: children[n] for n in (*OF_EACH_KIND, name)}

    def objective():
        z = draw(parent, name, 2 * param("theta", THETA))
        total = 0.0
        for child, dist in children.items():
            t = param(child, THETA)
            total += cost(z, draw(dist, child, t + 0.7 * z), t)
        return total

    def value(theta, t, dist):
        given = lambda z: mean(dist, t + 0.7 * z, lambda x: cost(z[..., None], x, t))
        return mean(parent, 2 * theta, given)

    exact = {n: slope(lambda t, d=d: value(THETA, t, d)) for n, d in children.items()}
    whole = lambda theta: sum(value(theta, THETA, d) for d in children.values())
    exact["theta"] = slope(whole)
    check(objective, exact, whole(THETA), [name, *children], bias=0.07)


# ------------------------------------------------------------------------------- in structures


def in_scan(name, dist, t):
    """Three steps of x' ~ draw(t x + t), with the sum of (x + 1)^2."""

    def step(x, _):
        x = draw(dist, name, t * x + t)
        return x, (x + 1) ** 2

    return jnp.sum(lax.scan(step, 0.5, None, length=3)[1])


def exact_scan(dist, t, x=0.5, steps=3):
    rest = lambda x: exact_scan(dist, t, x, steps - 1) if steps > 1 else 0.0
    return mean(dist, t * np.asarray(x) + t, lambda x: (x + 1) ** 2 + rest(x))


def in_cond(name, dist, t):
    """A draw in one branch, another in the other, by a scored flip."""
    side = flip.score(jax.nn.sigmoid(t))
    x = lax.cond(side, lambda: draw(dist, name, 2 * t), lambda: 2.0 * draw(dist, name, t))
    return (x + 1) ** 2


def exact_cond(dist, t):
    square = lambda at, times: mean(dist, at, lambda x: (times * x + 1) ** 2)
    return expit(t) * square(2 * t, 1.0) + expit(-t) * square(t, 2.0)


SPEEDS = np.array([1.0, 0.5, 2.0])


def in_plate(name, dist, t):
    """Three lanes, each with a cost of its own, and one cost of all."""
    x = jax.vmap(lambda s: draw(dist, name, s * t))(jnp.array(SPEEDS))
    return jnp.sum((x + SPEEDS) ** 2) + jnp.sum(x) ** 2


def exact_plate(dist, t):
    means = mean(dist, SPEEDS * t, lambda x: x)
    seconds = mean(dist, SPEEDS * t, lambda x: x**2)
    own = seconds + 2 * SPEEDS * means + SPEEDS**2
    return own.sum() + means.sum() ** 2 + (seconds - means**2).sum()


STRUCTURES = {
    "scan": (in_scan, exact_scan),
    "cond": (in_cond, exact_cond),
    "plate": (in_plate, exact_plate),
}


@pytest.mark.parametrize("case", CHECKS, ids=label)
def test_in_structures(case):
    """All of them in one program, each with a parameter of its own."""
    name, dist = case

    def objective():
        return sum(make(name, dist, param(n, THETA)) for n, (make, _) in STRUCTURES.items())

    exact = {
        n: slope(lambda t, f=reference: f(dist, t)) for n, (_, reference) in STRUCTURES.items()
    }
    value = sum(reference(dist, THETA) for _, reference in STRUCTURES.values())
    check(objective, exact, value, [name])


def test_references():
    """A normal's by hand; the three laws' first moments."""
    t = THETA
    by_hand = expit(t) * ((2 * t + 1) ** 2 + 1) + expit(-t) * ((1 + 2 * t) ** 2 + 4)
    assert exact_cond(normal, t) == pytest.approx(by_hand)
    m, v, total = 0.5, 0.0, 0.0
    for _ in range(3):
        m, v = t * m + t, t**2 * v + 1
        total += (m + 1) ** 2 + v
    assert exact_scan(normal, t) == pytest.approx(total)
    assert mean(flip, 0.3, lambda x: x) == pytest.approx(expit(0.3))
    assert mean(gamma, 0.3, lambda x: x) == pytest.approx(np.exp(0.3 / 4), rel=1e-4)
