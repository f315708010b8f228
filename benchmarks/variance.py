"""Gradient variance and time of every applicable strategy, on six programs.

The means are tested too: against the planner's plan, with as many gradients as it takes for a bias
of 3 % of the largest entry to be caught.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from rich.table import Table

from benchmarks.models import strategy_programs
from ppl import vi
from ppl.testing import BiasError, InconclusiveError, assert_unbiased


def measure(names: Sequence[str], draws: int, test: bool) -> list[dict[str, Any]]:
    """A dictionary for each program: its comparison, and what the tests of the means saw."""
    results = []
    for name in names:
        program = strategy_programs.ALL[name]()
        plans = program.plans()
        compared = vi.compare_plans(program.objective, plans=plans, draws=draws)
        found = compared.to_dict() | {
            "name": f"({name}) {program.name}",
            "best": compared.best.name,
        }
        for row in found["rows"]:
            tested = test and row["refused"] is None and not row["biased"]
            row |= mean_test(program, plans, row["name"]) if tested else {}
        results.append(found)
    return results


def mean_test(program: Any, plans: dict[str, Any], name: str) -> dict[str, Any]:
    """|z| of the worst entry of a plan's mean gradient, and the relative bias that would show."""
    objective = program.objective
    other = "planned" if name != "planned" else list(plans)[1]
    reference = vi.compile(objective, strategies=plans[other])
    estimator = vi.compile(objective, strategies=plans[name])
    key = jax.random.key(7)
    try:
        report = assert_unbiased(
            estimator,
            reference=reference,
            whole_gradient=True,
            max_draws=program.max_draws,
            key=key,
        )
    except BiasError as error:
        report = error.report
    except InconclusiveError as error:
        return {"mean_z": math.nan, "tested": str(error.because)}
    return {"mean_z": float(abs(report.z).max()), "tested": f"{report.draws} draws"}


def table(found: dict[str, Any]) -> Table:
    out = Table(title=f"{found['name']}: sd, time, variance x time / best")
    for column in ("plan", "n", "sd", "µs", "var x time", "/ best", "compile s", "|z|"):
        out.add_column(column, justify="left" if column == "plan" else "right")
    for row in sorted(found["rows"], key=lambda r: (math.isnan(r["cost"]), r["relative"])):
        if row["refused"] is not None:
            out.add_row(row["name"], "-", *["refused", *[""] * 5])
            continue
        z = row.get("mean_z", math.nan)
        mark = " biased" if row["biased"] else ""
        out.add_row(
            row["name"],
            str(row["samples"]),
            f"{math.sqrt(row['variance']):.3g}",
            f"{row['seconds'] * 1e6:.3g}",
            f"{row['cost']:.2g}",
            f"{row['relative']:.2f}",
            f"{row['compile_seconds']:.1f}",
            ("-" if math.isnan(z) else f"{z:.1f}") + mark,
        )
    return out
