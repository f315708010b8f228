"""`python -m benchmarks [training] [growth] [fit] [variance]`: tables, JSON and figures.

`training`: every model by us, by hand and by other systems: step and compile time, memory, gradient
variance, objective reached. `growth`: the same models at several sizes. `fit`: `vi.fit` beside
NumPyro's `svi.run`. `variance`: all gradient strategies on six programs, variance and time.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

from benchmarks import fit_speed, growth, training, variance
from benchmarks.report import console, machine

SUITES = {
    "training": training.run,
    "growth": growth.run,
    "fit": fit_speed.run,
    "variance": variance.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", nargs="*", choices=[*SUITES, []], help="all if none")
    parser.add_argument("--quick", action="store_true", help="fewer models, shorter runs")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder to write to")
    parser.add_argument("--only", nargs="*", default=[], help="models (or programs) of the suite")
    options = parser.parse_args()
    options.outputs.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", module="numpyro|genjax")  # what they say of themselves
    for name in options.suite or SUITES:
        found = SUITES[name](options.quick, options.outputs, options.only)
        path = options.outputs / f"{name}.json"
        path.write_text(json.dumps({"machine": machine(), **found}, indent=2))
        console.print(f"written to {path}")


if __name__ == "__main__":
    main()
