"""Whole fits: `vi.fit` beside a training loop by hand and NumPyro's `SVI`.

The same model, guide, start, optimiser, number of steps and one sample per step; all take turns.
`vi.fit` and the loop by hand are timed without compilation. NumPyro's `svi.run` compiles at each
call: its step is the difference of two runs, one eight times as long as the other, over the
difference of their steps, good to a compilation's scatter over it; `SVI.update` in one compiled
`lax.scan` is timed besides. The last column is the first call, with everything: what somebody waits
who fits once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from rich.table import Table

from benchmarks.loop import BLOCK, compiled
from benchmarks.models import eight_schools, hierarchical, logistic_regression
from benchmarks.report import Suite
from benchmarks.task import BY_HAND, Task
from benchmarks.timing import ratio, take_turns
from ppl import vi


class Program(NamedTuple):
    """A task, our model and guide with their `split`, and NumPyro's; and how many steps to time."""

    task: Task
    ours: tuple[Any, Any, Callable[[Any], Any]]
    numpyro: tuple[Any, Any]
    steps: int


def schools() -> Program:
    programs = eight_schools.non_centred, eight_schools.guide, eight_schools.split
    numpyro = eight_schools.numpyro_model(False), eight_schools.numpyro_guide
    return Program(eight_schools.task(False), programs, numpyro, 100_000)


def logistic() -> Program:
    m = logistic_regression
    programs = m.model, m.guide, m.split
    return Program(m.task(), programs, (m.numpyro_model, m.numpyro_guide), 30_000)


def regression() -> Program:
    m = hierarchical
    programs = m.model, m.guide, m.split
    return Program(every_row(m.task()), programs, (m.numpyro_model, m.numpyro_guide), 20_000)


PROGRAMS = {"schools": schools, "logistic": logistic, "hierarchical": regression}


def every_row(task: Task) -> Task:
    """With the first batch as all of the data."""
    batch = jax.tree.map(lambda a: a[: hierarchical.BATCH], task.data)
    return Task(task.name.replace("1000 of", "the same 1000 of"), task.sides, task.start, batch)


class Runs(NamedTuple):
    """Seconds of one step, and of the first call."""

    step: Callable[[], float]
    first: float


def timed(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - began


def by_fit(program: Program, steps: int) -> Runs:
    model, guide, split = program.ours
    observed, args = split(program.task.data)
    options: Any = {"steps": steps, "optimizer": optax.adam(1e-3), "progress": False}
    began = time.perf_counter()
    estimator = vi.compile(vi.elbo(model, guide, observed=observed, args=args), num_samples=1)
    vi.fit(estimator, **options)
    first = time.perf_counter() - began
    return Runs(lambda: vi.fit(estimator, **options).seconds / steps, first)


def by_loop(program: Program, steps: int) -> Runs:
    blocks = steps // BLOCK
    began = time.perf_counter()
    loop = compiled(program.task, BY_HAND)
    loop.time(blocks)
    return Runs(lambda: loop.time(blocks).wall, time.perf_counter() - began)


def svi(program: Program) -> Any:
    from numpyro.handlers import substitute
    from numpyro.infer import SVI, Trace_ELBO

    model, guide = (substitute(p, data=program.task.start) for p in program.numpyro)
    return SVI(model, guide, optax.adam(1e-3), Trace_ELBO())


def by_run(program: Program, steps: int) -> Runs:
    data, key, many = program.task.data, jax.random.key(0), 8 * steps

    def run(steps: int) -> float:
        return timed(lambda: svi(program).run(key, steps, data, progress_bar=False).params)

    return Runs(lambda: (run(many) - run(steps)) / (many - steps), run(steps))


def by_update(program: Program, steps: int) -> Runs:
    data, made = program.task.data, svi(program)
    step = lambda state, data: made.update(state, data)
    scan = jax.jit(
        lambda state, data: jax.lax.scan(lambda s, _: step(s, data), state, None, length=steps)
    )
    state = made.init(jax.random.key(0), data)
    first = timed(lambda: scan(state, data))
    return Runs(lambda: timed(lambda: scan(state, data)) / steps, first)


FIT = "vi.fit"
WAYS = {
    FIT: by_fit,
    "loop by hand": by_loop,
    "NumPyro svi.run": by_run,
    "NumPyro SVI.update in a scan": by_update,
}


def measure_program(program: Program, steps: int, rounds: int) -> dict[str, Any]:
    runs, without = {}, {}
    for name, way in WAYS.items():
        try:
            runs[name] = way(program, steps)
        except ModuleNotFoundError as error:
            without[name] = f"{error.name} is not installed"
    times = take_turns({name: run.step for name, run in runs.items()}, rounds)
    rows = {
        name: {**ratio(times[FIT], own), "first": runs[name].first} for name, own in times.items()
    }
    return {"task": program.task.name, "steps": steps, "rows": rows, "without": without}


def table(found: dict[str, Any]) -> Table:
    out = Table(title=f"{found['task']}, {found['steps']} steps", title_justify="left")
    for column in ("", "steps / s", "vi.fit / it (quartiles)", "first call, s"):
        out.add_column(column, justify="right" if column else "left")
    for name, row in found["rows"].items():
        text = "" if name == FIT else "{ratio:.3f} ({low:.2f}, {high:.2f})".format(**row)
        out.add_row(name, f"{1 / row['other']:,.0f}", text, f"{row['first']:.1f}")
    for name, why in found["without"].items():
        out.add_row(f"[dim]{name}: {why}")
    return out


def measure(name: str, quick: bool) -> dict[str, Any]:
    program = PROGRAMS[name]()
    scale, rounds = (10, 3) if quick else (1, 5)
    return measure_program(program, program.steps // scale, rounds)


SUITE = Suite(measure, table, tuple(PROGRAMS), tuple(PROGRAMS))
