"""Every model's sides beside each other: step, compilation, variance, and the objective reached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from benchmarks import estimates, timing
from benchmarks.estimates import Moments, bias
from benchmarks.loop import Compiled, attempt, compiled, start
from benchmarks.models import (
    air,
    deep,
    eight_schools,
    flip_chain,
    hierarchical,
    hmm,
    logistic_regression,
    mean_field,
    mixture,
    score_sites,
    state_space,
    vae,
)
from benchmarks.report import Suite, save_figure
from benchmarks.task import BY_HAND, MATRIX_WORK, OURS, Task

TASKS: dict[str, Callable[[], Task]] = {
    **{f"vae{batch}": lambda batch=batch: vae.task(batch) for batch in (64, 128, 256, 512, 1024)},
    "logistic": logistic_regression.task,
    "schools": lambda: eight_schools.task(False),
    "schools_centred": lambda: eight_schools.task(True),
    "hierarchical": hierarchical.task,
    "hmm_bound": hmm.bound,
    "hmm_short": lambda: hmm.bound(20, unrolled=True),
    "hmm_likelihood": hmm.likelihood,
    "flips": flip_chain.task,
    "sites": score_sites.task,
    "plate": lambda: score_sites.task(in_plate=True),
    "scan": state_space.task,
    "mean_field": mean_field.task,
    "mixture": mixture.task,
    "deep": deep.task,
    "air": air.task,
}


class Effort(NamedTuple):
    """How much time to give.

    Attributes:
        rounds, seconds: of step times: how many runs of each side, and how long one takes.
        compilations, compile_seconds: at most so many of each side, and no new round after so long.
        draws, draw_seconds: gradients of each side, at most, for mean and variance.
        judge: draws of the evaluator, at most; it takes no longer than a run.
    """

    rounds: int
    seconds: float
    compilations: int
    compile_seconds: float
    draws: int
    draw_seconds: float
    judge: int


FULL = Effort(11, 0.25, 4, 12.0, 4_000, 1.5, 200)
SHORT = Effort(5, 0.05, 2, 4.0, 1_000, 0.5, 50)


# ------------------------------------------------------------------------------------ measuring


def measure(task: Task, effort: Effort) -> dict[str, Any]:
    """All measures of a task: a row for each side, and the reasons of those that have none."""
    made, failures = compile_all(task, effort)
    last = {name: runs[-1] for name, runs in made.items()}
    blocks = {name: run.blocks_for(effort.seconds) for name, run in last.items()}
    runs = {name: lambda name=name: last[name].time(blocks[name]) for name in last}
    times = timing.take_turns(runs, effort.rounds)
    found = moments_of_all(task, [n for n in last if n != MATRIX_WORK], effort)
    curves = curves_of_all(task, last, effort) if task.fit_steps else {}

    rows = []
    for name, run in last.items():
        step = timing.ratio([t.wall for t in times[OURS]], [t.wall for t in times[name]])
        rows.append(
            {
                "side": name,
                "step": step,
                "step_cpu": timing.ratio(*([t.cpu for t in times[n]] for n in (OURS, name))),
                "compilation": timing.ratio(*([c.seconds for c in made[n]] for n in (OURS, name))),
                "trace_seconds": float(np.median([c.trace_seconds for c in made[name]])),
                "xla_seconds": float(np.median([c.xla_seconds for c in made[name]])),
                "equations": run.equations,
                "bytes": run.bytes,
                **estimate(found, name, step),
                **reached(curves, name, step),
            }
        )
    failures |= task.remarks
    return {"task": task.name, "sides": rows, "without": failures}


def compile_all(task: Task, effort: Effort) -> tuple[dict[str, list[Compiled]], dict[str, str]]:
    """Compilations of each side, in turns, and why there are none of some.

    The first fills JAX's own caches and does not count, where there is time for others.
    """
    names = [*task.sides, *([MATRIX_WORK] if task.matrix_work else [])]
    made, failures, spent = {}, {}, 0.0
    for name in names:
        result = attempt(task, name)
        if isinstance(result, str):
            failures[name] = result
        else:
            made[name] = [result]
            spent += result.seconds
    for i in range(1, effort.compilations):
        if (i > 1 and spent > effort.compile_seconds) or spent > 4 * effort.compile_seconds:
            break
        for name in list(made)[:: 1 if i % 2 else -1]:
            made[name].append(compiled(task, name))
            spent += made[name][-1].seconds
    return {name: runs[1:] or runs for name, runs in made.items()}, failures


def moments_of_all(task: Task, names: list[str], effort: Effort) -> dict[str, Moments]:
    """At the start."""
    params = start(task).params
    return {
        name: estimates.moments(
            task, name, params, seed=i, draws=effort.draws, seconds=effort.draw_seconds
        )
        for i, name in enumerate(names)
    }


def estimate(found: dict[str, Moments], name: str, step: dict[str, Any]) -> dict[str, Any]:
    """Variance, efficiency (1 / (variance x time)) of ours beside this side's, and bias."""
    if name not in found:
        return {}
    own, ours = found[name].total_variance, found[OURS].total_variance
    error = bias(found[name], found[BY_HAND])
    return {
        "variance": own,
        "efficiency": own / ours / step["ratio"] if ours > 0 else None,
        "z": error.z,
        "biased": error.relative if error.found else None,
    }


def curves_of_all(task: Task, made: dict[str, Compiled], effort: Effort) -> dict[str, Any]:
    judge = estimates.judge(task, effort.judge, effort.seconds)
    names = [name for name in made if name != MATRIX_WORK]
    return {name: estimates.learning_curve(task, made[name], judge) for name in names}


def reached(curves: dict[str, Any], name: str, step: dict[str, Any]) -> dict[str, Any]:
    """The objective after all steps, and the time to 99 % of the way that by hand made."""
    if name not in curves:
        return {}
    hand, own = curves[BY_HAND], curves[name]
    target = hand.values[0] + 0.99 * (hand.values.max() - hand.values[0])
    steps = own.steps_to(target)
    return {
        "objective": float(own.values[-1]),
        "objective_error": own.error,
        "target": float(target),
        "seconds_to_target": None if steps is None else steps * step["other"],
    }


# -------------------------------------------------------------------------------------- showing


def table(result: dict[str, Any]) -> Table:
    """A row for each side; ratios are medians of pairs (with quartiles)."""
    out = Table(title=result["task"], title_justify="left")
    columns = (
        "side",
        "µs / step",
        "ours / side",
        "trace s",
        "XLA s",
        "ours / side",
        "equations",
        "MiB",
        "sd",
        "efficiency",
        "objective",
        "s to 99 %",
    )
    for column in columns:
        out.add_column(column, justify="left" if column == "side" else "right")
    for row in result["sides"]:
        out.add_row(*cells(row))
    for name, why in result["without"].items():
        out.add_row(f"[dim]{name}: {why}")
    return out


def cells(row: dict[str, Any]) -> list[str]:
    step, compilation, own = row["step"], row["compilation"], row["side"] == OURS
    biased, efficiency = row.get("biased"), row.get("efficiency")
    name = row["side"] + (f" [red](biased by {biased:.0%})" if biased is not None else "")
    return [
        name,
        f"{step['other'] * 1e6:,.3g}" if step["other"] < 1e-3 else f"{step['other'] * 1e6:,.0f}",
        "" if own else "{ratio:.3f} ({low:.2f}, {high:.2f})".format(**step),
        f"{row['trace_seconds']:.2f}",
        f"{row['xla_seconds']:.2f}",
        "" if own else f"{compilation['ratio']:.2f}",
        str(row["equations"]),
        f"{row['bytes'] / 2**20:.3g}",
        f"{row['variance'] ** 0.5:.3g}" if "variance" in row else "",
        "" if own or efficiency is None else f"{efficiency:.3g}",
        f"{row['objective']:.6g}" if "objective" in row else "",
        "-" if row.get("seconds_to_target") is None else f"{row['seconds_to_target']:.3g}",
    ]


def figure(results: list[dict[str, Any]], path: Path) -> None:
    """Step and compile ratios of all models and sides."""
    names = list(dict.fromkeys(r["side"] for t in results for r in t["sides"]))
    names = [n for n in names if not n.startswith(OURS)]
    with save_figure(path, 1, 2, (13, 0.45 * len(results) + 2)) as axes:
        for ax, (key, title) in zip(
            axes, {"step": "a step", "compilation": "trace and compile"}.items(), strict=True
        ):
            for j, name in enumerate(names):
                points = [
                    (i, r[key]["ratio"], r[key]["low"], r[key]["high"])
                    for i, t in enumerate(results)
                    for r in t["sides"]
                    if r["side"] == name
                ]
                at, middle, low, high = np.array(points).T
                error = [middle - low, high - middle]
                ax.errorbar(middle, at + 0.09 * j - 0.3, xerr=error, fmt="o", ms=4, label=name)
            ax.axvline(1.0, color="black", linewidth=0.8)
            ax.set(xscale="log", xlabel=f"time of {title}: ours / side")
            ax.set_yticks(range(len(results)), [t["task"] for t in results])
            ax.invert_yaxis()
        axes[1].set_yticks([])
        axes[0].legend(fontsize=7, loc="best")


SUITE = Suite(
    lambda name, quick: measure(TASKS[name](), SHORT if quick else FULL),
    table,
    tuple(TASKS),
    ("logistic", "schools", "hmm_bound", "plate"),
    figure,
)
