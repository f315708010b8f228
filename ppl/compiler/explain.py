"""`explain()`: the plan of an objective, as data and as text for a terminal."""

from __future__ import annotations

import dataclasses
import json
import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ppl.compiler.baselines import baseline
from ppl.compiler.influence import WORLDS, Alignment, Order, Site, Source, covered, site_of
from ppl.compiler.plan import Plan, live_sites
from ppl.compiler.smoothness import Kink
from ppl.compiler.variance import GradientVariance
from ppl.lang.staged import Eqn, Var

WIDTH = 80


@dataclass(frozen=True)
class ChoiceRow:
    """One random choice.

    Attributes:
        lanes: shape of its independent draws.
        strategy: name of the strategy, or `"dead"` if nothing depends on the choice.
        why: the planner's reason.
        values: how many values are summed over, of an enumerated choice: of one lane, or of all
            lanes together; else 0.
        worlds: how many worlds it compares costs in, beside the actual one.
        biased: why its gradient is, or may be, biased; or `None`.
    """

    address: str
    distribution: str
    lanes: tuple[int, ...]
    strategy: str
    why: str
    where: str
    values: int = 0
    worlds: int = 0
    biased: str | None = None


@dataclass(frozen=True)
class CostRow:
    """One cost term.

    Attributes:
        name: `cost 1`, `cost 2`, ...; the estimator's state uses it too.
        shape: of its entries, each of which is a cost of its own.
        charged: score choices that it is charged to, and along which lanes.
        baselines: what is subtracted from it before, for each of `charged`.
        compared: choices whose worlds it is computed in, and along which lanes.
        summed: enumerated choices that it is averaged over.
        states: size of that table.
        entries: numbers computed for it: shape, times states, times worlds.
    """

    name: str
    where: str
    shape: tuple[int, ...]
    charged: tuple[str, ...]
    baselines: tuple[str, ...]
    compared: tuple[str, ...]
    summed: tuple[str, ...]
    states: int
    entries: int


@dataclass(frozen=True)
class Explanation:
    """What the compiler does with an objective.

    Attributes:
        objective: its name.
        samples: independent samples averaged in one estimate.
        worlds: size of the axis along which costs are compared; 1 if nothing is.
        choices, costs: in program order.
        warnings: what biases the gradient or wastes it.
        variance: measured, if that was asked for.
        rewrites: what rewrites did to log-densities, each with its choice and source line.
    """

    objective: str
    samples: int
    worlds: int
    choices: tuple[ChoiceRow, ...]
    costs: tuple[CostRow, ...]
    warnings: tuple[str, ...]
    variance: GradientVariance | None = None
    rewrites: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, strings and numbers."""
        return json.loads(self.to_json())

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    def __str__(self) -> str:
        return "\n".join(part for line in self._lines() for part in _wrap(line))

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        count = "one sample" if self.samples == 1 else f"{self.samples} samples"
        worlds = f", {self.worlds} worlds" if self.worlds > 1 else ""
        yield f"objective {self.objective}: {count} per estimate{worlds}"
        yield "choices"
        for c in self.choices:
            yield from _choice_lines(c)
        if not self.choices:
            yield "  none"
        yield "cost terms"
        for c in self.costs:
            yield from _cost_lines(c)
        if not self.costs:
            yield "  none depends on a score or enumerated choice"
        if self.variance is not None:
            yield from _variance_lines(self.variance)
        if self.rewrites:
            yield "rewrites"
            yield from (f"  {r}" for r in self.rewrites)
        if self.warnings:
            yield "warnings"
            yield from (f"  {w}" for w in self.warnings)


def _choice_lines(c: ChoiceRow) -> Iterator[str]:
    yield f"  {c.address}  {c.distribution}[{_shape(c.lanes)}]  {c.strategy}"
    worlds = f", {c.worlds} other world{'s' if c.worlds > 1 else ''}" if c.worlds else ""
    yield f"      {c.why}{worlds}; {_short(c.where)}"
    if c.biased:
        yield f"      biased: {c.biased}"


def _cost_lines(c: CostRow) -> Iterator[str]:
    yield f"  {c.name}  [{_shape(c.shape)}] at {_short(c.where)}"
    for charge, less in zip(c.charged, c.baselines, strict=True):
        yield f"      charged to {charge}, baseline {less}"
    if c.compared:
        yield f"      compared between worlds of {', '.join(c.compared)}"
    if c.summed:
        states = f"{c.states} states of {', '.join(c.summed)}"
        yield f"      summed over {states}: {c.entries} numbers"


def _variance_lines(v: GradientVariance) -> Iterator[str]:
    yield f"gradient variance ({v.draws} gradients)"
    yield f"  total {v.total:.4g}, sd {v.sd:.4g}"
    total = v.total or 1.0
    for c in v.choices:
        error = f" (± {c.error:.2g})" if c.error else ""
        yield f"  {c.variance / total:>6.1%}  from {c.address}: {c.variance:.4g}{error}"
    for name, variance in v.parameters.items():
        yield f"  {variance / total:>6.1%}  in {name}: {variance:.4g}, sd {math.sqrt(variance):.4g}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "-"


def _short(where: str) -> str:
    """The last part of a source line's path."""
    return where.rsplit("/", 1)[-1]


def _wrap(line: str) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [""]


def explain(
    name: str, plan: Plan, samples: int, variance: GradientVariance | None = None
) -> Explanation:
    """Describe a plan."""
    live = set(live_sites(plan.staged.block))
    return Explanation(
        name,
        samples,
        plan.worlds.size,
        tuple(_choice(plan, e) if e in live else _dead(e) for e in plan.staged.sites),
        tuple(_cost(plan, var) for var in plan.region.costs),
        tuple(_warnings(plan, samples)),
        variance,
        tuple(map(str, plan.rewritten)),
    )


def _dead(eqn: Eqn) -> ChoiceRow:
    family, lanes = eqn.params["family"].name, tuple(eqn.params["shape"])
    return ChoiceRow(
        eqn.params["address"], family, lanes, "dead", "nothing depends on it", eqn.where
    )


def _choice(plan: Plan, eqn: Eqn) -> ChoiceRow:
    strategy = plan.strategies[eqn]
    slots = plan.worlds.slots.get(eqn)
    return ChoiceRow(
        eqn.params["address"],
        eqn.params["family"].name,
        tuple(eqn.params["shape"]),
        strategy.name,
        plan.reasons[eqn] + (", all lanes together" if eqn in plan.joint else ""),
        eqn.where,
        plan.axis_size(Site(eqn)) if strategy.kind == "enum" else 0,
        slots.size if slots else 0,
        plan.biased.get(eqn) or next((_jump(k) for k in plan.kinks if k.site is eqn), None),
    )


def _cost(plan: Plan, var: Var) -> CostRow:
    influence = plan.analysis.of(var)
    summed = [s for s in influence.axes if s is not WORLDS]
    sources = covered(influence.score).items()
    in_worlds = {s for s, _ in sources if site_of(s) in plan.worlds.slots}
    charged = [(s, a) for s, a in sources if s not in in_worlds]
    states = math.prod(map(plan.axis_size, summed))
    worlds = plan.worlds.size if WORLDS in influence.axes else 1
    return CostRow(
        plan.cost_names[var],
        plan.where(var),
        tuple(var.aval.shape),
        tuple(_along(s, a) for s, a in charged),
        tuple(_baseline(plan, s) for s, _ in charged),
        tuple(_along(s, a) for s, a in sources if s in in_worlds),
        tuple(map(repr, summed)),
        states,
        states * worlds * math.prod(var.aval.shape),
    )


def _baseline(plan: Plan, source: Source) -> str:
    """The name of what is subtracted: a mean of costs, or what a network learned."""
    return baseline(plan.strategies[site_of(source)].baseline).name


def _along(source: Source, alignment: Alignment) -> str:
    """A choice, and along which lanes a cost is charged to it."""
    if not alignment:
        return repr(source)
    said = []
    for entry in alignment:
        if entry is None:
            said.append("all")
        else:
            upto = {Order.EXACT: "", Order.PREFIX: "<=", Order.SUFFIX: ">="}[entry.order]
            said.append(f"{upto}axis {entry.axis}")
    return f"{source!r} ({', '.join(said)})"


def _jump(kink: Kink) -> str:
    return f"'{kink.operation}' at {_short(kink.where)} jumps"


def _warnings(plan: Plan, samples: int) -> list[str]:
    out = [f"biased: {k.site.params['address']}: {_jump(k)}" for k in plan.kinks]
    out += [f"biased: {e.params['address']}: {why}" for e, why in plan.biased.items()]
    baselines = {baseline(plan.strategies[site_of(s)].baseline).name for s in plan.charged}
    if samples == 1 and "leave_one_out" in baselines:
        out.append("one sample has no others: the leave-one-out baseline is 0 (num_samples=4)")
    return out
