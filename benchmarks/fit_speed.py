"""Steps per second of `vi.fit` beside NumPyro's `svi.run`: `python -m benchmarks.fit_speed`.

The same models, guides (independent normals), optimiser, number of steps and one sample per step;
the two take turns, and the best of their runs counts, without compilation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from rich.console import Console
from rich.table import Table

from ppl import bernoulli, gen, half_cauchy, normal, vi

EFFECTS = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


@dataclass(frozen=True)
class Task:
    """A model in both languages, its data, and how many steps to time."""

    name: str
    ours: Any
    observed: dict[str, Any]
    theirs: Callable[..., None]
    args: tuple[Any, ...]
    steps: int


@gen
def schools(errors):
    mean = normal(0.0, 5.0) @ "mean"
    spread = half_cauchy(0.0, 5.0) @ "spread"
    deviation = normal.repeat(8)(0.0, 1.0) @ "deviation"
    normal(mean + spread * deviation, errors) @ "effect"


def schools_numpyro(errors):
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = numpyro.sample("spread", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", 8):
        deviation = numpyro.sample("deviation", dist.Normal(0.0, 1.0))
        numpyro.sample("effect", dist.Normal(mean + spread * deviation, errors), obs=EFFECTS)


@gen
def logistic(features):
    weights = normal(jnp.zeros(features.shape[1]), 1.0) @ "weights"
    bernoulli(logits=features @ weights) @ "label"


def logistic_task(rows: int, columns: int, steps: int) -> Task:
    keys = jax.random.split(jax.random.key(0), 3)
    features = jax.random.normal(keys[0], (rows, columns))
    truth = jax.random.normal(keys[1], (columns,))
    labels = jax.random.bernoulli(keys[2], jax.nn.sigmoid(features @ truth))

    def theirs(features):
        weights = numpyro.sample("weights", dist.Normal(jnp.zeros(columns), 1.0).to_event(1))
        logits = features @ weights
        with numpyro.plate("rows", rows):
            numpyro.sample("label", dist.Bernoulli(logits=logits), obs=labels)

    name = f"logistic regression, {rows} x {columns}"
    return Task(name, logistic, {"label": labels}, theirs, (features,), steps)


def tasks(scale: float) -> list[Task]:
    """The tasks, with their steps times `scale`."""
    count = lambda steps: max(1, int(steps * scale))
    return [
        Task(
            "eight schools",
            schools,
            {"effect": EFFECTS},
            schools_numpyro,
            (ERRORS,),
            count(20_000),
        ),
        logistic_task(500, 10, count(5_000)),
        logistic_task(5_000, 50, count(1_000)),
    ]


def ours(task: Task) -> Callable[[], float]:
    """A function that runs the fit and returns the steps per second."""
    program = vi.elbo(task.ours, vi.mean_field, observed=task.observed, args=task.args)
    estimator = vi.compile(program, num_samples=1)
    optimizer = optax.adam(1e-3)

    def run() -> float:
        fit = vi.fit(estimator, steps=task.steps, optimizer=optimizer, progress=False)
        return task.steps / fit.seconds

    return run


def theirs(task: Task) -> Callable[[], float]:
    """The same for NumPyro; its `run` compiles anew, so `lax.scan` of its `update` is timed."""
    svi = SVI(task.theirs, AutoNormal(task.theirs), optax.adam(1e-3), Trace_ELBO())
    state = svi.init(jax.random.key(0), *task.args)
    step = lambda state, _: svi.update(state, *task.args)
    scan = jax.jit(lambda state: jax.lax.scan(step, state, None, length=task.steps))

    def run() -> float:
        began = time.perf_counter()
        jax.block_until_ready(scan(state))
        return task.steps / (time.perf_counter() - began)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, by turns")
    parser.add_argument("--scale", type=float, default=1.0, help="times the number of steps")
    options = parser.parse_args()
    table = Table(title="steps per second, the best of all rounds", title_justify="left")
    for column in ("model", "vi.fit", "svi", "ratio"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for task in tasks(options.scale):
        sides = [ours(task), theirs(task)]
        for run in sides:
            run()  # compiles
        speeds = [[run() for run in sides] for _ in range(options.rounds)]
        mine, other = (max(column) for column in zip(*speeds, strict=True))
        table.add_row(task.name, f"{mine:,.0f}", f"{other:,.0f}", f"{mine / other:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
