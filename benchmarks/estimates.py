"""What a side estimates: mean and variance of its gradient, and the objective that it reaches."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from benchmarks.loop import BLOCK, Compiled, start
from benchmarks.task import BY_HAND, Task

CHUNK = 20
BOUND = 5.5
"""|z| of one entry that is still no finding (false alarm rate 4e-8)."""


@dataclass(frozen=True)
class Moments:
    """Of loss and gradient, flat: the loss first."""

    mean: np.ndarray
    variance: np.ndarray
    draws: int

    @property
    def total_variance(self) -> float:
        """Of the gradient: the sum over its entries."""
        return float(self.variance[1:].sum())


def moments(
    task: Task, name: str, params: Any, *, seed: int, draws: int = 4_000, seconds: float = 3.0
) -> Moments:
    """By so many draws, or as many as there is time for (20 at least)."""
    gradient = task.sides[name](task.data)

    def draw(key, params, data):
        loss, grad = gradient(key, params, task.seen(key, data))
        return jnp.concatenate([jnp.reshape(loss, 1), ravel_pytree(grad)[0]])

    def add(carry, key, params, data):  # Welford's update
        n, mean, squares = carry
        x = draw(key, params, data)
        new = mean + (x - mean) / (n + 1)
        return (n + 1, new, squares + (x - mean) * (x - new)), None

    @jax.jit
    def some(carry, key, params, data):
        keys = jax.random.split(key, CHUNK)
        return lax.scan(lambda c, k: add(c, k, params, data), carry, keys)[0]

    size = 1 + ravel_pytree(params)[0].size
    carry = jnp.zeros(()), jnp.zeros(size), jnp.zeros(size)
    began, key = time.perf_counter(), jax.random.key(seed)
    for i in range(math.ceil(draws / CHUNK)):
        carry = jax.block_until_ready(some(carry, jax.random.fold_in(key, i), params, task.data))
        if i == 0:
            began = time.perf_counter()  # compiled
        elif time.perf_counter() - began > seconds:
            break
    n, mean, squares = (np.asarray(x, np.float64) for x in carry)
    return Moments(mean, squares / (n - 1), int(n))


@dataclass(frozen=True)
class Bias:
    """How far means are from a reference's.

    Attributes:
        z: largest deviation of an entry in standard errors (with 1e-4 of the largest entry for
            rounding).
        relative: largest deviation, over the reference's largest entry.
    """

    z: float
    relative: float

    @property
    def found(self) -> bool:
        return self.z > BOUND


def bias(found: Moments, reference: Moments) -> Bias:
    """The larger of the loss's and the gradient's."""
    parts = []
    for part in (slice(0, 1), slice(1, None)):
        difference = np.abs(found.mean[part] - reference.mean[part])
        scale = np.abs(reference.mean[part]).max()
        error = found.variance[part] / found.draws + reference.variance[part] / reference.draws
        z = difference / np.sqrt(error + (1e-4 * scale) ** 2 + 1e-30)
        parts.append((float(z.max()), float(difference.max() / scale)))
    return Bias(*max(parts))


# -------------------------------------------------------------------------------- the objective


@dataclass(frozen=True)
class Curve:
    """The objective after some numbers of steps, all judged with the same random numbers."""

    steps: np.ndarray
    values: np.ndarray
    error: float

    def steps_to(self, target: float) -> float | None:
        """The first number of steps with this objective, between points by a straight line."""
        above = np.flatnonzero(self.values >= target)
        if not len(above):
            return None
        i = above[0]
        if i == 0:
            return float(self.steps[0])
        part = (target - self.values[i - 1]) / (self.values[i] - self.values[i - 1])
        return float(self.steps[i - 1] + part * (self.steps[i] - self.steps[i - 1]))


def judge(task: Task, samples: int, seconds: float) -> Any:
    """The common evaluator, by hand: from parameters to mean and standard error.

    With at most so many samples, or as there is time for (8 at least); the same for all.
    """
    gradient = task.sides[BY_HAND](task.data)

    def value(key, params, data):
        return -gradient(key, params, task.seen(key, data))[0]

    @jax.jit
    def run(keys, params, data):
        return lax.map(lambda key: value(key, params, data), keys)

    def timed(keys):
        began = time.perf_counter()
        jax.block_until_ready(run(keys, start(task).params, task.data))
        return (time.perf_counter() - began) / len(keys)

    few = jax.random.split(jax.random.key(2), 8)
    timed(few)  # compiles
    keys = jax.random.split(jax.random.key(2), max(8, min(samples, int(seconds / timed(few)))))

    def judged(params):
        values = np.asarray(run(keys, params, task.data), np.float64)
        return float(values.mean()), float(values.std() / np.sqrt(len(keys)))

    return judged


def learning_curve(task: Task, made: Compiled, judge: Any, points: int = 24) -> Curve:
    """Train for the task's number of steps and judge on the way."""
    each = max(1, task.fit_steps // BLOCK // points)
    state = start(task)
    steps, values, error = [0], [judge(state.params)[0]], 0.0
    while steps[-1] < task.fit_steps:
        state = made.run(state, steps[-1], each)
        value, error = judge(state.params)
        steps.append(steps[-1] + each * BLOCK)
        values.append(value)
    return Curve(np.array(steps), np.array(values), error)
