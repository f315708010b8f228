"""What commands print of fits and runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ppl import lang

MOST_ENTRIES = 12


def show_fit(result: Any) -> str:
    """The objective's last values and the parameters, a line each."""
    losses = np.asarray(result.losses)
    last = losses[-max(1, len(losses) // 10) :]
    lines = [f"objective: {-last.mean():.4f} (mean of the last {len(last)} of {len(losses)} steps)"]
    for name, value in sorted(result.params.items()):
        lines.append(f"{name}: {_show(value)}")
    return "\n".join(lines)


def _show(value: Any) -> str:
    leaves = [np.asarray(x) for x in jax.tree.leaves(eqx.filter(value, eqx.is_array))]
    if len(leaves) == 1 and leaves[0].size <= MOST_ENTRIES:
        return np.array2string(leaves[0], precision=4, separator=", ", max_line_width=10_000)
    sizes = ", ".join("x".join(map(str, x.shape)) or "1" for x in leaves)
    return f"{sum(x.size for x in leaves)} numbers ({sizes})"


def show_runs(program: Any, args: tuple[Any, ...], count: int, seed: int) -> Iterator[str]:
    """The choices of independent runs, as JSON."""
    run = jax.jit(lang.seed(lambda: lang.sim(program)(*args)[0]))
    for key in jax.random.split(jax.random.key(seed), count):
        yield json.dumps(_plain(run(key)))


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {n: _plain(v) for n, v in x.items()}
    return np.asarray(x).tolist()
