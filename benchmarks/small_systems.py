"""`python -m benchmarks.small_systems`: densities of short normal vectors, ours and the library's.

`multivariate_normal_tri` solves triangular systems of up to 4 numbers itself; beside it the same
density with JAX's triangular solver.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from rich.table import Table

from benchmarks import timing
from benchmarks.report import console
from ppl import multivariate_normal_tri

SHAPES = {"10,000 matrices": (10_000, 10_000), "1 matrix, 100,000 vectors": (1, 100_000)}


def library(x: Any, loc: Any, tril: Any) -> Any:
    """Log-densities by hand."""
    if len(tril) == 1:
        z = solve_triangular(tril[0], (x - loc).T, lower=True).T
    else:
        z = solve_triangular(tril, (x - loc)[..., None], lower=True)[..., 0]
    logs = jnp.log(jnp.diagonal(tril, axis1=-2, axis2=-1))
    return jnp.sum(-0.5 * z * z - logs - 0.5 * jnp.log(2 * jnp.pi), -1)


def gradients(log_density: Callable[..., Any], args: Any) -> Callable[[], float]:
    """One gradient of the sum of all log-densities; returns the seconds."""
    run = jax.jit(jax.grad(lambda *a: jnp.sum(log_density(*a)), (1, 2)))
    jax.block_until_ready(run(*args))
    return timing.seconds_of(run, *args)


def main(rounds: int = 31) -> None:
    """Medians; ratios are within a round, with quartiles."""
    table = Table("gradient of the density of", "numbers", "library, µs", "ours, µs", "ratio")
    for name, (matrices, vectors) in SHAPES.items():
        for n in (2, 3, 4):
            keys = jax.random.split(jax.random.key(0), 3)
            x = jax.random.normal(keys[0], (vectors, n))
            loc = jax.random.normal(keys[1], (matrices, n))
            tril = jnp.tril(jax.random.normal(keys[2], (matrices, n, n))) + 3 * jnp.eye(n)
            sides = {"library": library, "ours": multivariate_normal_tri.log_prob}
            runs = {s: gradients(f, (x, loc, tril)) for s, f in sides.items()}
            times = timing.take_turns(runs, rounds)
            found = timing.ratio(times["ours"], times["library"])
            cells = [f"{found[k] * 1e6:,.0f}" for k in ("other", "ours")]
            table.add_row(
                name, str(n), *cells, "{ratio:.2f} ({low:.2f}, {high:.2f})".format(**found)
            )
    console.print(table)


if __name__ == "__main__":
    main()
