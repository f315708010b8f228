"""The plan: which strategy each choice gets, and what each cost is charged with.

The default for a choice without a strategy: reparameterise if the distribution can and what
follows is smooth in it; else enumerate if the support is finite and the tables stay small; else
compare a few worlds (measure-valued derivatives) if there is a rule and few will do; else score
with a leave-one-out baseline. A choice that no parameter moves (a simulator's, a frozen program's)
is just drawn, unless it has few values (of all lanes together, where a cost combines them).
Everything is decided from the staged program alone, so the same program always gets the same plan,
and `explain()` shows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, cast

import jax.numpy as jnp

from ppl.compiler import axis_rules  # noqa: F401  (fills the table of rules)
from ppl.compiler.baselines import Baseline, NoBaseline, PerLane, baseline
from ppl.compiler.frontier import Frontier
from ppl.compiler.influence import (
    WORLDS,
    Alignment,
    Analysis,
    Final,
    Influence,
    Order,
    Past,
    Site,
    Sliced,
    Source,
    Stacked,
    Undrawn,
    covered,
    local_sources,
    site_of,
    slice_axis,
    source_lanes,
    stack_axis,
)
from ppl.compiler.learned import ControlVariate
from ppl.compiler.merging import Merged, merged_costs
from ppl.compiler.moving import moving_values
from ppl.compiler.region import Region
from ppl.compiler.relaxing import relax
from ppl.compiler.smoothness import Flow, Kink
from ppl.compiler.strategies.base import (
    Alternatives,
    Strategy,
    follows_path,
    relaxes,
    resolve,
    strategies,
)
from ppl.compiler.strategies.drawn import Drawn
from ppl.compiler.strategies.enumerate import joint_size, support_size
from ppl.compiler.worlds import WorldMap, allocate, loops_around
from ppl.errors import StrategyError, UnsupportedError, suggestion
from ppl.lang.staged import Block, Eqn, Lit, Staged, Var

MAX_SUPPORT = 64
"""A choice with more values is not enumerated unless asked for."""

MAX_WORLDS = 5
"""The planner takes measure-valued derivatives only if this many worlds will do: the actual one
and a few beside it cost about what the four samples of a score choice do, and vary less."""

MAX_STATES = 4096
"""The planner enumerates choices together only up to this many joint values of one cost."""

MAX_STILL = 256
"""The same for a choice that no parameter moves: drawing it needs no gradient strategy either."""

STILL = "no gradient strategy is needed: no parameter moves its distribution"


class CannotEnumerate(StrategyError):
    """An enumeration that is impossible, or too large; `site` is the choice."""

    def __init__(self, site: Eqn, because: str):
        self.site = site
        address = site.params["address"]
        super().__init__(
            "this choice cannot be enumerated",
            address=address,
            where=site.where,
            because=because,
            fix=f"strategies={{'{address}': 'local'}}, which goes through the values of each lane "
            f"and step by itself, given the others; or {{'{address}': 'score'}}",
        )


@dataclass(eq=False)
class Plan:
    """What the compiler does with a staged program.

    Attributes:
        strategies: of each live choice, in program order.
        reasons: why, for people.
        joint: enumerated choices whose lanes are tabulated together.
        charged: all sources whose log-probability some cost is charged with.
        tabulated: all sources over which some cost is tabulated.
        asked: choices whose strategy the user gave.
        refused: choices that get `score` for want of a better strategy, and why.
        kinks: where a reparameterised draw decides something discontinuous.
        merged: costs that are estimated together, by each of them.
        frontiers: where a cost combines the lanes of a choice that has per-lane baselines.
        memories: names of the states of baselines that remember, by cost.
        control_names: names of the states of control variates, by choice.
        worlds: which worlds belong to which choice of kind `"worlds"`.
    """

    staged: Staged
    strategies: dict[Eqn, Strategy]
    reasons: dict[Eqn, str]
    joint: set[Eqn]
    analysis: Analysis
    region: Region
    charged: dict[Source, None] = field(default_factory=dict)
    tabulated: dict[Source, None] = field(default_factory=dict)
    cost_names: dict[Var, str] = field(default_factory=dict)
    kinks: list[Kink] = field(default_factory=list)
    asked: set[Eqn] = field(default_factory=set)
    refused: dict[Eqn, str] = field(default_factory=dict)
    merged: dict[Var, Merged] = field(default_factory=dict)
    frontiers: dict[tuple[Var, Source], Frontier] = field(default_factory=dict)
    memories: dict[tuple[Var, Baseline], str] = field(default_factory=dict)
    control_names: dict[Eqn, str] = field(default_factory=dict)
    worlds: WorldMap = field(default_factory=lambda: WorldMap({}, {}, set()))

    @property
    def sources(self) -> list[Source]:
        """All sources that the costs need, each once, in a fixed order."""
        return list(self.charged | self.tabulated)

    def lane_sizes(self, eqn: Eqn) -> tuple[int, ...]:
        """Sizes of a choice's own lanes."""
        return () if eqn in self.joint else tuple(eqn.params["shape"])

    def baseline(self, var: Var, source: Source) -> Baseline:
        """What is subtracted from a cost before it is charged to a choice."""
        found = baseline(self.strategies[site_of(source)].baseline)
        per_lane = (var, source) in self.frontiers
        return NoBaseline() if per_lane or isinstance(found, ControlVariate) else found

    @property
    def biased(self) -> dict[Eqn, str]:
        """Choices whose strategy is biased, and why."""
        why = {e: getattr(s, "biased", None) for e, s in self.strategies.items()}
        return {e: w for e, w in why.items() if w}

    @property
    def controls(self) -> dict[str, tuple[Eqn, ControlVariate]]:
        """The control variates that learn, by the name of their state."""
        return {n: (e, self.strategies[e].control) for e, n in self.control_names.items()}  # type: ignore

    def controlled(self, block: Block) -> bool:
        """Whether a choice in a block has a control variate."""
        return any(e in self.control_names for e in live_sites(block))

    @property
    def rewritten(self) -> list[Any]:
        """What rewrites did to the program (`ppl.compiler.rewrites`)."""
        return self.staged.rewritten

    def where(self, var: Var) -> str:
        """The source line of a variable."""
        return _where(var)

    def axis_size(self, source: Source) -> int:
        """Length of an enumerated choice's axis, or of that of the worlds."""
        if source is WORLDS:
            return self.worlds.size
        eqn = site_of(source)
        return joint_size(eqn) if eqn in self.joint else support_size(eqn) or 0

    def logp_dtype(self, source: Source) -> Any:
        eqn = site_of(source)
        return jnp.result_type(*(a.aval.dtype for a in eqn.ins)) if eqn.ins else jnp.float32

    def loop_states(self, loop: Eqn) -> list[Past]:
        """The enumerated choices that a loop's state is tabulated over."""
        local = local_sources(loop)
        found: dict[Past, None] = {}
        for influence in self.state_influences(loop):
            found.update(dict.fromkeys(Past(loop, s) for s in influence.axes if local(s)))
        return list(found)

    def state_influences(self, loop: Eqn) -> list[Influence]:
        """What influences the carries that a loop reads; not those that only add up costs."""
        carries = loop.blocks[0].ins
        leaving = self.analysis.states[loop]
        return [i for v, i in zip(carries, leaving, strict=False) if v in self.region.plain]

    def logp_axes(self, source: Source) -> dict[Source, Alignment]:
        """The enumerated choices over which a source's log-probability is tabulated.

        Each with where its lanes run among those of the source.
        """
        match source:
            case Site(eqn):
                return self.analysis.logp_axes(eqn)
            case Stacked(loop, inner):
                local = local_sources(loop)
                inside = self.logp_axes(inner).items()
                return dict(stack_axis(loop, local, a, where) for a, where in inside)
            case Sliced(loop, inner, lane):
                outside = self.logp_axes(inner).items()
                return dict(slice_axis(loop, lane, a, where) for a, where in outside)
            case Past(_, inner) | Final(_, inner):
                return self.logp_axes(inner)
            case Undrawn():
                return {}

    def remembers(self, loop: Eqn, source: Source) -> bool:
        """Whether a choice in a loop depends on the loop's enumerated state."""
        seen: set[Source] = set()
        todo = [source]
        while todo:
            s = todo.pop()
            if isinstance(s, Past) and s.loop is loop:
                return True
            if s not in seen:
                seen.add(s)
                if isinstance(s, Site):
                    todo += self.analysis.logp_axes(s.eqn)
                elif not isinstance(s, Past | Undrawn):
                    todo.append(s.inner)
        return False

    def is_chain(self, source: Source) -> bool:
        """Whether a loop scans the steps of a Markov chain that an earlier loop made, and
        remembers the step before: then it needs transition probabilities, not marginals."""
        if not (isinstance(source, Sliced) and isinstance(source.inner, Stacked)):
            return False
        made = source.inner
        return Past(source.loop, source) in self.loop_states(source.loop) and self.remembers(
            made.loop, made.inner
        )

    def chain_trouble(self, source: Source) -> str | None:
        """Why the transition probabilities of such a chain cannot be had, or `None`."""
        assert isinstance(source, Sliced) and isinstance(source.inner, Stacked)
        made, loop = source.inner, source.loop
        first, second = self.analysis.starts.get(made.loop), self.analysis.starts.get(loop)
        together = [s for s in self.tabulated if isinstance(s, Stacked) and s.loop is made.loop]
        simple = (
            self.loop_states(made.loop) == [Past(made.loop, made.inner)]
            and together == [made]
            and source.lane == 0
            and made.loop.params["reverse"] == loop.params["reverse"]
            and [*(first or {}).values()] == [*(second or {}).values()]
        )
        if simple:
            return None
        return (
            f"the loop at {loop.where} remembers steps of the chain made by the loop at "
            f"{made.loop.where}, and the two loops do not run alike over one state"
        )

    def parents(self, source: Source, factors: Mapping[Source, Any]) -> list[Source]:
        """The enumerated choices that a choice's probabilities depend on."""
        match source:
            case Site(eqn):
                return list(self.analysis.logp_axes(eqn))
            case Sliced(_, inner, _):
                factor = factors[inner]
                return [a for a in factor.table.axes if a not in factor.members]
            case Stacked(loop, inner) | Final(loop, inner):
                local = local_sources(loop)
                above = self.parents(inner, factors)
                return [a for a in above if not local(a) and getattr(a, "loop", None) is not loop]
            case Past() | Undrawn():
                return []

    def made_in(self, block: Block) -> list[Source]:
        """Sources that a block makes for the code after it."""
        out: list[Source] = []
        for eqn in block.eqns:
            if eqn.kind == "site":
                out.append(Site(eqn))
            elif eqn.kind == "scan":
                out += [s for s in self.charged if isinstance(s, Stacked) and s.loop is eqn]
            else:
                for inner in eqn.blocks:
                    out += self.made_in(inner)
        return out


def live_sites(block: Block) -> Iterator[Eqn]:
    """All choices that are not dead code, in program order."""
    for eqn in block.eqns:
        if eqn.kind in ("site", "foreign_site"):
            yield eqn
        for inner in eqn.blocks:
            yield from live_sites(inner)


def make_plan(
    staged: Staged, overrides: Mapping[str, Any], refused: Mapping[Eqn, str] | None = None
) -> Plan:
    """Choose a strategy for every choice.

    Args:
        overrides: strategy by address pattern (`fnmatch`); the first that matches wins.
        refused: choices that get `score` unless the user gave a strategy, and why.

    Raises:
        StrategyError: a pattern matches no choice, a choice cannot have its strategy, or an
            enumeration asked for is impossible or too large.
        UnsupportedError: GenJAX's sampler was called without an address.
    """
    sites = list(live_sites(staged.block))
    asked = _asked(sites, staged.sites, overrides)
    refused = dict(refused or {})
    relax(staged, [e for e in asked if relaxes(resolve(asked[e], e))])
    while True:  # each round moves at least one more planned choice to `score`
        plan = _settle(staged, sites, asked, refused)
        flow = Flow(staged, plan.strategies, plan.region)
        plan.kinks = flow.kinks
        jumps = {k.site: k for k in plan.kinks if k.can_score and k.site not in asked}
        if not jumps:
            _check_supports(plan, flow)
            _find_states(plan)
            return plan
        refused.update(
            (e, f"not reparameterised: '{k.operation}' at {k.where} jumps")
            for e, k in jumps.items()
        )


def _check_supports(plan: Plan, flow: Flow) -> None:
    """The support of a score choice must stay where it is."""
    for eqn, strategy in plan.strategies.items():
        moving = flow.moving_support(eqn) if strategy.kind == "score" else None
        if moving is not None:
            name, address = eqn.params["family"].name, eqn.params["address"]
            raise StrategyError(
                f"the support of {name} moves with its parameter {moving!r}",
                address=address,
                where=eqn.where,
                because=f"{strategy.name!r} differentiates the log-density, and that jumps at the "
                "border of the support: the gradient would be biased",
                fix=f"strategies={{'{address}': 'reparam'}}, or draw on a fixed support and map "
                "the draw (low + (high - low) * uniform())",
            )


def _find_states(plan: Plan) -> None:
    """Find what per-lane baselines need, name the states of all that learns or remembers, and
    which costs can be estimated together."""
    for var, cost_name in plan.cost_names.items():
        for source in covered(plan.analysis.of(var).score):
            found = baseline(plan.strategies[site_of(source)].baseline)
            if isinstance(found, PerLane):
                sizes = source_lanes(source, plan.lane_sizes)
                if frontier := found.frontier(plan.analysis, var, source, sizes):
                    plan.frontiers[var, source] = frontier
            used = plan.baseline(var, source)
            if used.init() is not None and (var, used) not in plan.memories:
                name = f"{cost_name}: {used.name}"
                plan.memories[var, used] = _unused(name, plan.memories.values())
    own = {v for v, _ in (*plan.frontiers, *plan.memories)}  # with a baseline of its own
    plan.merged = merged_costs(
        plan.staged.block, plan.region, plan.analysis, lambda cost: cost in own
    )
    for eqn, strategy in plan.strategies.items():
        if getattr(strategy, "control", None) is not None:
            name = f"{eqn.params['address']}: {strategy.name}"
            plan.control_names[eqn] = _unused(name, plan.control_names.values())


def _unused(name: str, taken: Iterable[str]) -> str:
    """The name, with a number if it is taken."""
    taken, n, free = set(taken), 1, name
    while free in taken:
        n += 1
        free = f"{name} {n}"
    return free


def _settle(
    staged: Staged, sites: list[Eqn], asked: dict[Eqn, Any], refused: dict[Eqn, str]
) -> Plan:
    """The plan, with `score` for what was refused so far and for what cannot be enumerated."""
    chosen, reasons, still = _first_choices(staged, sites, asked, refused)
    joint: set[Eqn] = set()
    while True:
        plan = _draft(staged, chosen, joint)
        if isinstance(plan, Trouble):
            eqn = plan.site
            most = MAX_STILL if eqn in still else MAX_STATES
            if plan.joint_may_help and eqn not in joint and joint_size(eqn) <= most:
                joint.add(eqn)
            elif eqn in still:
                chosen[eqn], reasons[eqn] = Drawn(), f"{STILL}; not enumerated: {plan.because}"
                joint.discard(eqn)
            elif eqn in asked:
                raise CannotEnumerate(eqn, plan.because)
            else:
                chosen[eqn], reasons[eqn] = strategies["score"], f"not enumerated: {plan.because}"
                joint.discard(eqn)
            continue
        compared = [e for e in plan.worlds.slots if e not in asked]
        if not compared or plan.worlds.size <= MAX_WORLDS:
            break
        for eqn in compared:
            chosen[eqn] = strategies["score"]
            reasons[eqn] += f"; {plan.worlds.size} worlds are too many for 'mvd'"
    plan.reasons, plan.asked, plan.refused = reasons, set(asked), dict(refused)
    return plan


def _first_choices(
    staged: Staged, sites: list[Eqn], asked: dict[Eqn, Any], refused: dict[Eqn, str]
) -> tuple[dict[Eqn, Strategy], dict[Eqn, str], set[Eqn]]:
    """Strategies and reasons before anything is known to be wrong with them, and the choices,
    other than those asked for, that no parameter moves."""
    chosen: dict[Eqn, Strategy] = {}
    reasons: dict[Eqn, str] = {}
    for eqn in sites:
        if eqn in asked:
            chosen[eqn], reasons[eqn] = resolve(asked[eqn], eqn), "asked for"
        elif eqn in refused:
            chosen[eqn], reasons[eqn] = strategies["score"], refused[eqn]
        else:
            chosen[eqn], reasons[eqn] = _default(eqn)
    still = _still(staged, chosen) - asked.keys()
    for eqn in still:
        if chosen[eqn].kind != "enum":
            chosen[eqn], reasons[eqn] = Drawn(), STILL
    return chosen, reasons, still


def _still(staged: Staged, chosen: Mapping[Eqn, Strategy]) -> set[Eqn]:
    """The choices whose distribution has no derivative in any parameter of the program."""
    moving = moving_values(staged, lambda eqn: follows_path(chosen[eqn]))
    return {e for e in chosen if moving.isdisjoint(a for a in e.ins if not isinstance(a, Lit))}


def _asked(live: list[Eqn], every: list[Eqn], overrides: Mapping[str, Any]) -> dict[Eqn, Any]:
    """The strategies that the user gave, in the program or by address pattern."""
    for eqn in live:
        if eqn.kind == "foreign_site":
            raise UnsupportedError(
                "GenJAX's own sampler was called without an address",
                where=eqn.where,
                because="its draw has no log-density or gradient that the compiler could use",
                fix='use it at an address in a program, genjax.normal(0.0, 1.0) @ "x", or '
                "ppl's distributions",
            )
    asked = {e: e.params["strategy"] for e in live if e.params["strategy"] is not None}
    addresses = [e.params["address"] for e in every if e.kind == "site"]
    for pattern in overrides:
        if not any(fnmatchcase(a, pattern) for a in addresses):
            raise StrategyError(
                f"the strategy pattern {pattern!r} matches no choice",
                because=suggestion(pattern, addresses),
                fix="patterns are matched against whole addresses: 'guide/z', 'guide/*', '*'",
            )
    for eqn in live:
        for pattern, strategy in overrides.items():
            if fnmatchcase(eqn.params["address"], pattern):
                asked[eqn] = strategy
                break
    return asked


def _default(eqn: Eqn) -> tuple[Strategy, str]:
    """The planner's first choice."""
    family = eqn.params["family"]
    if family.reparam and family.plan_reparam:
        return strategies["reparam"], f"{eqn.params['family'].reparam} reparameterisation"
    size = support_size(eqn)
    if size is not None and size <= MAX_SUPPORT:
        return strategies["enum"], f"{size} values"
    why = "the support has no finite list" if size is None else f"{size} values are too many"
    few = strategies["mvd"].refusal(eqn) is None
    return strategies["mvd" if few else "score"], why


@dataclass(frozen=True)
class Trouble:
    """A choice that cannot be enumerated as it is.

    Attributes:
        joint_may_help: whether it may be possible with one table over all of its lanes.
    """

    site: Eqn
    because: str
    joint_may_help: bool = False


def _draft(staged: Staged, chosen: Mapping[Eqn, Strategy], joint: set[Eqn]) -> Plan | Trouble:
    """The plan for these strategies, or the first thing that is wrong with it."""
    analysis = Analysis(
        staged.block,
        lambda e: chosen[e].kind,
        lambda e: 0 if e in joint else len(e.params["shape"]),
    )
    region = Region(staged.block, analysis)
    plan = Plan(staged, dict(chosen), {}, joint, analysis, region)
    checks = (
        _remembered_states,
        _mixed_lanes,
        _mixed_parents,
        _large_tables,
        _mixed_states,
    )
    for check in checks:
        for trouble in check(plan):
            return trouble
    _collect(plan)
    plan.worlds = _allocate(plan)
    return next(_broken_chains(plan), plan)


def _allocate(plan: Plan) -> WorldMap:
    """The worlds of the choices that have alternatives."""
    moves = lambda eqn: follows_path(plan.strategies[eqn])
    unplaced = WorldMap({}, {}, moving_values(plan.staged, moves))
    requests = {
        eqn: cast(Alternatives, strategy).request(eqn, unplaced.moving_names(eqn))
        for eqn, strategy in plan.strategies.items()
        if strategy.kind == "worlds"
    }
    loops = dict(loops_around(plan.staged.block))
    slots = allocate(plan.analysis, [*plan.region.costs], requests, plan.lane_sizes, loops)
    return WorldMap(slots, requests, unplaced.moving)


def _remembered_states(plan: Plan) -> Iterator[Trouble]:
    """Loops whose state depends on the enumerated choices of more than one step."""
    for loop in plan.analysis.states:
        for influence in plan.state_influences(loop):
            for source in influence.axes:
                if isinstance(source, Past) and source.loop is loop:
                    because = (
                        f"the loop at {loop.where} remembers it over many steps, so its state "
                        "would grow with each step"
                    )
                    yield Trouble(site_of(source), because)


def _mixed_lanes(plan: Plan) -> Iterator[Trouble]:
    """Costs that depend on several lanes of a choice at once."""
    for var in plan.region.costs:
        for source, alignment in plan.analysis.of(var).axes.items():
            if _mixes(plan, source, alignment):
                because = f"the cost at {_where(var)} combines its lanes"
                yield Trouble(site_of(source), because, not isinstance(source, Stacked))


def _mixed_parents(plan: Plan) -> Iterator[Trouble]:
    """Enumerated choices whose probabilities depend on several lanes of another at once."""
    for eqn, params in plan.analysis.params_of.items():
        if plan.strategies[eqn].kind != "enum":
            continue
        for source, alignment in params.axes.items():
            where = tuple(None for _ in alignment) if eqn in plan.joint else alignment
            if _mixes(plan, source, where):
                because = f"the probabilities of {eqn.params['address']} combine its lanes"
                yield Trouble(site_of(source), because, not isinstance(source, Stacked))


def _large_tables(plan: Plan) -> Iterator[Trouble]:
    """Costs that depend on too many choices at once."""
    for var in plan.region.costs:
        axes = [s for s in plan.analysis.of(var).axes if s is not WORLDS]
        states = math.prod(plan.axis_size(s) for s in axes)
        if states > MAX_STATES and len(axes) > 1:
            because = f"the cost at {_where(var)} has {states} joint states"
            yield Trouble(site_of(next(iter(axes))), because)


def _mixed_states(plan: Plan) -> Iterator[Trouble]:
    """Loops whose state depends on several lanes of a choice at once."""
    for loop in plan.analysis.states:
        states = {s.inner for s in plan.loop_states(loop)}
        for influence in plan.state_influences(loop):
            for source, alignment in influence.axes.items():
                if source in states and _mixes(plan, source, alignment):
                    because = f"the state of the loop at {loop.where} combines its lanes"
                    yield Trouble(site_of(source), because, True)


def _broken_chains(plan: Plan) -> Iterator[Trouble]:
    """Loops over the steps of an enumerated chain that do not run as the chain was made."""
    for source in plan.tabulated:
        if plan.is_chain(source) and (because := plan.chain_trouble(source)):
            yield Trouble(site_of(source), because)


def _mixes(plan: Plan, source: Source, alignment: Alignment) -> bool:
    sizes = source_lanes(source, plan.lane_sizes)
    return any(
        n > 1 and (e is None or e.order is not Order.EXACT)
        for n, e in zip(sizes, alignment, strict=True)
    )


def _where(var: Var) -> str:
    return var.eqn.where if var.eqn is not None else "a loop's input"


def _collect(plan: Plan) -> None:
    """Find all log-probabilities and probability tables that the costs need."""
    score: list[Source] = []
    axes: list[Source] = []
    for i, var in enumerate(plan.region.costs):
        plan.cost_names[var] = f"cost {i + 1}"
        influence = plan.analysis.of(var)
        score += covered(influence.score)
        axes += influence.axes
    while score:
        source = score.pop()
        if source not in plan.charged:
            plan.charged[source] = None
            if not isinstance(source, Site | Undrawn):
                score.append(source.inner)
            # A score choice drawn per value of an enumerated one brings that axis along.
            axes += plan.logp_axes(source)
    while axes:
        source = axes.pop()
        if source not in plan.tabulated and not isinstance(source, Undrawn):
            plan.tabulated[source] = None
            if isinstance(source, Site):
                axes += plan.analysis.logp_axes(source.eqn)
            else:
                axes.append(source.inner)
            if isinstance(source, Past | Final):
                axes += plan.loop_states(source.loop)
                axes += plan.analysis.starts.get(source.loop, {}).values()
