"""Memory and time of one training step, by the number of inner steps."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppl import vi
from stdlib.niw_meta.networks import regression_net
from stdlib.niw_meta.programs import NIW, bound, independent, maml
from stdlib.niw_meta.sines import SUPPORT, emission
from stdlib.niw_meta.tasks import sinusoids

TASKS = 4


class Cost(NamedTuple):
    """Of a step with `TASKS` tasks.

    Attributes:
        memory: XLA's temporary buffers, MiB per task.
        seconds: per task, the best of several runs.
    """

    memory: float
    seconds: float


def measure(estimator: vi.Estimator, data: tuple[Any, ...], repeats: int) -> Cost:
    """Compile one step (value and gradient) and run it."""
    key = jax.random.key(0)
    params = estimator.init(key, *data)
    step = jax.jit(estimator.value_and_grad).lower(key, params, *data).compile()
    memory = step.memory_analysis().temp_size_in_bytes / 2**20 / TASKS
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(step(key, params, *data))
        times.append(time.perf_counter() - began)
    return Cost(memory, min(times) / TASKS)


def of_niw(inner: int, repeats: int = 10) -> Cost:
    """One-time fits of `inner` gradient steps on the sinusoids."""
    start, network = regression_net(jax.random.key(0))
    size = len(start)
    prior = NIW(jnp.zeros(size), 0.01, jnp.full(size, 1e-3), 1.0)
    by = vi.GradientDescent(inner, 1e-3, max_norm=50.0)
    options: dict[str, Any] = {"total": 1000, "df": 100.0, "by": by, "precision": 1e3}
    model, guide = independent(network, emission, prior, start=start, **options)
    tasks = sinusoids(TASKS, 20, seed=0)
    estimator = vi.compile(bound(model, guide, 1000), rewrites="closed_form")
    return measure(estimator, (tasks.x, tasks.y), repeats)


def of_maml(inner: int, repeats: int = 10) -> Cost:
    """The same network, with the gradient through the inner steps."""
    start, network = regression_net(jax.random.key(0))
    x, y, _ = sinusoids(TASKS, 20, seed=0)
    data = (x[:, :SUPPORT], y[:, :SUPPORT], x[:, SUPPORT:], y[:, SUPPORT:])
    program = maml(network, emission, start, steps=inner, step_size=1e-3)
    return measure(vi.compile(program), data, repeats)
