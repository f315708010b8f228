"""Unbiased through every construct: each program against brute-force enumeration of its flips.

20,000 gradient draws per test, |z| < 5.5 (false-alarm rate 4e-8), and enough draws that a bias of
10 % (stated where it is another) would fail; enumerated programs must be exact. What a bias of 3 %
looks like is tested in `test_unbiased.py`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppl.lang.distributions import categorical, flip
from ppl.lang.param import param

from .exact import brute, check_unbiased

THETA = 0.3
WEIGHTS = np.array([1.0, -0.5, 2.0, 0.7], np.float32)


def theta():
    return param("theta", THETA)


def number(bit):
    return jnp.asarray(bit).astype(float)


# Each entry: name -> (objective(flip), the same in plain Python, number of flips, strategies)
PROGRAMS = {}


def program(reference, flips, *strategies):
    def register(make):
        PROGRAMS[make.__name__] = (make, reference, flips, strategies or ("score", "enum"))
        return make

    return register


def _sum_then_square(flip, t):
    return sum(flip(t) * 1.0 for _ in range(3)) ** 2


@program(_sum_then_square, 3, "score", None)
def scan_accumulates_nonlinear(flip):
    total, _ = lax.scan(lambda s, _: (s + number(flip(theta())), None), 0.0, None, length=3)
    return total**2


@program(_sum_then_square, 3, "score", None)
def fori_loop_accumulates(flip):
    return lax.fori_loop(0, 3, lambda i, s: s + number(flip(theta())), 0.0) ** 2


@program(_sum_then_square, 3)
def vmap_lanes_mixed(flip):
    draws = jax.vmap(lambda _: flip(theta()))(jnp.arange(3))
    return jnp.sum(number(draws)) ** 2


@program(_sum_then_square, 3)
def lanes_of_parameters(flip):
    return jnp.sum(number(flip(jnp.full(3, theta())))) ** 2


@program(lambda flip, t: sum(np.exp(w * flip(t)) for w in WEIGHTS), 4)
def nonlinear_per_lane(flip):
    return jnp.sum(jax.vmap(lambda w: jnp.exp(w * number(flip(theta()))))(WEIGHTS))


def _markov(flip, t, steps=3, start=True):
    z, total = start, 0.0
    for _ in range(steps):
        before, z = z, flip(t if z else 0.9 - t)
        total += (2.0 if z and before else 0.0) + z * 1.0
    return total


@program(_markov, 3)
def markov_in_scan(flip):
    t = theta()

    def step(z, _):
        new = flip(jnp.where(z, t, 0.9 - t))
        return new, 2.0 * number(new & z) + number(new)

    return jnp.sum(lax.scan(step, True, None, length=3)[1])


@program(_markov, 3)
def markov_unrolled(flip):
    t, z, total = theta(), jnp.array(True), 0.0
    for _ in range(3):
        new = flip(jnp.where(z, t, 0.9 - t))
        total += 2.0 * number(new & z) + number(new)
        z = new
    return total


@program(_markov, 3)
def markov_cost_carried(flip):
    t = theta()

    def step(carry, _):
        z, total = carry
        new = flip(jnp.where(z, t, 0.9 - t))
        return (new, total + 2.0 * number(new & z) + number(new)), None

    return lax.scan(step, (True, 0.0), None, length=3)[0][1]


@program(lambda flip, t: _markov(flip, t, 2, flip(t)), 3)
def markov_random_start(flip):
    t = theta()

    def step(z, _):
        new = flip(jnp.where(z, t, 0.9 - t))
        return new, 2.0 * number(new & z) + number(new)

    return jnp.sum(lax.scan(step, flip(t), None, length=2)[1])


def _shared_start(flip, t):
    z0 = flip(t)
    z, total = z0, 0.0
    for _ in range(2):
        z = flip(t if z else 0.9 - t)
        total += 3.0 if z and z0 else 1.0 * z
    return total


@program(_shared_start, 3)
def markov_start_seen_later(flip):
    t = theta()
    z0 = flip(t)

    def step(z, _):
        new = flip(jnp.where(z, t, 0.9 - t))
        return new, jnp.where(new & z0, 3.0, number(new))

    return jnp.sum(lax.scan(step, z0, None, length=2)[1])


def _last_state(flip, t):
    z = True
    for _ in range(3):
        z = flip(t if z else 0.9 - t)
    return np.exp(1.5 * z)


@program(_last_state, 3)
def markov_last_state(flip):
    t = theta()
    last, _ = lax.scan(lambda z, _: (flip(jnp.where(z, t, 0.9 - t)), None), True, None, length=3)
    return jnp.exp(1.5 * number(last))


@program(lambda flip, t: _markov(flip, t, 3), 3)
def markov_pairs_outside(flip):
    t = theta()

    def step(z, _):
        new = flip(jnp.where(z, t, 0.9 - t))
        return new, (new, z)

    _, (new, old) = lax.scan(step, True, None, length=3)
    return jnp.sum(2.0 * number(new & old) + number(new))


def _regime(flip, t):
    k = flip(t)
    z, total = True, 0.0
    for _ in range(2):
        z = flip((t if z else 0.9 - t) * (0.5 if k else 1.0))
        total += 1.5 * z + (z and k) * 1.0
    return total


@program(_regime, 3)
def markov_with_global_regime(flip):
    t = theta()
    k = flip(t)

    def step(z, _):
        new = flip(jnp.where(z, t, 0.9 - t) * jnp.where(k, 0.5, 1.0))
        return new, 1.5 * number(new) + number(new & k)

    return jnp.sum(lax.scan(step, True, None, length=2)[1])


@program(lambda flip, t: _markov(flip, t, 2) + 2 * _markov(flip, t, 2), 4)
def markov_lanes(flip):
    t = theta()

    def chain(weight):
        def step(z, _):
            new = flip(jnp.where(z, t, 0.9 - t))
            return new, 2.0 * number(new & z) + number(new)

        return weight * jnp.sum(lax.scan(step, True, None, length=2)[1])

    return jnp.sum(jax.vmap(chain)(jnp.array([1.0, 2.0])))


def _two_states(flip, t):
    a, b, total = True, False, 0.0
    for _ in range(2):
        a, b = flip(t if b else 0.9 - t), flip(0.8 * t if a else t)
        total += 2.0 * (a and b) + 1.0 * a
    return total


@program(_two_states, 4)
def markov_two_states(flip):
    t = theta()

    def step(state, _):
        a, b = state
        new_a, new_b = flip(jnp.where(b, t, 0.9 - t)), flip(jnp.where(a, 0.8 * t, t))
        return (new_a, new_b), 2.0 * number(new_a & new_b) + number(new_a)

    return jnp.sum(lax.scan(step, (True, False), None, length=2)[1])


def _scanned_plate(flip, t):
    zs = [flip(t) for _ in range(3)]
    before, total = False, 0.0
    for z, w in zip(zs, WEIGHTS[:3], strict=True):
        total += w * z + (2.0 if z and before else 0.0)
        before = z
    return total


@program(_scanned_plate, 3)
def scan_over_plate(flip):
    zs = flip(jnp.full(3, theta()))

    def step(before, x):
        z, w = x
        return z, w * number(z) + 2.0 * number(z & before)

    return jnp.sum(lax.scan(step, False, (zs, WEIGHTS[:3]))[1])


def _reverse(flip, t):
    zs = [flip(t) for _ in range(3)]
    after, total = False, 0.0
    for z, w in zip(reversed(zs), reversed(WEIGHTS[:3]), strict=True):
        total += w * z + (2.0 if z and after else 0.0)
        after = z
    return total


@program(_reverse, 3)
def reverse_scan_over_plate(flip):
    zs = flip(jnp.full(3, theta()))

    def step(after, x):
        z, w = x
        return z, w * number(z) + 2.0 * number(z & after)

    return jnp.sum(lax.scan(step, False, (zs, WEIGHTS[:3]), reverse=True)[1])


def _read_again(flip, t, made_from, read_from):
    z, last, total = made_from, read_from, 0.0
    for w in WEIGHTS[:3]:
        z = flip(t if z else 0.9 - t)
        total += w * (1.0 * last + 2.0 * z) ** 2
        last = z
    return total + (5.0 if last else 0.0)


def _two_loops(made_from, read_from, reverse=False):
    """One loop makes a chain, another one remembers its states."""

    def objective(flip):
        t = theta()

        def make(z, _):
            z = flip(jnp.where(z, t, 0.9 - t))
            return z, z

        def read(last, x):
            z, w = x
            return z, w * (number(last) + 2.0 * number(z)) ** 2

        ws = WEIGHTS[2::-1] if reverse else WEIGHTS[:3]
        _, zs = lax.scan(make, made_from, None, length=3, reverse=reverse)
        last, costs = lax.scan(read, read_from, (zs, ws.copy()), reverse=reverse)
        return jnp.sum(costs) + 5.0 * number(last)

    return objective


for _starts in ((True, True), (True, False)):
    _reference = lambda flip, t, starts=_starts: _read_again(flip, t, *starts)
    _name = f"chain_from_{_starts[0]}_read_from_{_starts[1]}"
    PROGRAMS[_name] = (_two_loops(*_starts), _reference, 3, ("score", "enum"))
    PROGRAMS[f"{_name}_reverse"] = (_two_loops(*_starts, True), _reference, 3, ("enum",))


def _prefix(flip, t):
    total, costs = 0.0, 0.0
    for w in WEIGHTS[:3]:
        total += w * flip(t)
        costs += total**2
    return costs


@program(_prefix, 3, "score")
def running_sum_of_scan_outputs(flip):
    t = theta()
    _, ys = lax.scan(lambda c, w: (c, w * number(flip(t))), 0.0, WEIGHTS[:3])
    return jnp.sum(jnp.cumsum(ys) ** 2)


@program(_prefix, 3, "score")
def running_sum_in_the_carry(flip):
    t = theta()

    def step(total, w):
        total = total + w * number(flip(t))
        return total, total

    return jnp.sum(lax.scan(step, 0.0, WEIGHTS[:3])[1] ** 2)


def _nested(flip, t):
    total = 0.0
    for i in range(2):
        inner = 0.0
        for _ in range(2):
            inner += flip(t * (1 + i) / 2)
        total += inner**2 + inner
    return total


@program(_nested, 4, "score", None)
def nested_scans(flip):
    t = theta()

    def outer(c, i):
        inner, _ = lax.scan(
            lambda s, _: (s + number(flip(t * (1 + i) / 2)), None), 0.0, None, length=2
        )
        return c, inner**2 + inner

    return jnp.sum(lax.scan(outer, 0.0, jnp.arange(2.0))[1])


@program(lambda flip, t: sum((sum(flip(t) for _ in range(2)) * 1.0) ** 2 for _ in range(2)), 4)
def plate_of_mixed_pairs_by_hand(flip):
    return sum(jnp.sum(number(flip(jnp.full(2, theta())))) ** 2 for _ in range(2))


def _branch(flip, t):
    x = flip(t)
    if x:
        y = 3.0 * flip(2 * t)
    else:
        y = -1.0 + flip(1 - t)
    return (y + x) ** 2


@program(_branch, 2)
def choices_in_cond(flip):
    t = theta()
    x = flip(t)
    y = lax.cond(x, lambda: 3.0 * number(flip(2 * t)), lambda: -1.0 + number(flip(1 - t)))
    return (y + number(x)) ** 2


@program(_branch, 2)
def cond_under_jit(flip):
    t = theta()
    x = flip(t)

    @jax.jit
    def inner(x):
        return lax.cond(x, lambda: 3.0 * number(flip(2 * t)), lambda: -1.0 + number(flip(1 - t)))

    return (inner(x) + number(x)) ** 2


def _switch(flip, t):
    i = int(flip(t)) + int(flip(t))
    return [lambda: 1.0, lambda: 2.0 * flip(2 * t), lambda: 4.0 * flip(t)][i]() ** 2 + i


@program(_switch, 3)
def switch_with_three_branches(flip):
    t = theta()
    i = flip(t).astype(int) + flip(t).astype(int)
    y = lax.switch(
        i, [lambda: 1.0, lambda: 2.0 * number(flip(2 * t)), lambda: 4.0 * number(flip(t))]
    )
    return y**2 + i


def _cond_in_scan(flip, t):
    x, total = True, 0.0
    for _ in range(2):
        x = flip(t) if x else flip(1 - t)
        total += 2.0 * x + 1.0
    return total**1.0


@program(_cond_in_scan, 2, "score")
def cond_in_scan(flip):
    t = theta()

    def step(x, _):
        x = lax.cond(x, lambda: flip(t), lambda: flip(1 - t))
        return x, 2.0 * number(x) + 1.0

    return jnp.sum(lax.scan(step, True, None, length=2)[1])


@program(lambda flip, t: (flip(t) + 2.0 * flip(t)) ** 2, 2)
def checkpointed(flip):
    t = theta()
    a, b = jax.checkpoint(lambda: (flip(t), flip(t)))()
    return (number(a) + 2.0 * number(b)) ** 2


@program(lambda flip, t: (flip(t) + 2.0 * flip(t)) ** 2 + t * flip(t), 3)
def costs_inside_checkpoint(flip):
    t = theta()

    @jax.checkpoint
    def cost():
        return (number(flip(t)) + 2.0 * number(flip(t))) ** 2

    return cost() + t * number(flip(t))


@program(lambda flip, t: (flip(t) + 1.0) ** 2 * t, 1)
def custom_derivative_around_a_choice(flip):
    @jax.custom_jvp
    def double(x):
        return (number(flip(x)) + 1.0) ** 2

    double.defjvp(lambda p, d: (double(*p), 100.0 * d[0]))
    t = theta()
    return double(t) * t


@program(lambda flip, t: np.exp(2.0 * (flip(t) and flip(0.5))), 2)
def enumerated_below_score(flip):
    t = theta()
    a = flip(t)
    b = globals()["flip"].enum(jnp.where(a, 0.5, 0.0))
    return jnp.exp(2.0 * number(b))


@program(lambda flip, t: np.exp(2.0 * (flip(t) and flip(0.5))), 2)
def score_below_enumerated(flip):
    t = theta()
    a = globals()["flip"].enum(t)
    return jnp.exp(2.0 * number(flip(jnp.where(a, 0.5, 0.0))))


def _score_to_enum_to_cost(flip, t):
    k = flip(t)
    x = flip(t if k else 0.5)
    m = flip(0.9 * t if x else 1 - t)
    return (2.0 * m + x) ** 2 + k


@program(_score_to_enum_to_cost, 3)
def charge_carries_an_axis(flip):
    t = theta()
    enum = globals()["flip"].enum
    k = enum(t)
    x = flip(jnp.where(k, t, 0.5))
    m = enum(jnp.where(x, 0.9 * t, 1 - t))
    return (2.0 * number(m) + number(x)) ** 2 + number(k)


@program(lambda flip, t: jnp.exp(t * flip(t)) + 0.0 * flip(t), 2)
def dead_choice(flip):
    t = theta()
    flip(t)
    return jnp.exp(t * number(flip(t)))


@program(lambda flip, t: (lambda b: b * 1.0 + (b * 1.0) * t)(flip(t)), 1)
def cost_read_twice(flip):
    t = theta()
    b = number(flip(t))
    return b + b * t


def _stop(flip, t):
    b = flip(t)
    return np.exp(1.0 * b)


@program(_stop, 1)
def influence_passes_stop_gradient(flip):
    return jnp.exp(lax.stop_gradient(number(flip(theta()))))


@program(lambda flip, t: [1.0, 5.0][int(flip(t))] * t, 1)
def influence_passes_indices(flip):
    t = theta()
    return jnp.array([1.0, 5.0])[flip(t).astype(int)] * t


def _shifted(flip, t):
    z = [flip(t * (i + 1) / 2) for i in range(3)]
    return sum((1.0 * z[i] + 2.0 * z[i - 1]) ** 2 for i in range(3))


@program(_shifted, 3)
def shifted_lanes_are_mixed(flip):
    z = number(flip(theta() * (jnp.arange(3.0) + 1) / 2))
    return jnp.sum((z + 2.0 * jnp.roll(z, 1)) ** 2)


@program(_shifted, 3)
def reversed_and_sliced_lanes(flip):
    z = number(flip(theta() * (jnp.arange(3.0) + 1) / 2))
    return jnp.sum((z + 2.0 * jnp.concatenate([z[2:], z[:2]])) ** 2)


@program(lambda flip, t: (lambda z: sum((z[i] + 1.0 * z[2 - i]) ** 2 for i in range(3)))(
    [flip(t) for _ in range(3)]), 3)  # fmt: skip
def flipped_lanes(flip):
    z = number(flip(jnp.full(3, theta())))
    return jnp.sum((z + z[::-1]) ** 2)


@pytest.mark.parametrize(("name", "strategy"), [(n, s) for n, p in PROGRAMS.items() for s in p[3]])
def test_program_is_unbiased(name, strategy):
    make, reference, flips, _ = PROGRAMS[name]
    chosen = flip if strategy is None else flip.via(strategy)
    value, grad = brute(reference, flips, THETA)
    check_unbiased(lambda: make(chosen), grad, exact_value=value, bias=0.15)


def test_categorical_parent_and_child():
    logits = np.array([0.2, -0.3, 0.5])
    child = np.array([[0.1, 0.5], [0.9, -1.0], [0.0, 0.3]])

    def objective(strategy):
        t = theta()
        k = categorical.via(strategy)(t * logits)
        j = categorical.via(strategy)(t * jnp.asarray(child, jnp.float32)[k])
        return jnp.array([1.0, 2.0, 9.0])[k] * jnp.array([-1.0, 6.0])[j]

    def exact(t):
        p = jax.nn.softmax(t * logits)
        q = jax.nn.softmax(t * child, -1)
        return jnp.sum(p[:, None] * q * np.outer([1.0, 2.0, 9.0], [-1.0, 6.0]))

    grad = float(jax.grad(exact)(THETA))
    assert check_unbiased(lambda: objective("enum"), grad) < 1e-6
    check_unbiased(lambda: objective("score"), grad, bias=0.15)
