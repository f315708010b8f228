"""A chain of enumerated flips, written as a Python loop: one choice and two costs per step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.harness import Side, Task
from ppl import flip, gen, param, sim, unit_interval, vi


@gen
def chain(n):
    p = param("p", jnp.linspace(0.2, 0.8, n), support=unit_interval)
    z = False
    for i in range(n):
        z = flip.enum(jnp.where(z, p[i], 1 - p[i])) @ f"z{i}"


def cost(weights):
    z, _ = sim(chain)(len(weights))
    total, before = 0.0, False
    for i, weight in enumerate(weights):
        total += jnp.where(z[f"z{i}"] & before, 2.0, 0.0) + weight * z[f"z{i}"]
        before = z[f"z{i}"]
    return total


def ours(weights: Any) -> Side:
    est = vi.compile(cost)
    params = est.init(jax.random.key(0), weights)
    return Side(lambda key, params, data: est.surrogate(key, params, data), params, est)


def by_hand(weights: Any) -> Side:
    def loss(key, params, weights):
        del key
        p, total, one = params["p"], 0.0, 0.0
        for i in range(len(weights)):
            both = one * p[i]
            one = both + (1 - one) * (1 - p[i])
            total += 2 * both + weights[i] * one
        return total

    return Side(loss, {"p": jnp.linspace(0.2, 0.8, len(weights))})


def task(n: int) -> Task:
    return Task(
        name=f"{n} enumerated flips",
        ours=ours,
        by_hand=by_hand,
        data=jnp.linspace(-1.0, 1.0, n),
        to_hand=lambda params: params,
        learning_rate=1e-4,
        fit_steps=0,
    )
