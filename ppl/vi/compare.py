"""`vi.compare_plans`: gradient variance, time and bias of several plans of one objective."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Key

from ppl.compiler.estimator import Estimator, Params, State
from ppl.compiler.estimator import compile as compile_objective
from ppl.compiler.moments import Moments, Sampler
from ppl.compiler.objective import Objective, as_objective
from ppl.compiler.strategies.base import strategies as all_strategies
from ppl.errors import PplError
from ppl.vi._inputs import bind_data, check_count, check_key
from ppl.vi.plots import pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PLANS = 40
"""So many plans are made where none are given, at most."""

_WARM_UP = 300

_SHOWS = 5.0 + 2.33
"""Standard errors of a bias that |z| > 5 shows with a probability of 99 %."""


@dataclass(frozen=True)
class PlanRow:
    """One plan of an objective.

    Attributes:
        strategies: of each choice that is drawn or summed over, by address.
        samples: averaged in one gradient.
        variance: of one gradient, summed over its entries.
        seconds: for one gradient, in a compiled loop.
        compile_seconds: to trace and compile that loop.
        z: largest deviation of an entry's mean from the reference plan's, in standard errors.
        catches: the relative bias, of the largest entry, that |z| > 5 would show (at 99 %).
        biased: why the plan says that it is, or may be, biased; empty if it does not.
        refused: why there is no such plan; all numbers are then NaN.
    """

    name: str
    strategies: dict[str, str]
    samples: int
    variance: float = math.nan
    seconds: float = math.nan
    compile_seconds: float = math.nan
    z: float = math.nan
    catches: float = math.nan
    biased: tuple[str, ...] = ()
    refused: str | None = None

    @property
    def sd(self) -> float:
        """Root of the variance."""
        return math.sqrt(self.variance)

    @property
    def cost(self) -> float:
        """Variance times time: what a gradient of a given accuracy costs, in seconds."""
        return self.variance * self.seconds


@dataclass(frozen=True)
class Comparison:
    """Plans beside each other.

    Attributes:
        rows: one for each plan, in the order given.
        reference: name of the plan that the others' means are compared with.
        draws: gradients of each plan.
    """

    objective: str
    rows: tuple[PlanRow, ...]
    reference: str
    draws: int

    def __getitem__(self, name: str) -> PlanRow:
        return {r.name: r for r in self.rows}[name]

    @property
    def best(self) -> PlanRow:
        """The cheapest unbiased plan by variance times time."""
        return min(self._unbiased(), key=lambda r: (r.cost, r.seconds))

    def _unbiased(self) -> list[PlanRow]:
        return [r for r in self.rows if r.refused is None and not r.biased]

    def relative(self, row: PlanRow) -> float:
        """A plan's variance times time over the best one's; two exact plans go by time."""
        best = self.best
        if best.variance == 0:
            return row.seconds / best.seconds if row.variance == 0 else math.inf
        return row.cost / best.cost

    def to_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, strings and numbers."""
        rows = [
            {**dataclasses.asdict(r), "cost": r.cost, "relative": self.relative(r)}
            for r in self.rows
        ]
        whole = {"objective": self.objective, "reference": self.reference, "draws": self.draws}
        return json.loads(json.dumps({**whole, "rows": rows}))

    def __str__(self) -> str:
        head = f"{self.objective}: {self.draws} gradients of each plan"
        titles = "plan", "n", "sd", "ms", "var x s", "/ best", "compile s", "z"
        cells = [titles, *map(self._cells, self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(titles))]
        widths[0] = min(widths[0], 30)
        lines = []
        for row in cells:
            numbers = [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([row[0][: widths[0]].ljust(widths[0]), *numbers]).rstrip())
        notes = [f"  {r.name}: biased: {why}" for r in self.rows for why in r.biased]
        notes += [f"  {r.name}: {r.refused}" for r in self.rows if r.refused]
        return "\n".join([head, *lines, *notes])

    __repr__ = __str__

    def _cells(self, row: PlanRow) -> tuple[str, ...]:
        if row.refused is not None:
            return (row.name, "refused", *[""] * 6)
        z = "-" if row.name == self.reference else f"{row.z:.1f}"
        mark = " biased" if row.biased else ""
        numbers = f"{row.sd:.3g}", f"{row.seconds * 1e3:.3g}", f"{row.cost:.2g}"
        compiled = f"{row.compile_seconds:.1f}"
        return row.name, str(row.samples), *numbers, f"{self.relative(row):.2f}", compiled, z + mark

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw variance against time, with lines of equal cost (needs the `plots` extra)."""
        axes: Any = pyplot().gca() if ax is None else ax
        rows = [r for r in self.rows if r.refused is None]
        noisy = [r.variance for r in rows if r.variance > 0]
        floor = min(noisy, default=1.0) / 10
        ms = np.array([max(r.seconds, 1e-9) * 1e3 for r in rows])
        ys = np.array([max(r.variance, floor) for r in rows])
        for row, x, y in zip(rows, ms, ys, strict=True):
            marker = "x" if row.biased else "v" if row.variance < floor else "o"
            axes.plot(x, y, marker)
            axes.annotate(row.name, (x, y), fontsize="small")
        times = np.array([ms.min() / 1.5, ms.max() * 1.5])
        for cost in (r.cost for r in rows if r.cost > 0):
            axes.plot(times, cost / times * 1e3, color="grey", lw=0.3, zorder=0)
        axes.set(xscale="log", yscale="log", xlim=times, ylim=(ys.min() / 2, ys.max() * 2))
        axes.set(xlabel="ms for a gradient", ylabel="variance of the gradient")
        axes.set_title(self.objective)
        return axes


def compare_plans(
    objective: Any,
    data: Any = None,
    *,
    plans: Mapping[str, Any] | None = None,
    params: Params | None = None,
    key: Key[Array, ""] | None = None,
    num_samples: int | None = None,
    reference: str | None = None,
    draws: int = 4_000,
    rounds: int = 8,
    bias: float | None = None,
    seconds: float = 20.0,
) -> Comparison:
    """Measure the gradient's variance, time and bias under several plans.

    Every plan's gradient is run in the same compiled loop, one after the other, in turns with the
    other plans. Baselines and control variates that remember or learn first take 300 steps at the
    given parameters.

    Args:
        objective: an objective program.
        data: its arguments: a tuple of all, or the only one; its own if `None`.
        plans: name -> strategies by address pattern, or an estimator. If `None`: the planner's
            (`"planned"`); each other strategy that a choice can have, with the other choices as
            planned; and each strategy in all choices that can have it.
        params: by name, in their supports; the initial ones if `None`.
        key: random key; `jax.random.key(0)` if `None`.
        num_samples: samples averaged in one gradient; as `vi.compile` chooses if `None`.
        reference: the plan whose mean the others are compared with; the first if `None`.
        draws: gradients of each plan, at least.
        rounds: turns in which they are timed; the fastest counts.
        bias: draw more until a bias of this part of the largest gradient entry would show, or
            until `seconds` have passed for a plan.

    Returns:
        a `Comparison`: prints as a table; `rows` holds its data, `plot()` draws it.
    """
    objective = as_objective(objective)
    data, key = bind_data(objective, data), check_key(key)
    check_count("draws", draws)
    if plans is None:
        plans = all_plans(objective, data)
    compile_plan = lambda p: (
        p
        if isinstance(p, Estimator)
        else compile_objective(objective, strategies=p, num_samples=num_samples)
    )
    measured: dict[str, _Measured | PlanRow] = {}
    for name, plan in plans.items():
        estimator = compile_plan(plan)
        try:
            measured[name] = _Measured(name, estimator, params, data, key, draws, rounds)
        except PplError as error:
            measured[name] = PlanRow(name, {}, 0, refused=f"{error.what}: {error.because}")
    running = [m for m in measured.values() if isinstance(m, _Measured)]
    for _ in range(rounds):
        for m in running:
            m.run()
    reference = next(iter(plans)) if reference is None else reference
    base = measured[reference]
    if isinstance(base, PlanRow):
        raise ValueError(
            f"compare_plans: the reference plan {reference!r} is refused: {base.refused}"
        )
    if bias is not None:
        for m in [base, *(m for m in running if m is not base)]:
            m.sharpen(base, bias, seconds)
    rows = [m if isinstance(m, PlanRow) else m.row(base) for m in measured.values()]
    return Comparison(objective.name, tuple(rows), reference, base.seen.count)


def all_plans(objective: Objective, data: tuple[Any, ...]) -> dict[str, dict[str, Any]]:
    """The planner's plan, all strategies of one choice at a time, and each in all choices.

    Raises:
        ValueError: those are more than 40.
    """
    planned = compile_objective(objective).plan(*data)
    able: dict[str, list[str]] = {}
    for eqn, chosen in planned.strategies.items():
        others = [n for n, s in all_strategies.items() if s.refusal(eqn) is None]
        able[eqn.params["address"]] = others
        if chosen.name not in others:
            others.append(chosen.name)
    plans: dict[str, dict[str, Any]] = {"planned": {}}
    if len(able) > 1:
        for eqn, chosen in planned.strategies.items():
            address = eqn.params["address"]
            plans |= {f"{address}: {n}": {address: n} for n in able[address] if n != chosen.name}
    for name in all_strategies:
        here = {a: name for a, names in able.items() if name in names}
        if here:
            plans[f"all {name}"] = here
    if len(plans) > MAX_PLANS:
        raise ValueError(
            f"compare_plans: {len(able)} choices make {len(plans)} plans, more than {MAX_PLANS}; "
            "pass plans={name: strategies}"
        )
    return distinct_plans(objective, data, plans)


def distinct_plans(
    objective: Objective, data: tuple[Any, ...], plans: Mapping[str, Any]
) -> dict[str, Any]:
    """The plans without those that come to the same as an earlier one."""
    kept: dict[str, Any] = {}
    seen = []
    for name, strategies in plans.items():
        try:
            plan = compile_objective(objective, strategies=strategies).plan(*data)
            chosen = list(plan.strategies.values())
        except PplError:
            chosen = None  # whoever compares it, says why
        if chosen is None or chosen not in seen:
            kept[name] = strategies
            seen.append(chosen)
    return kept


class _Measured:
    """A plan being measured."""

    def __init__(
        self,
        name: str,
        estimator: Estimator,
        params: Params | None,
        data: tuple[Any, ...],
        key: Key[Array, ""],
        draws: int,
        rounds: int,
    ):
        self.name, self.estimator, self.data = name, estimator, data
        params = estimator.init(key, *data) if params is None else params
        state = self._warm_up(key, params)
        batch = max(1, math.ceil(draws / (rounds + 1)))
        gradient = lambda k: estimator.value_grad_and_state(k, params, state, *data)[1]
        start = time.perf_counter()
        self.sampler = Sampler(gradient, key, batch=batch, vectorized=False)
        # Not compiled unless used: many at once are many times faster, but no measure of time.
        self.many = Sampler(gradient, jax.random.fold_in(key, 2))
        self.sampler.more()
        run = time.perf_counter()
        self.sampler.more()
        self.seconds = time.perf_counter() - run
        self.compile_seconds = run - start - self.seconds

    def _warm_up(self, key: Key[Array, ""], params: Params) -> State:
        """The state after some steps, if there is any."""
        estimator, data = self.estimator, self.data
        state = estimator.init_state(*data)
        if not jax.tree.leaves(state):
            return state
        step = lambda s, k: (estimator.value_grad_and_state(k, params, s, *data)[2], None)
        keys = jax.random.split(jax.random.fold_in(key, 1), _WARM_UP)
        return jax.jit(lambda s: lax.scan(step, s, keys)[0])(state)

    def run(self) -> None:
        start = time.perf_counter()
        self.sampler.more()
        self.seconds = min(self.seconds, time.perf_counter() - start)

    @property
    def seen(self) -> Moments:
        return self.sampler.seen.merge(self.many.seen)

    def against(self, base: _Measured) -> tuple[float, float]:
        """(largest |z| against another plan, the relative bias that would show)."""
        seen, theirs = self.seen, base.seen
        scale = float(np.max(np.abs(theirs.mean), initial=0)) or 1.0
        rounding = 1e-4 * scale
        error = np.hypot(seen.standard_error, theirs.standard_error) + rounding
        z = np.max(np.abs(seen.mean - theirs.mean) / error, initial=0)
        return float(z), float(_SHOWS * np.max(error, initial=0) / scale)

    def sharpen(self, base: _Measured, bias: float, seconds: float) -> None:
        # The reference goes first, and takes half of the error that is allowed.
        wanted = bias * (0.5 if base is self else 1.0)
        start = None  # once compiled
        while self.against(base)[1] > wanted:
            if start is not None and time.perf_counter() - start > seconds:
                break
            self.many.more()
            start = start or time.perf_counter()

    def row(self, base: _Measured) -> PlanRow:
        plan, seen = self.estimator.plan(*self.data), self.seen
        z, catches = self.against(base)
        noise = 1e-10 * np.sum(seen.mean**2)  # an exact gradient varies by rounding
        variance = float(np.sum(seen.variance))
        return PlanRow(
            self.name,
            {e.params["address"]: s.name for e, s in plan.strategies.items()},
            self.estimator.num_samples(*self.data),
            variance if variance > noise else 0.0,
            self.seconds / self.sampler.batch,
            self.compile_seconds,
            z,
            catches,
            tuple(self.estimator.biased(*self.data)),
        )
