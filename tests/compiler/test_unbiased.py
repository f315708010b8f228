"""Unbiased gradients: programs with continuous choices, baselines, lanes, enumeration, and keys.

|z| < 5.5 with as many draws as it takes for a bias of 3 % to fail; `test_a_bias_of_3_percent_fails`
tests that.
"""

from __future__ import annotations

from math import exp

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy.special import expit
from scipy.stats import norm, poisson

from ppl.compiler import compile
from ppl.compiler.strategies import Score
from ppl.lang import categorical, flip, normal, param
from ppl.lang import poisson as poisson_choice
from tests.compiler.exact import QUICK, Z_BOUND, check_draws, check_unbiased, count_equations


def theta(value=0.3):
    return param("theta", value)


def number(bit):
    return jnp.asarray(bit).astype(float)


def slope(f, at, h=1e-5):
    return (f(at + h) - f(at - h)) / (2 * h)


# ------------------------------------------------------------------------------- a scanned chain
# x_t ~ N(theta x_{t-1}, 1) from x_0 = 0.5; the sum of x_t^2 over three steps.


def chain_value(t):
    m, total = 0.25, 0.0
    for _ in range(3):
        m = t**2 * m + 1
        total += m
    return total


def scanned(site, t=None):
    t = theta(0.7) if t is None else t

    def step(x, _):
        x = site(t * x, 1.0)
        return x, x**2

    return jnp.sum(lax.scan(step, 0.5, None, length=3)[1])


def unrolled(site, t=None):
    t, x, total = theta(0.7) if t is None else t, 0.5, 0.0
    for _ in range(3):
        x = site(t * x, 1.0)
        total += x**2
    return total


def carried(site):
    t = theta(0.7)

    def step(carry, _):
        x, total = carry
        x = site(t * x, 1.0)
        return (x, total + x**2), None

    return lax.scan(step, (0.5, 0.0), None, length=3)[0][1]


# -------------------------------------------------------------------------------------- a branch
# x ~ N(theta, 1) by score; y ~ N(2 theta, 1) if x > 0, else 3 N(-theta, 1); the square of y.


def branch_value(t):
    return norm.cdf(t) * (4 * t**2 + 1) + norm.cdf(-t) * 9 * (t**2 + 1)


def branched(site, t=None):
    t = theta() if t is None else t
    x = normal.score(t, 1.0)
    y = lax.cond(x > 0, lambda: site(2 * t, 1.0), lambda: 3.0 * site(-t, 1.0))
    return y**2


SITES = {"reparam": normal.reparam, "score": normal.score, "planned": normal}


def test_exact_numbers():
    assert slope(chain_value, 0.7) == pytest.approx(5.1171, abs=1e-4)
    assert slope(branch_value, 0.3) == pytest.approx(0.32354, abs=1e-5)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("program", [scanned, unrolled, carried])
def test_chain(program, site):
    objective = lambda: program(SITES[site])
    check_unbiased(objective, slope(chain_value, 0.7), exact_value=chain_value(0.7))


@pytest.mark.slow
def test_branch_at_a_small_gradient():
    """At 0.3 the gradient is a fortieth of its sd: 6 % of it takes tens of millions of draws."""
    objective = lambda: branched(SITES["reparam"], theta(0.3))
    check_unbiased(objective, slope(branch_value, 0.3), bias=0.06, num_samples=64)


@pytest.mark.parametrize(("at", "bias"), [(0.3, 0.3), (1.0, 0.03)])
@pytest.mark.parametrize("site", ["reparam", "score"])
def test_branch(site, at, bias):
    """Both branches' choices by each strategy; at 0.3 only a bias of 30 % would be seen."""
    check_unbiased(
        lambda: branched(SITES[site], theta(at)),
        slope(branch_value, at),
        exact_value=branch_value(at),
        bias=bias,
    )


@pytest.mark.parametrize("site", ["reparam", "score"])
def test_jit_inside(site):
    objective = lambda: jax.jit(lambda t: scanned(SITES[site], t))(theta(0.7))
    check_unbiased(objective, slope(chain_value, 0.7), exact_value=chain_value(0.7))


@pytest.mark.parametrize("site", ["reparam", "score"])
def test_vmap_inside(site):
    """Copies of the program with a parameter each: the lanes draw independently."""
    at = np.array([0.7, -0.4, 0.2])
    objective = lambda: jnp.sum(jax.vmap(lambda t: scanned(SITES[site], t))(theta(jnp.array(at))))
    exact = np.array([slope(chain_value, t) for t in at])
    sd = check_unbiased(objective, exact, exact_value=sum(map(chain_value, at)))
    alone = check_unbiased(lambda: scanned(SITES[site]), exact[0])
    assert sd < 1.2 * alone  # a lane is not charged with the others' costs


def test_vmap_of_a_branch_inside():
    """Under vmap both branches run and one is selected."""
    at = np.array([1.0, 1.3])
    objective = lambda: jnp.sum(
        jax.vmap(lambda t: branched(normal.reparam, t))(theta(jnp.array(at)))
    )
    exact = np.array([slope(branch_value, t) for t in at])
    check_unbiased(objective, exact)


@pytest.mark.parametrize("site", ["reparam", "score"])
def test_vmap_outside(site):
    """Over parameters and keys at once."""
    at = jnp.array([0.7, -0.4])
    est = compile(lambda: scanned(SITES[site]))

    def draw(key):
        one = lambda key, t: est.value_and_grad(key, {"theta": t})
        values, grads = jax.vmap(one)(jax.random.split(key), at)
        return jnp.sum(values), grads

    exact = np.array([slope(chain_value, t) for t in np.asarray(at, float)])
    check_draws(draw, exact)


# ------------------------------------------------------------------------- all strategies at once


def mixed_program():
    t = theta()
    a = normal.reparam(t, 1.0)
    b = number(flip.enum(jax.nn.sigmoid(a)))
    c = normal.score(t + b, 0.5)
    d = number(flip.via(Score("none"))(jax.nn.sigmoid(c)))
    e = poisson_choice.via(Score("running_mean"))(jnp.exp(0.3 * a + 0.2 * d)) * 1.0
    return (a + b * c) * d + jnp.cos(a + e) + t * b + e


def mixed_exact(t):
    z = np.linspace(-7, 7, 141)
    weight = np.exp(-(z**2) / 2) / np.sum(np.exp(-(z**2) / 2))
    a = (t + z)[:, None, None]
    e = np.arange(30)
    total = 0.0
    for b in (0, 1):
        c = (t + b + 0.5 * z)[None, :, None]
        p = expit(a) if b else expit(-a)
        for d in (0, 1):
            q = expit(c) if d else expit(-c)
            r = poisson.pmf(e, np.exp(0.3 * a + 0.2 * d))
            cost = (a + b * c) * d + np.cos(a + e) + t * b + e
            total += np.sum(weight[:, None, None] * weight[None, :, None] * p * q * r * cost)
    return total


def test_mixture_of_strategies():
    check_unbiased(mixed_program, slope(mixed_exact, 0.3), exact_value=mixed_exact(0.3))


# ------------------------------------------------------------------------------ test of the test


@pytest.mark.parametrize("planted", ["3 %", "3 % less", "a constant"])
def test_a_bias_of_3_percent_fails(planted):
    exact = slope(chain_value, 0.7)
    est = compile(lambda: scanned(normal.score))
    change = {
        "3 %": lambda g: 1.03 * g,
        "3 % less": lambda g: 0.97 * g,
        "a constant": lambda g: g + 0.03 * exact,
    }[planted]

    def draw(key):
        value, grad = est.value_and_grad(key, {"theta": jnp.array(0.7)})
        return value, {"theta": change(grad["theta"])}

    with pytest.raises(AssertionError):
        check_draws(draw, exact)


def test_a_bias_of_an_exact_estimator_fails():
    est = compile(lambda: jnp.exp(number(flip.enum(theta()))))

    def draw(key):
        value, grad = est.value_and_grad(key, {"theta": jnp.array(0.3)})
        return value, {"theta": 1.03 * grad["theta"]}

    with pytest.raises(AssertionError):
        check_draws(draw, exp(1) - 1)


# ---------------------------------------------------------------------------------- the value


def test_the_value_does_not_depend_on_the_strategy(key):
    """Same keys, same draws; an enumerated choice gives the mean of the drawn one."""
    value = lambda **options: compile(
        lambda: scanned(normal) + number(flip(theta())), num_samples=4, **options
    ).value(key, {"theta": jnp.array(0.3)})
    planned = {"flip": "score"}
    by_score = value(strategies=planned | {"normal": "score"})
    by_path = value(strategies=planned | {"normal": "reparam"})
    by_running_mean = value(strategies=planned | {"normal": Score("running_mean")})
    np.testing.assert_allclose(by_score, by_path, rtol=1e-6)
    np.testing.assert_allclose(by_score, by_running_mean, rtol=1e-6)


# ----------------------------------------------------------------------------------- baselines


def offset_square():
    return (normal(theta(), 1.0) - 3.0) ** 2


EXACT_OFFSET = 2 * (0.3 - 3.0)


def sd_of(baseline):
    """Of one gradient from four samples."""
    options = {"normal": Score(baseline)}
    return check_unbiased(offset_square, EXACT_OFFSET, strategies=options, num_samples=4)


def test_leave_one_out_has_less_variance():
    assert sd_of("leave_one_out") < 0.8 * sd_of("none")


def test_running_mean_over_steps():
    """Unbiased at every step, and less noisy once the mean is known."""
    est = compile(offset_square, strategies={"normal": Score("running_mean")}, num_samples=4)

    def step(state, key):
        surrogate = lambda params: est.surrogate_and_state(key, params, state)
        grad, state = jax.grad(surrogate, has_aux=True)({"theta": jnp.array(0.3)})
        return state, grad["theta"]

    state = est.init_state()
    assert set(state) == {"cost 1: running_mean"}
    keys = jax.random.split(jax.random.key(0), (2000, 50))
    runs = jax.jit(jax.vmap(lambda keys: lax.scan(step, state, keys)), compiler_options=QUICK)
    final, grads = runs(keys)
    mean, weight = final["cost 1: running_mean"]
    assert np.mean(mean / weight) == pytest.approx(1 + 2.7**2, rel=0.01)
    for part in (grads[:, 0], grads[:, 10:]):
        runs_mean = np.mean(part.reshape(len(part), -1), 1)
        stderr = np.std(runs_mean) / np.sqrt(len(runs_mean))
        assert abs(np.mean(runs_mean) - EXACT_OFFSET) < Z_BOUND * stderr
    assert np.std(grads[:, 10:]) < 0.8 * np.std(grads[:, 0])


def test_running_mean_inside_a_loop():
    objective = lambda: scanned(normal.via(Score("running_mean")))
    est = compile(objective)
    value, state = est.surrogate_and_state(jax.random.key(0), {"theta": jnp.array(0.7)}, None)
    assert state and np.isfinite(value)
    check_unbiased(objective, slope(chain_value, 0.7))


def test_one_sample_has_no_others():
    est = compile(offset_square, strategies={"normal": "score"}, num_samples=1)
    assert any("leave-one-out" in w for w in est.explain().warnings)
    check_unbiased(offset_square, EXACT_OFFSET, strategies={"normal": "score"}, num_samples=1)


# --------------------------------------------------------------------------- credit assignment


def variance(est, draws=2000):
    """Of one gradient."""
    grad = jax.vmap(lambda k: est.grad(k, {"theta": jnp.array(0.3)})["theta"])
    run = jax.jit(grad, compiler_options=QUICK)
    return np.var(run(jax.random.split(jax.random.key(0), draws)))


@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
def test_lanes_are_charged_with_their_own_costs(baseline):
    """Per-lane costs of 100 lanes; a reversed copy of the draws hides which lane is which."""
    lanes = 100
    centres = np.linspace(0, 2, lanes).astype(np.float32)

    def objective(order):
        x = normal.via(Score(baseline))(theta() * jnp.ones(lanes), 1.0)
        return jnp.sum((order(x) - centres) ** 2)

    own = compile(lambda: objective(lambda x: x), num_samples=2)
    others = compile(lambda: objective(lambda x: x[::-1]), num_samples=2)
    assert variance(own) < variance(others) / 20
    exact = float(np.sum(2 * (0.3 - centres)))
    check_unbiased(own.objective, exact, num_samples=2)


def test_steps_are_charged_with_later_costs_only():
    """The last of many steps influences one cost; all of them would be 30 times as noisy."""

    def objective(seen):
        t = theta()

        def step(_, x):
            bit = number(flip.via(Score("none"))(t))
            return 0.0, (bit - 0.5) ** 2 + bit

        costs = lax.scan(step, 0.0, jnp.arange(30.0))[1]
        return jnp.sum(seen(costs))

    est = compile(lambda: objective(lambda c: c), num_samples=1)
    sort = compile(lambda: objective(jnp.sort), num_samples=1)
    assert variance(est) < variance(sort) / 20


# -------------------------------------------------------------------------------- enumeration


def flips_in_a_row(n):
    """A Markov chain of scalar choices, each cost with two neighbours."""
    t, before, total = theta(), jnp.array(True), 0.0
    for i in range(n):
        bit = flip.enum(jnp.where(before, t, 0.9 - t))
        total += (1 + i / n) * number(bit & before) + jnp.exp(number(bit))
        before = bit
    return total


def flips_by_recursion(n, t):
    one, total = 1.0, 0.0  # the probability that the choice before was true
    for i in range(n):
        both = one * t
        one = both + (1 - one) * (0.9 - t)
        total = total + (1 + i / n) * both + one * np.e + (1 - one)
    return total


@pytest.mark.parametrize("n", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_many_enumerated_flips(n):
    est = compile(lambda: flips_in_a_row(n))
    run = jax.jit(est.value_and_grad, compiler_options=QUICK)
    results = [run(jax.random.key(i), {"theta": jnp.array(0.3)}) for i in range(3)]
    value, grad = results[0]
    assert value == pytest.approx(flips_by_recursion(n, 0.3), rel=1e-5)
    derivative = np.imag(flips_by_recursion(n, 0.3 + 1e-20j)) / 1e-20
    assert grad["theta"] == pytest.approx(derivative, rel=1e-4)
    assert len({float(v) for v, _ in results}) == len({float(g["theta"]) for _, g in results}) == 1


def test_code_for_enumerated_flips_is_linear():
    def size(n):
        est = compile(lambda: flips_in_a_row(n))
        return count_equations(est.value_and_grad, jax.random.key(0), {"theta": jnp.array(0.3)})

    few, some, many = size(8), size(16), size(32)
    assert many - some == pytest.approx(2 * (some - few), rel=0.05)
    assert many < 32 * 100


def test_long_hidden_markov_chain():
    """3 states, 500 steps: the expected cost by the forward recursion, value and gradient."""
    steps = 500
    xs = np.sin(np.arange(steps) / 7).astype(np.float32)
    start = {
        "logits": jnp.array([[1.0, 0.2, -0.5], [0.0, 0.8, 0.1], [-0.3, 0.4, 1.2]]),
        "means": jnp.array([-1.0, 0.2, 1.5]),
    }

    def cost(params, before, now, x):
        return -((x - params["means"][now]) ** 2) / 2 + 0.3 * (before != now)

    def objective():
        params = param("theta", start)

        def step(before, x):
            now = categorical.enum(params["logits"][before])
            return now, cost(params, before, now, x)

        return jnp.sum(lax.scan(step, jnp.array(0), xs)[1])

    def forward(params):
        transition = jax.nn.softmax(params["logits"], -1)

        def step(p, x):
            joint = p[:, None] * transition
            costs = cost(params, jnp.arange(3)[:, None], jnp.arange(3)[None], x)
            return jnp.sum(joint, 0), jnp.sum(joint * costs)

        return jnp.sum(lax.scan(step, jnp.array([1.0, 0.0, 0.0]), xs)[1])

    est = compile(objective)
    value, grad = jax.jit(est.value_and_grad)(jax.random.key(0), {"theta": start})
    exact_value, exact_grad = jax.jit(jax.value_and_grad(forward))(start)
    np.testing.assert_allclose(value, exact_value, rtol=1e-4)
    for name in start:
        size = np.max(np.abs(exact_grad[name]))
        np.testing.assert_allclose(grad["theta"][name], exact_grad[name], atol=1e-4 * size)


# ---------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("site", ["reparam", "score"])
def test_a_loop_draws_the_same_scanned_and_unrolled(site, key):
    params = {"theta": jnp.array(0.7)}
    results = [
        compile(lambda p=p: p(SITES[site])).value_and_grad(key, params)
        for p in (scanned, unrolled, carried)
    ]
    for value, grad in results[1:]:
        np.testing.assert_allclose(value, results[0][0], rtol=1e-5)
        np.testing.assert_allclose(grad["theta"], results[0][1]["theta"], rtol=1e-4)


def test_another_choice_does_not_reshuffle_the_others(key):
    def objective(more):
        extra = flip.score(0.5) * 0.0 if more else 0.0
        x = normal.score(theta(), 1.0)
        extra += flip.score(0.5) * 0.0 if more else 0.0
        return x + extra

    values = [compile(lambda m=m: objective(m)).value(key, {"theta": 0.3}) for m in (0, 1)]
    assert values[0] == values[1]


def test_the_same_under_jit(key):
    program = lambda: number(flip.enum(theta())) * normal.score(theta(), 1.0) + normal(0.0, 1.0)
    est = compile(program)
    params = est.init(key)
    value, grad = est.value_and_grad(key, params)
    jitted_value, jitted_grad = jax.jit(est.value_and_grad)(key, params)
    np.testing.assert_allclose(value, jitted_value, rtol=1e-5)
    np.testing.assert_allclose(grad["theta"], jitted_grad["theta"], rtol=1e-4)
    again, _ = compile(program).value_and_grad(key, params)
    assert again == value
    other, _ = est.value_and_grad(jax.random.key(1), params)
    assert other != value
