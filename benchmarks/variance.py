"""Gradient variance and time of every applicable strategy, on six programs.

The means are tested too: against the planner's plan, with as many gradients as it takes for a bias
of 3 % of the largest entry to show as |z| > 5, or as there is time for; the last column says which
bias would.
"""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table

from benchmarks.models import strategy_programs
from benchmarks.report import Suite
from ppl import vi


def measure(name: str, quick: bool) -> dict[str, Any]:
    """The comparison of all plans of a program."""
    program = strategy_programs.ALL[name]()
    draws, seconds = (1_000, 2.0) if quick else (4_000, 100.0)  # of a plan; for its mean's test
    compared = vi.compare_plans(
        program.objective,
        plans=program.plans(),
        num_samples=program.samples,
        draws=draws,
        bias=0.03,
        seconds=seconds,
    )
    title = f"({name}) {program.name}"
    return compared.to_dict() | {"name": title, "best": compared.best.name}


def table(found: dict[str, Any]) -> Table:
    out = Table(title=f"{found['name']}: sd, time, variance x time / best")
    for column in ("plan", "n", "sd", "µs", "var x time", "/ best", "compile s", "|z|", "shows"):
        out.add_column(column, justify="left" if column == "plan" else "right")
    for row in sorted(found["rows"], key=lambda r: (math.isnan(r["cost"]), r["relative"])):
        if row["refused"] is not None:
            out.add_row(row["name"], "-", *["refused", *[""] * 6])
            continue
        mark = " biased" if row["biased"] else ""
        out.add_row(
            row["name"],
            str(row["samples"]),
            f"{math.sqrt(row['variance']):.3g}",
            f"{row['seconds'] * 1e6:.3g}",
            f"{row['cost']:.2g}",
            f"{row['relative']:.2f}",
            f"{row['compile_seconds']:.1f}",
            ("-" if row["name"] == found["reference"] else f"{row['z']:.1f}") + mark,
            f"{row['catches']:.1%}",
        )
    return out


SUITE = Suite(measure, table, tuple(strategy_programs.ALL), tuple(strategy_programs.ALL))
