"""`python -m benchmarks [training] [growth] [fit] [variance]`: tables, JSON and figures.

`training`: every model by us, by hand and by other systems: step and compile time, memory, gradient
variance, objective reached. `growth`: the same models at several sizes. `fit`: `vi.fit` beside
NumPyro's `svi.run`. `variance`: all gradient strategies on six programs, variance and time.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
import warnings
from pathlib import Path

import jax

from benchmarks import fit_speed, growth, training, variance
from benchmarks.report import console, machine

SUITES = {
    "training": training.SUITE,
    "growth": growth.SUITE,
    "fit": fit_speed.SUITE,
    "variance": variance.SUITE,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", nargs="*", choices=[*SUITES, []], help="all if none")
    parser.add_argument("--quick", action="store_true", help="fewer models, shorter runs")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder to write to")
    parser.add_argument("--only", nargs="*", default=[], help="parts of a suite: put into its file")
    options = parser.parse_args()
    options.outputs.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", module="numpyro|genjax")  # what they say of themselves
    for name in options.suite or SUITES:
        run(name, options)


def run(name: str, options: argparse.Namespace) -> None:
    """Print and write as results come in: a run that is cut short leaves what it has."""
    suite, began = SUITES[name], time.perf_counter()
    path, found = options.outputs / f"{name}.json", {}
    if options.only and path.exists():
        found = json.loads(path.read_text())[name]
    for part in options.only or (suite.quick if options.quick else suite.names):
        found[part] = suite.measure(part, options.quick)
        console.print(suite.table(found[part]))
        found = {part: found[part] for part in suite.names if part in found}
        path.write_text(json.dumps({"machine": machine(), name: found}, indent=2))
        jax.clear_caches()  # the programs of all parts together take more memory than there is
        gc.collect()
    if suite.figure is not None:
        suite.figure(list(found.values()), options.outputs / f"{name}.png")
    console.print(f"{name}: {time.perf_counter() - began:.0f} s, written to {path}")


if __name__ == "__main__":
    main()
