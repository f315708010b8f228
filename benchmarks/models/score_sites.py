"""200 independent Bernoulli choices with score gradients, and a plate of 100 lanes.

By hand: leave-one-out over four samples, each cost charged only to its own choice. The measure is
the standard deviation of one gradient. What ignoring the independence would give (each cost charged
to all choices) is computed too.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Side, Task
from ppl import flip, gen, normal, param, plate, sim, unit_interval, vi

SAMPLES = 4


def targets(n: int) -> Any:
    return jnp.linspace(0.0, 1.0, n)


@gen
def sites(n):
    p = param("p", 0.5, support=unit_interval)
    flip.score(jnp.full(n, p)) @ "x"


@gen
def lane(target):
    p = param("p", 0.5, support=unit_interval)
    x = flip.score(p) @ "x"
    normal(jnp.where(x, 1.0, 0.0) - target, 0.1) @ "y"
    return (x - target) ** 2


def cost_of_sites(targets):
    choices, _ = sim(sites)(len(targets))
    return jnp.sum((choices["x"] - targets) ** 2)


def cost_of_plate(targets):
    choices, _ = sim(plate(lane))(targets)
    return jnp.sum((choices["x"] - targets) ** 2)


def ours(cost: Any, targets: Any) -> Side:
    est = vi.compile(cost, num_samples=SAMPLES)
    params = est.init(jax.random.key(0), targets)
    return Side(lambda key, params, data: est.surrogate(key, params, data), params, est)


def by_hand(targets: Any, charge_all: bool = False) -> Side:
    def loss(key, params, targets):
        p = params["p"]
        x = jax.random.uniform(key, (SAMPLES, len(targets))) < p
        log_p = jnp.where(x, jnp.log(p), jnp.log1p(-p))
        cost = (x - targets) ** 2
        if charge_all:
            cost, log_p = jnp.sum(cost, 1), jnp.sum(log_p, 1)
        baseline = (jnp.sum(cost, 0) - cost) / (SAMPLES - 1)
        charge = jnp.sum(jax.lax.stop_gradient(cost - baseline) * log_p)
        value = jnp.sum(cost) + charge - jax.lax.stop_gradient(charge)
        return value / SAMPLES

    return Side(loss, {"p": jnp.array(0.5)})


def task(n: int = 200, in_plate: bool = False) -> Task:
    cost = cost_of_plate if in_plate else cost_of_sites
    return Task(
        name=f"{n} score choices" + (" in a plate" if in_plate else ""),
        ours=lambda data: ours(cost, data),
        by_hand=by_hand,
        data=targets(n),
        to_hand=lambda params: params,
        learning_rate=1e-4,
        fit_steps=0,
    )


def deviation(side: Side, data: Any, draws: int = 20_000) -> float:
    """Standard deviation of the gradient with respect to `p`."""
    gradient = jax.grad(side.loss, argnums=1)
    run = jax.jit(lambda keys: jax.lax.map(lambda k: gradient(k, side.params, data)["p"], keys))
    return float(np.std(run(jax.random.split(jax.random.key(0), draws)), ddof=1))
