"""A hidden Markov model of 500 steps and 5 states, with a Markov guide whose states are enumerated.

The bound is exact: both sides sum over the states by the forward recursion.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Side, Task
from ppl import categorical, gen, normal, param, scan, vi

STATES = 5
MEANS = np.linspace(-2.0, 2.0, STATES).astype(np.float32)
STAY = np.log(0.8 * np.eye(STATES) + 0.2 / STATES).astype(np.float32)


def load(steps: int) -> np.ndarray:
    """Observations of a chain that stays where it is with probability 0.84."""
    rng = np.random.default_rng(0)
    z, ys = 0, []
    for _ in range(steps):
        z = rng.choice(STATES, p=0.8 * np.eye(STATES)[z] + 0.2 / STATES)
        ys.append(rng.normal(MEANS[z], 1.0))
    return np.array(ys, np.float32)


@gen
def model_step(z, _):
    z = categorical(jnp.asarray(STAY)[z]) @ "z"
    normal(param("means", MEANS)[z], 1.0) @ "y"
    return z, None


@gen
def guide_step(z, y):
    logits = param("logits", STAY)[z] + y * param("slopes", np.zeros(STATES, np.float32))
    z = categorical.enum(logits) @ "z"
    return z, None


@gen
def model(ys):
    scan(model_step, length=len(ys))(0) @ "chain"


@gen
def guide(ys):
    scan(guide_step)(0, ys) @ "chain"


def ours(ys: Any) -> Side:
    est = vi.compile(vi.elbo(model, guide, observed={"chain": {"y": ys}}, args=(ys,)))
    params = est.init(jax.random.key(0))

    def loss(key, params, ys):
        return -est.surrogate(key, params, {"chain": {"y": ys}}, (ys,)) / len(ys)

    return Side(loss, params, est)


def by_hand(ys: Any) -> Side:
    log_stay = jax.nn.log_softmax(jnp.asarray(STAY))

    def loss(key, params, ys):
        del key
        shifts = jnp.outer(ys, params["slopes"])
        log_q = jax.nn.log_softmax(params["logits"] + shifts[:, None, :])  # [time, from, to]
        q = jnp.exp(log_q)
        log_y = -0.5 * (ys[:, None] - params["means"]) ** 2 - 0.5 * jnp.log(2 * jnp.pi)
        costs = jnp.sum(q * (log_stay + log_y[:, None, :] - log_q), -1)  # [time, from]

        def step(weights, x):
            q, cost = x
            return weights @ q, weights @ cost

        _, costs = jax.lax.scan(step, jnp.eye(STATES)[0], (q, costs))
        return -jnp.sum(costs) / len(ys)

    start = {"means": jnp.asarray(MEANS), "logits": jnp.asarray(STAY)}
    return Side(loss, {**start, "slopes": jnp.zeros(STATES)})


def task(steps: int = 500) -> Task:
    return Task(
        name=f"HMM, {steps} steps, {STATES} states",
        ours=ours,
        by_hand=by_hand,
        data=jnp.asarray(load(steps)),
        to_hand=lambda params: params,
        learning_rate=0.01,
        fit_steps=200,
    )
