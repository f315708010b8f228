"""What the compiled gradient costs beside one written by hand: the paper's variational autoencoder.

Both take steps of the same compiled training loop; the two take turns, and the ratio is the median
of the ratios within the turns, so that other work on the machine slows both alike. The programs
are those of `benchmarks/models/vae.py`; `python -m benchmarks training` measures more of them.

Source: Becker et al. (arXiv 2406.15742), table 1: 28 x 28 pixels, an encoder of 784-200-(10, 10)
and a decoder of 10-200-784 units, leaky rectifiers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.loop import compiled
from benchmarks.models import vae
from benchmarks.task import BY_HAND, OURS
from benchmarks.timing import ratio, take_turns
from examples._report import run_as_script
from stdlib.report import OUTPUTS, print_table

PAPER = {  # batch: milliseconds (ours, by hand), on its GPU
    64: (0.11, 0.09),
    128: (0.22, 0.16),
    256: (0.31, 0.29),
    512: (0.56, 0.54),
    1024: (1.58, 1.07),
}


@dataclass(frozen=True)
class Result:
    """Times of a step, and ratios, by batch size (see `benchmarks.timing.ratio`)."""

    times: dict[int, dict[str, Any]]

    def ratio(self, batch: int) -> float:
        return self.times[batch]["ratio"]


def measure(batch: int, seconds: float, rounds: int) -> dict[str, Any]:
    task = vae.task(batch)
    sides = {name: compiled(task, name) for name in (OURS, BY_HAND)}
    blocks = sides[BY_HAND].blocks_for(seconds)
    runs = {name: lambda side=side: side.time(blocks).wall for name, side in sides.items()}
    found = take_turns(runs, rounds)
    return ratio(found[OURS], found[BY_HAND])


def run(quick: bool = False) -> Result:
    """Time both sides at each batch size; at the smallest only, and shortly, if `quick`."""
    if quick:
        return Result({64: measure(64, 0.1, 4)})
    return Result({batch: measure(batch, 0.5, 20) for batch in PAPER})


def report(result: Result) -> None:
    """Print what was found, beside the paper's figures."""
    rows = []
    for batch, times in result.times.items():
        paper, paper_hand = PAPER[batch]
        rows.append(
            [
                batch,
                f"{1e3 * times['ours']:.2f}",
                f"{1e3 * times['other']:.2f}",
                f"{times['ratio']:.2f}",
                "{low:.2f}, {high:.2f}".format(**times),
                f"{paper:.2f}",
                f"{paper_hand:.2f}",
                f"{paper / paper_hand:.2f}",
            ]
        )
    header = ["batch", "ours", "by hand", "ratio", "quartiles", "paper: ours", "by hand", "ratio"]
    print_table("One step of the autoencoder, in ms (table 1)", header, rows)


def main(quick: bool = False, folder: Path = OUTPUTS) -> Result:
    """Time, print."""
    del folder
    result = run(quick)
    report(result)
    return result


if __name__ == "__main__":
    run_as_script(main, __doc__)
