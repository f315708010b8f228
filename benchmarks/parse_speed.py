"""`python -m benchmarks.parse_speed`: lines of the text language that are parsed in a second."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks.report import console
from ppl.syntax import parse

EXAMPLES = Path(__file__).parents[1] / "examples" / "text"


def main(rounds: int = 60) -> None:
    """Median and range over rounds, each through all examples five times."""
    files = [path.read_text() for path in sorted(EXAMPLES.glob("*.ppl"))]
    lines = 5 * sum(text.count("\n") for text in files)
    rates = []
    for _ in range(rounds):
        start = time.perf_counter()
        for text in files * 5:
            parse(text)
        rates.append(lines / (time.perf_counter() - start))
    low, median, high = np.quantile(rates, [0, 0.5, 1])
    console.print(f"{median:,.0f} lines a second ({low:,.0f} to {high:,.0f})")


if __name__ == "__main__":
    main()
