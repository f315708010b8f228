"""`python -m benchmarks.import_time`: how long our modules and those beside take to import."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks import timing
from benchmarks.report import console

MODULES = ("ppl", "ppl.vi", "genjax", "numpyro", "jax")


def importing(module: str) -> Callable[[], float]:
    """Imports it in a new process, and returns the seconds, with those of Python's own start."""

    def once() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
        return time.perf_counter() - began

    return once


def main(rounds: int = 5) -> None:
    """Medians and ranges."""
    for name, seconds in timing.take_turns({m: importing(m) for m in MODULES}, rounds).items():
        low, median, high = np.quantile(seconds, [0, 0.5, 1])
        console.print(f"{name}: {median:.2f} s ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
