"""One objective with a choice in every construct, so that a strategy is tested in all at once.

Four independent parts with a parameter each: `plain` (parent and child), `plate` (lanes, with
costs of their own and one together), `scan` (a chain) and `cond` (a choice in a branch). Their
gradients are of similar size, so that a test sees the same relative bias in each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl.compiler import compile
from ppl.lang import flip, param
from tests.compiler.exact import QUICK, check_draws

WEIGHTS = np.array([1.0, -0.5, 0.8], np.float32)


def number(bit):
    return jnp.asarray(bit).astype(float)


def flips(site) -> Callable[[], Any]:
    """Of `site(p)`, a flip or something like it."""

    def objective():
        p = {n: param(n, 0.4) for n in ("plain", "plate", "scan", "cond")}

        a = number(site(p["plain"]))
        b = number(site(0.2 + 0.5 * p["plain"] * a))
        plain = (a + 2 * b - 0.5) ** 2

        lanes = number(site(p["plate"] * jnp.ones(3)))
        plate = jnp.sum(jnp.exp(WEIGHTS * lanes)) + 0.4 * jnp.sum(lanes) ** 2

        def step(z, _):
            z = number(site(0.8 * p["scan"] + 0.3 * z))
            return z, (z + 0.5) ** 2

        z, costs = lax.scan(step, 1.0, None, length=3)
        chain = jnp.sum(costs) + z

        first = number(site(p["cond"]))
        c = lax.cond(first > 0, lambda: number(site(0.5 * p["cond"])), lambda: -first)
        branch = 2 * (first + c) ** 2 + first
        return plain + plate + chain + branch

    return objective


def normals(site) -> Callable[[], Any]:
    """Of `site(loc, scale)`, a normal choice or something like it; its costs are quadratic."""

    def objective():
        t = {n: param(n, 0.7) for n in ("plain", "plate", "scan", "cond")}

        a = site(t["plain"], 1.0)
        plain = (a + 0.5 * site(t["plain"] * a, 0.5)) ** 2

        lanes = site(t["plate"] * jnp.ones(3), 0.5 + t["plate"] ** 2)
        plate = jnp.sum(WEIGHTS * lanes) + 0.2 * jnp.sum(lanes) ** 2

        def step(x, _):
            x = site(t["scan"] * x, 0.5)
            return x, x**2

        chain = jnp.sum(lax.scan(step, 1.0, None, length=3)[1])

        up = flip.score(jax.nn.sigmoid(t["cond"]))
        b = lax.cond(up, lambda: site(2 * t["cond"], 0.5), lambda: -t["cond"])
        return plain + plate + chain + b**2

    return objective


def exact(objective) -> tuple[float, dict[str, float]]:
    """Value and gradient of an objective whose choices are all enumerated."""
    est = compile(objective, num_samples=1)
    key = jax.random.key(0)
    value, grad = jax.jit(est.value_and_grad)(key, est.init(key))
    return float(value), {n: float(g) for n, g in grad.items()}


def trained(est, steps: int = 60, data: tuple[Any, ...] = ()) -> tuple[dict, dict]:
    """Initial parameters, and the estimator's state after some steps."""
    params = est.init(jax.random.key(0), *data)

    def step(state, key):
        return est.value_grad_and_state(key, params, state, *data)[2], None

    train = lambda keys: lax.scan(step, est.init_state(*data), keys)[0]
    run = jax.jit(train, compiler_options=QUICK)
    return params, run(jax.random.split(jax.random.key(7), steps))


def check(objective, wanted: dict[str, float], steps: int = 0, **options: Any) -> float:
    """z-test of every part's gradient (see `check_draws`); the largest sd.

    Args:
        steps: in which the estimator's state learns beforehand.
        options: of `compile`, and `bias` of `check_draws`.
    """
    testing = {n: options.pop(n) for n in ("bias",) if n in options}
    est = compile(objective, **options)
    params, state = trained(est, steps) if steps else (est.init(jax.random.key(0)), None)

    def draw(key):
        if state is None:
            return est.value_and_grad(key, params)
        value = lambda params: est.surrogate_and_state(key, params, state)[0]
        return jax.value_and_grad(value)(params)

    return check_draws(draw, wanted, **testing)


# Of the objective `normals`, by hand: E x_t^2 = t^2 E x_{t-1}^2 + 1/4 in the chain, and so on.


def normals_value(plain, plate, scan, cond) -> float:
    total = (1 + 0.5 * plain) ** 2 * (plain**2 + 1) + 0.25 * 0.25
    sd = 0.5 + plate**2
    total += np.sum(WEIGHTS) * plate + 0.2 * (9 * plate**2 + 3 * sd**2)
    square = 1.0
    for _ in range(3):
        square = scan**2 * square + 0.25
        total += square
    up = 1 / (1 + np.exp(-cond))
    return total + up * (4 * cond**2 + 0.25) + (1 - up) * cond**2


def normals_gradient(h: float = 1e-5) -> dict[str, float]:
    names = ("plain", "plate", "scan", "cond")
    at = dict.fromkeys(names, 0.7)
    return {
        n: (normals_value(**at | {n: 0.7 + h}) - normals_value(**at | {n: 0.7 - h})) / (2 * h)
        for n in names
    }
