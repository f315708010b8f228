"""How equations, trace, compile and step time grow with length, choices and lanes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks import peers
from benchmarks.loop import attempt
from benchmarks.models import (
    deep,
    flip_chain,
    hmm,
    mean_field,
    mixture,
    score_sites,
    state_space,
)
from benchmarks.report import Suite, save_figure
from benchmarks.task import BY_HAND, OURS, Task

MEASURES = {
    "equations": "equations",
    "trace_seconds": "trace s",
    "xla_seconds": "XLA s",
    "step_seconds": "step s",
    "bytes": "bytes",
}


@dataclass(frozen=True)
class Family:
    """A model at several sizes.

    Attributes:
        sizes: for all sides.
        fewer: the sizes of sides that take too long at the others.
    """

    task: Callable[[int], Task]
    unit: str
    sizes: tuple[int, ...]
    fewer: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def all_sizes(self) -> list[int]:
        return sorted({*self.sizes, *(n for few in self.fewer.values() for n in few)})


UNROLLED = {f"{name}, unrolled": (5, 10, 20) for name in (peers.GRAPH, peers.ENUM, peers.GENJAX)}
FAMILIES = {
    "HMM, bound": Family(
        lambda n: hmm.bound(n, unrolled=n <= 20), "steps", (10, 30, 100, 1_000, 10_000), UNROLLED
    ),
    "HMM, likelihood": Family(hmm.likelihood, "steps", (10, 100, 1_000, 10_000)),
    "score choices in a scan": Family(state_space.task, "steps", (10, 30, 100, 1_000), UNROLLED),
    "enumerated flips": Family(
        flip_chain.task, "choices", (4, 8, 16, 32, 64), {peers.GENJAX: (4, 6)}
    ),
    "choices in a row": Family(
        deep.task,
        "choices",
        (25, 50, 100),
        {OURS: (25, 50, 100, 200, 400), BY_HAND: (50, 100, 200)},
    ),
    "score choices in a plate": Family(
        lambda n: score_sites.task(n, in_plate=True), "lanes", (100, 1_000, 10_000, 100_000)
    ),
    "mixture": Family(mixture.task, "lanes", (1_000, 10_000, 100_000)),
    "mean field": Family(mean_field.task, "lanes", (10_000, 100_000, 1_000_000)),
}


def measure_family(name: str, family: Family, sizes: Sequence[int]) -> dict[str, Any]:
    """Rows of one family, and exponents between the two largest sizes of each side."""
    rows, failures = [], {}
    for n in sizes:
        task = family.task(n)
        for side in task.sides:
            if n not in family.fewer.get(side, family.sizes) or side in failures:
                continue
            made = attempt(task, side)
            if isinstance(made, str):
                failures[side] = f"{n} {family.unit}: {made}"
                continue
            blocks = made.blocks_for(0.1)
            rows.append(
                {
                    "side": side,
                    "n": n,
                    "equations": made.equations,
                    "trace_seconds": made.trace_seconds,
                    "xla_seconds": made.xla_seconds,
                    "step_seconds": min(made.time(blocks).wall for _ in range(3)),
                    "bytes": made.bytes,
                }
            )
    return {
        "family": name,
        "unit": family.unit,
        "rows": rows,
        "exponents": {side: exponents(rows, side) for side in {r["side"]: 0 for r in rows}},
        "failures": failures,
    }


def exponents(rows: list[dict[str, Any]], side: str) -> dict[str, float]:
    """Slope in the log-log plot between the two largest sizes."""
    last = [r for r in rows if r["side"] == side][-2:]
    if len(last) < 2:
        return {}
    a, b = last
    run = math.log(b["n"] / a["n"])
    return {measure: math.log(b[measure] / a[measure]) / run for measure in MEASURES}


def table(result: dict[str, Any]) -> Table:
    """Sizes down, and a last line of exponents."""
    out = Table(title=f"{result['family']}, by {result['unit']}", title_justify="left")
    for column in ("side", "n", "equations", "trace s", "XLA s", "µs / step", "MiB"):
        out.add_column(column, justify="left" if column == "side" else "right")
    for side, powers in result["exponents"].items():
        out.add_section()
        for r in result["rows"]:
            if r["side"] == side:
                numbers = [r["equations"], f"{r['trace_seconds']:.2f}", f"{r['xla_seconds']:.2f}"]
                numbers += [f"{r['step_seconds'] * 1e6:.3g}", f"{r['bytes'] / 2**20:.3g}"]
                out.add_row(side, str(r["n"]), *map(str, numbers))
        out.add_row("[dim]exponent", "", *(f"[dim]{powers[m]:.2f}" for m in MEASURES if powers))
    for side, why in result["failures"].items():
        out.add_row(f"[dim]{side}, {why}")
    return out


def figure(results: list[dict[str, Any]], path: Path) -> None:
    """Compile and step time against size."""
    with save_figure(path, 2, len(results), (3.2 * len(results), 6)) as axes:
        for column, result in zip(np.reshape(axes, (2, -1)).T, results, strict=True):
            for side in result["exponents"]:
                rows = [r for r in result["rows"] if r["side"] == side]
                sizes = [r["n"] for r in rows]
                column[0].loglog(
                    sizes, [r["trace_seconds"] + r["xla_seconds"] for r in rows], "o-", label=side
                )
                column[1].loglog(sizes, [r["step_seconds"] for r in rows], "o-")
            column[0].set_title(result["family"], fontsize=9)
            column[1].set_xlabel(result["unit"])
            column[0].legend(fontsize=6)
        np.reshape(axes, (2, -1))[0, 0].set_ylabel("trace and compile, s")
        np.reshape(axes, (2, -1))[1, 0].set_ylabel("a step, s")


def measure(name: str, quick: bool) -> dict[str, Any]:
    family = FAMILIES[name]
    return measure_family(name, family, family.all_sizes[:3] if quick else family.all_sizes)


SUITE = Suite(measure, table, tuple(FAMILIES), tuple(FAMILIES), figure)
