"""`python -m benchmarks [training] [variance]`: tables, and files in the output folder.

`training`: our step and compile time against the same computation written by hand
(`benchmarks.json`, `benchmarks.png`). `variance`: all gradient strategies on six programs, variance
and time (`variance.json`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from benchmarks import harness, variance
from benchmarks.models import (
    eight_schools,
    flip_chain,
    hmm,
    logistic_regression,
    vae,
)

console = Console(width=110)


def training(tasks: list[harness.Task], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Steady-state step time, compilation, and the objective reached, of each model."""
    rows = []
    for task in tasks:
        row: dict[str, Any] = {"name": task.name}
        row["step"] = harness.compare_steps(task, rounds=rounds, seconds=seconds)
        row["compilation"] = harness.compare_compilation(task, rounds=max(3, rounds // 4))
        row["objective"] = harness.compare_objectives(task) if task.fit_steps else None
        rows.append(row)
    return rows


def training_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Ours / by hand: median of paired ratios (quartiles)")
    for column in ("model", "µs/step", "step", "trace + compile", "equations", "objective reached"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        step, total, reached = row["step"], row["compilation"]["total"], row["objective"]
        table.add_row(
            row["name"],
            f"{step['wall']['ours'] * 1e6:.3g}",
            _ratio(step["wall"]),
            _ratio(total),
            "{ours} / {by_hand}".format(**step["equations"]),
            "{ours:.6g} / {by_hand:.6g}".format(**reached) if reached else "",
        )
    return table


def _ratio(summary: dict[str, float]) -> str:
    return "{ratio:.3f} ({ratio_low:.3f}, {ratio_high:.3f})".format(**summary)


def growth(sizes: list[int]) -> list[dict[str, Any]]:
    """Equations, trace and compile time of n enumerated flips in a row."""
    rows = []
    for n in sizes:
        task = flip_chain.task(n)
        made = harness.compiled(task.ours(task.data), task, 1)
        rows.append(
            {
                "sites": n,
                "equations_per_site": made.equations / n,
                "trace_ms_per_site": made.trace_seconds / n * 1e3,
                "compile_seconds": made.compile_seconds,
            }
        )
    return rows


def growth_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="A chain of n enumerated flips (value and gradient, with Adam)")
    for column in ("n", "equations / site", "trace ms / site", "compile s"):
        table.add_column(column, justify="right")
    for r in rows:
        table.add_row(
            str(r["sites"]),
            f"{r['equations_per_site']:.1f}",
            f"{r['trace_ms_per_site']:.1f}",
            f"{r['compile_seconds']:.1f}",
        )
    return table


def machine() -> dict[str, str]:
    """Where and with what this ran."""
    names = ("jax", "genjax", "optax", "equinox", "numpy")
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "device": str(jax.devices()[0]),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Step and compile ratios of all models."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(8, 0.6 * len(rows) + 1.5), layout="constrained")
    for offset, (label, pick) in enumerate(
        {
            "step": lambda r: r["step"]["wall"],
            "trace + compile": lambda r: r["compilation"]["total"],
        }.items()
    ):
        summaries = [pick(r) for r in rows]
        middle = [s["ratio"] for s in summaries]
        low = [s["ratio"] - s["ratio_low"] for s in summaries]
        high = [s["ratio_high"] - s["ratio"] for s in summaries]
        at = [i + 0.2 * offset for i in range(len(rows))]
        ax.errorbar(middle, at, xerr=[low, high], fmt="o", label=label)
    ax.axvline(1.0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(rows)), [r["name"] for r in rows])
    ax.invert_yaxis()
    ax.set_xlabel("time of ours / time by hand (median and quartiles of pairs)")
    ax.legend()
    fig.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", nargs="*", choices=["training", "variance"], help="all if none")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder to write to")
    parser.add_argument("--programs", default="abcdef", help="of the variance suite")
    options = parser.parse_args()
    options.outputs.mkdir(parents=True, exist_ok=True)
    suites = {"training": run_training, "variance": run_variance}
    for name in options.suite or suites:
        results = {"machine": machine(), **suites[name](options)}
        path = options.outputs / ("benchmarks.json" if name == "training" else f"{name}.json")
        path.write_text(json.dumps(results, indent=2))
        console.print(f"written to {path}")


def run_training(options: argparse.Namespace) -> dict[str, Any]:
    rounds, seconds = (5, 0.2) if options.quick else (21, 0.5)
    tasks = [vae.task(), logistic_regression.task(), *eight_schools.tasks(), hmm.task()]
    results: dict[str, Any] = {"training": training(tasks, rounds, seconds)}
    console.print(training_table(results["training"]))
    results["growth"] = growth([30, 60] if options.quick else [30, 100, 200])
    console.print(growth_table(results["growth"]))
    figure(results["training"], options.outputs / "benchmarks.png")
    return results


def run_variance(options: argparse.Namespace) -> dict[str, Any]:
    results = []
    for name in options.programs:
        results.append(variance.measure(name, *((1_000, 2.0) if options.quick else (4_000, 20.0))))
        console.print(variance.table(results[-1]))
    return {"variance": results}


if __name__ == "__main__":
    main()
