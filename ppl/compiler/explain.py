"""`explain()`: the plan of an objective, as data and as text for a terminal."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ppl.compiler.baselines import baseline
from ppl.compiler.influence import WORLDS, Alignment, Order, Source, covered, site_of
from ppl.compiler.plan import Plan, live_sites

WIDTH = 80


@dataclass(frozen=True)
class ChoiceRow:
    """One random choice.

    Attributes:
        lanes: shape of its independent draws.
        strategy: name of the strategy, or `"dead"` if nothing depends on the choice.
        why: the planner's reason.
    """

    address: str
    distribution: str
    lanes: tuple[int, ...]
    strategy: str
    why: str
    where: str


@dataclass(frozen=True)
class CostRow:
    """One cost term.

    Attributes:
        charged: score choices that it is charged to, and along which lanes.
        summed: enumerated choices that it is averaged over.
        states: size of that table.
    """

    where: str
    shape: tuple[int, ...]
    charged: tuple[str, ...]
    summed: tuple[str, ...]
    states: int


@dataclass(frozen=True)
class Explanation:
    """What the compiler does with an objective."""

    objective: str
    samples: int
    choices: tuple[ChoiceRow, ...]
    costs: tuple[CostRow, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"objective {self.objective}, {self.samples} sample(s) per estimate", "choices"]
        for c in self.choices:
            shape = "x".join(map(str, c.lanes)) or "-"
            lines.append(f"  {c.address}  {c.distribution}[{shape}]  {c.strategy}")
            lines.append(f"      {c.why}; {_short(c.where)}")
        if not self.choices:
            lines.append("  none")
        lines.append("cost terms")
        for c in self.costs:
            shape = "x".join(map(str, c.shape)) or "-"
            lines.append(f"  [{shape}] at {_short(c.where)}")
            if c.charged:
                lines.append(f"      charged to {', '.join(c.charged)}")
            if c.summed:
                lines.append(f"      {c.states} states of {', '.join(c.summed)}")
        if not self.costs:
            lines.append("  none depends on a score or enumerated choice")
        if self.warnings:
            lines += ["warnings", *(f"  {w}" for w in self.warnings)]
        return "\n".join(part for line in lines for part in _wrap(line))

    __repr__ = __str__


def _short(where: str) -> str:
    """The last part of a source line's path."""
    return where.rsplit("/", 1)[-1]


def _wrap(line: str) -> list[str]:
    import textwrap

    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [""]


def explain(name: str, plan: Plan, samples: int) -> Explanation:
    """Describe a plan."""
    live = set(live_sites(plan.staged.block))
    choices = []
    for eqn in plan.staged.sites:
        alive = eqn in live
        joint = ", all lanes together" if eqn in plan.joint else ""
        choices.append(
            ChoiceRow(
                eqn.params["address"],
                eqn.params["family"].name,
                tuple(eqn.params["shape"]),
                plan.strategies[eqn].name if alive else "dead",
                plan.reasons[eqn] + joint if alive else "nothing depends on it",
                eqn.where,
            )
        )
    costs = []
    for var in plan.region.costs:
        influence = plan.analysis.of(var)
        summed = [s for s in influence.axes if s is not WORLDS]
        costs.append(
            CostRow(
                plan.where(var),
                tuple(var.aval.shape),
                tuple(_along(s, a) for s, a in covered(influence.score).items()),
                tuple(map(repr, summed)),
                math.prod(map(plan.axis_size, summed)),
            )
        )
    return Explanation(name, samples, tuple(choices), tuple(costs), tuple(_warnings(plan, samples)))


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


def _warnings(plan: Plan, samples: int) -> list[str]:
    out = [
        f"biased: {k.site.params['address']}: '{k.operation}' at {_short(k.where)} jumps"
        for k in plan.kinks
    ]
    out += [f"biased: {e.params['address']}: {why}" for e, why in plan.biased.items()]
    baselines = {baseline(plan.strategies[site_of(s)].baseline).name for s in plan.charged}
    if samples == 1 and "leave_one_out" in baselines:
        out.append("one sample has no others: the leave-one-out baseline is 0 (num_samples=4)")
    return out
