"""`python -m benchmarks.generators`: random numbers, and steps made of them, by generator.

Only generators whose streams are tested (`tests/lang/test_keys.py`). Programs take keys of either:
`vi.fit(..., key=jax.random.key(0, impl="philox4x32"))`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from rich.table import Table

from benchmarks import timing
from benchmarks.models import mean_field, score_sites, vae
from benchmarks.report import console
from benchmarks.task import OURS, Task

GENERATORS = ("threefry2x32", "philox4x32")
NUMBERS = 1_000_000


def steps(task: Task, count: int) -> Callable[[jax.Array], Any]:
    """Plain gradient steps of ours, one after the other."""
    gradient = task.sides[OURS](task.data)

    def step(key, params):
        _, grad = gradient(key, params, task.seen(key, task.data))
        return jax.tree.map(lambda p, g: p - 1e-7 * g, params, grad)

    def run(key):
        return lax.fori_loop(0, count, lambda i, p: step(jax.random.fold_in(key, i), p), task.start)

    return run


def many(draw: Callable[[jax.Array], Any], count: int) -> Callable[[jax.Array], Any]:
    """Draws one after the other, each with the key of its number, added up."""

    def run(key):
        body = lambda i, total: total + jnp.sum(draw(jax.random.fold_in(key, i)))
        return lax.fori_loop(0, count, body, jnp.zeros(()))

    return run


def work() -> dict[str, tuple[Callable[[jax.Array], Any], int]]:
    """What is run, and how often in one run."""
    words = lambda key: jax.random.bits(key, (NUMBERS,)).astype(float)
    normals = lambda key: jax.random.normal(key, (NUMBERS,))
    return {
        f"{NUMBERS:,} words": (many(words, 10), 10),
        f"{NUMBERS:,} normals": (many(normals, 10), 10),
        "mean field, 1,000,000 parameters": (steps(mean_field.task(), 5), 5),
        "VAE, batch 64": (steps(vae.task(64), 50), 50),
        "200 score choices": (steps(score_sites.task(), 2_000), 2_000),
    }


def main(rounds: int = 15) -> None:
    """Medians; ratios are within a round, with quartiles."""
    table = Table()
    for column in ("one of", *(f"{name}, µs" for name in GENERATORS), "ratio"):
        table.add_column(column, justify="left" if column == "one of" else "right")
    for name, (run_all, count) in work().items():
        runs = {
            g: timing.seconds_of(jax.jit(run_all), jax.random.key(1, impl=g)) for g in GENERATORS
        }
        for run in runs.values():
            run()  # compiles
        times = timing.take_turns(runs, rounds)
        first, other = (times[g] for g in GENERATORS)
        found = timing.ratio(other, first)
        cells = [f"{found[k] / count * 1e6:,.3g}" for k in ("other", "ours")]
        table.add_row(name, *cells, "{ratio:.2f} ({low:.2f}, {high:.2f})".format(**found))
    console.print(table)


if __name__ == "__main__":
    main()
