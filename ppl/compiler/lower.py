"""Lowering: from a staged program and a plan to an ordinary JAX function.

The function's value is an unbiased estimate of the objective, and its derivative an unbiased
estimate of the gradient. Nothing probabilistic is left: draws come from a key, enumerated
choices are array axes, score choices are boxes around the costs that they influence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl import _compat
from ppl.compiler import boxes
from ppl.compiler.influence import (
    Alignment,
    Along,
    Final,
    Order,
    Past,
    Site,
    Sliced,
    Source,
    Stacked,
    covered,
    local_sources,
    site_of,
    source_lanes,
)
from ppl.compiler.plan import Plan
from ppl.compiler.strategies.base import Choice
from ppl.compiler.tables import (
    Conflict,
    Factor,
    Val,
    batched,
    contract,
    lay_along,
    spread,
    union,
    weights,
)
from ppl.errors import StrategyError
from ppl.lang.primitives import log_density_values
from ppl.lang.seed import Keys, draw_counts
from ppl.lang.staged import Atom, Block, Eqn, Lit, Var


@dataclass(eq=False)
class Frame:
    """What a block sees: log-probabilities and probability tables of the draws so far."""

    keys: Keys
    logp: dict[Source, Val] = field(default_factory=dict)
    factors: dict[Source, Factor] = field(default_factory=dict)
    joints: dict[Any, Array] = field(default_factory=dict)
    """probability tables computed so far in this block"""
    transitions: dict[Source, Factor] = field(default_factory=dict)
    """of Markov chains made by earlier loops: each step's table given the step before"""

    def inside(self, keys: Keys) -> Frame:
        return Frame(
            keys, dict(self.logp), dict(self.factors), dict(self.joints), self.transitions
        )


class Lowering:
    """One run of a planned program over arrays (concrete or traced).

    Args:
        env: values of the program's inputs and parameters.
        num_samples: size of the vmapped axis `boxes.SAMPLES` around this run (1: no such axis).
        baselines: running-mean baselines of the cost terms, by name.
        probe: observe, for each log-density and cost, which part of its entries is not finite.
    """

    def __init__(
        self,
        plan: Plan,
        env: Mapping[Var, Any],
        num_samples: int,
        baselines: Mapping[str, Array] | None = None,
        probe: bool = False,
    ):
        self.plan, self.num_samples = plan, num_samples
        self.analysis, self.region = plan.analysis, plan.region
        self.env: dict[Var, Val] = {v: Val(x) for v, x in env.items()}
        self.boxed: dict[Var, Array] = {}
        self.baselines, self.probe = baselines or {}, probe
        self.seen: dict[str, Array] = {}
        """numbers observed on the way, averaged over the steps of loops: the mean of each cost
        that has a running-mean baseline; with `probe`, shares of entries that are not finite"""

    def run(self, key: jax.Array) -> list[Array]:
        """Estimates of the program's results."""
        block = self.plan.staged.block
        frame = Frame(Keys(key))
        self.block(block, frame)
        return [self.estimate_of(a) for a in block.outs]

    # ------------------------------------------------------------------------------ values

    def read(self, atom: Atom) -> Val:
        return Val(atom.val) if isinstance(atom, Lit) else self.env[atom]

    def estimate_of(self, atom: Atom) -> Array:
        """The estimate of a variable of the additive region."""
        if isinstance(atom, Var) and atom in self.boxed:
            return self.boxed[atom]
        return self.read(atom).array

    def block(self, block: Block, frame: Frame) -> None:
        for var in block.ins:
            self._estimate(var, frame)
        for eqn in block.eqns:
            rule = _rules.get(eqn.kind)
            if rule is not None:
                rule(self, eqn, frame)
            elif any(v in self.region.plain for v in eqn.outs) or not eqn.outs:
                self._plain(eqn)
            for var in eqn.outs:
                self._estimate(var, frame)

    def _plain(self, eqn: Eqn) -> None:
        vals = [self.read(a) for a in eqn.ins]
        outs = batched(lambda *xs: _compat.bind_eqn(eqn.jax_eqn, xs), vals)
        self.env.update(zip(eqn.outs, outs, strict=True))

    def _log_density(self, eqn: Eqn, frame: Frame) -> None:
        if eqn.outs[0] in self.region.plain:
            vals = [self.read(a) for a in eqn.ins]
            outs = batched(lambda *xs: [log_density_values(*xs, **eqn.params)], vals)
            self.env[eqn.outs[0]] = outs[0]
            self._probe(eqn.params["address"], outs[0])

    def _probe(self, name: str, val: Val) -> None:
        """Observe the share of entries that are not finite."""
        if self.probe:
            # Minus infinity is right for an impossible value of an enumerated choice.
            bad = ~jnp.isfinite(val.array) & ((val.array != -jnp.inf) | (not val.axes))
            self.seen[name] = self.seen.get(name, 0.0) + jnp.mean(bad.astype(float))

    def _site(self, eqn: Eqn, frame: Frame) -> None:
        source, plan = Site(eqn), self.plan
        new_key = frame.keys.next(eqn)
        if eqn.outs[0] not in self.region.plain:
            return
        joint = eqn in plan.joint

        def publish_factor(table: Val) -> None:
            parents = self.analysis.params_of[eqn].axes
            lanes = {s: tuple(None for _ in a) if joint else a for s, a in parents.items()}
            lanes[source] = tuple(Along(i) for i in range(len(table.shape)))
            frame.factors[source] = Factor(table, (source,), lanes)

        choice = Choice(
            eqn,
            source,
            [self.read(a) for a in eqn.ins],
            new_key,
            joint,
            lambda logp: frame.logp.__setitem__(source, logp),
            publish_factor,
        )
        self.env[eqn.outs[0]] = plan.strategies[eqn].lower(choice)

    # ---------------------------------------------------------------------------- estimates

    def _estimate(self, var: Var, frame: Frame) -> None:
        """Compute the estimate of a region variable as soon as it can be."""
        if var not in self.region.boxed:
            return
        if var in self.region.costs:
            self.boxed[var] = self._cost(var, frame)
        elif var in self.region.parts and not var.eqn.blocks:
            parts = set(self.region.parts[var])
            args = [self.estimate_of(a) if a in parts else self.read(a).array for a in var.eqn.ins]
            outs = _compat.bind_eqn(var.eqn.jax_eqn, args)
            self.boxed[var] = outs[var.eqn.outs.index(var)]

    def _cost(self, var: Var, frame: Frame) -> Array:
        """A cost term: charged to the score choices, averaged over the enumerated ones."""
        cost, influence = self.env[var], self.analysis.of(var)
        cost = Val(jnp.asarray(cost.array), cost.axes)
        self._probe(f"the cost at {self.plan.where(var)}", cost)
        ndim = len(cost.shape)
        charges: dict[tuple[str, tuple[Source, ...]], list[Val]] = {}
        for source, alignment in covered(influence.score).items():
            logp = frame.logp[source]
            laid = lay_along(logp.array, len(logp.axes), alignment, ndim)
            baseline = self.plan.strategies[site_of(source)].baseline
            charges.setdefault((baseline, logp.axes), []).append(Val(laid, logp.axes))
        axes = union([cost, *(v for group in charges.values() for v in group)])
        wanted = {
            s: tuple(e if e is not None and e.order is Order.EXACT else None for e in a)
            for s, a in influence.axes.items()
        }
        for axis in axes:  # a charge's own axes run along no lane of the cost
            wanted.setdefault(axis, ())
        joint = self._joint(axes, wanted, ndim, frame, var) if axes else None
        level = spread(cost, axes)
        boxed = level
        for (baseline, given), group in charges.items():
            base = self._baseline(baseline, var, _expected(level, axes, given, joint))
            boxed = boxes.box(boxed, level, base, spread(_total(group), axes))
        return boxed if joint is None else contract(boxed, joint, len(axes))

    def _joint(
        self,
        axes: tuple[Source, ...],
        wanted: Mapping[Source, Alignment],
        ndim: int,
        frame: Frame,
        var: Var,
    ) -> Array:
        """Joint probabilities of enumerated choices that a cost is averaged over."""
        try:
            self._check_sites(axes)
            return weights(axes, wanted, ndim, frame.factors, frame.joints)
        except Conflict as conflict:
            raise self.refuse(conflict, var) from conflict

    def _check_sites(self, axes: Sequence[Source]) -> None:
        """The same choice seen in two unrelated ways cannot be tabulated twice."""
        by_site: dict[Eqn, Source] = {}
        for source in axes:
            plain = _without_past(source)
            if by_site.setdefault(site_of(source), plain) != plain:
                raise Conflict(source, "a value combines two different steps of it")
        for loop, starts in self.analysis.starts.items():
            ended = any(isinstance(s, Final | Stacked) and s.loop is loop for s in axes)
            if ended and not set(starts.values()).isdisjoint(axes):
                raise Conflict(axes[0], "a value combines a loop's first and later states")

    def refuse(self, conflict: Conflict, var: Var) -> StrategyError:
        eqn = site_of(conflict.source)
        cost = self.plan.where(var)
        return StrategyError(
            "this choice cannot be enumerated here",
            address=eqn.params["address"],
            where=eqn.where,
            because=f"{conflict.because}, in the cost at {cost}",
            fix="strategies={'%s': 'score'}" % eqn.params["address"],
        )

    def _baseline(self, kind: str, var: Var, expected: Array) -> Array:
        """What is subtracted from a cost before it is charged.

        Args:
            expected: the cost, averaged over the enumerated choices that come after the draws
                to be charged; their probabilities may depend on those draws.
        """
        if kind == "leave_one_out" and self.num_samples > 1:
            return boxes.leave_one_out(expected, self.num_samples)
        if kind == "running_mean":
            name = self.plan.cost_names[var]
            self.seen[name] = jnp.mean(lax.stop_gradient(expected))
            return self.baselines[name].astype(expected.dtype)
        return jnp.zeros((), expected.dtype)

    # ---------------------------------------------------------------------- control flow

    def _checkpoint(self, eqn: Eqn, frame: Frame) -> None:
        inner = eqn.blocks[0]
        made: list[Any] = []

        def run() -> list[Array]:
            child = frame.inside(frame.keys.inside(eqn))
            self.block(inner, child)
            made[:] = self._exports(child, frame, inner, eqn)
            return [export.array for export in made]

        arrays = jax.checkpoint(run)()
        frame.keys.skip(eqn)
        for export, array in zip(made, arrays, strict=True):
            export.put(array)

    def _exports(self, child: Frame, frame: Frame, inner: Block, eqn: Eqn) -> list[_Export]:
        """All that a block made which the code after it can see."""
        out: list[_Export] = []
        for var, atom in zip(eqn.outs, inner.outs, strict=True):
            if var in self.region.plain:
                val = self.read(atom)
                out.append(_Export(jnp.asarray(val.array), _put_val(self.env, var, val.axes)))
            if var in self.region.boxed:
                out.append(_Export(self.estimate_of(atom), _put(self.boxed, var)))
        for source, logp in child.logp.items():
            if source not in frame.logp:
                out.append(_Export(logp.array, _put_val(frame.logp, source, logp.axes)))
        for source, factor in child.factors.items():
            if source not in frame.factors:
                out.append(_Export(factor.table.array, _put_factor(frame, source, factor)))
        for name, mean in self.seen.items():
            out.append(_Export(mean, _put(self.seen, name)))
        return out

    def _cond(self, eqn: Eqn, frame: Frame) -> None:
        index = self.read(eqn.ins[0])
        tabulated = index.axes or any(self.analysis.of(v).axes for v in eqn.outs)
        (self._select if tabulated else self._switch)(eqn, index, frame)
        frame.keys.skip(eqn)

    def _switch(self, eqn: Eqn, index: Val, frame: Frame) -> None:
        """Run only the branch taken; a branch not taken contributes no log-probability."""
        wanted = [i for i, v in enumerate(eqn.outs) if v in self.region.plain]
        exported = [s for b in eqn.blocks for s in self.plan.made_in(b) if s in self.plan.charged]

        def branch(block: Block) -> Callable[[], Any]:
            def run() -> Any:
                child, seen = frame.inside(frame.keys.inside(eqn)), dict(self.seen)
                self.block(block, child)
                self.seen = seen  # what a branch observed does not leave it
                outs = [jnp.asarray(self.read(block.outs[i]).array) for i in wanted]
                logps = [
                    child.logp[s].array if s in child.logp else self._no_logp(s) for s in exported
                ]
                return outs, logps

            return run

        outs, logps = lax.switch(index.array, [branch(b) for b in eqn.blocks])
        self.env.update((eqn.outs[i], Val(x)) for i, x in zip(wanted, outs, strict=True))
        frame.logp.update((s, Val(x)) for s, x in zip(exported, logps, strict=True))

    def _no_logp(self, source: Source) -> Array:
        lanes = source_lanes(source, self.plan.lane_sizes)
        return jnp.zeros(lanes, self.plan.logp_dtype(source))

    def _select(self, eqn: Eqn, index: Val, frame: Frame) -> None:
        """Run all branches and select: the index differs between enumerated values."""
        children = []
        for block in eqn.blocks:
            child = frame.inside(frame.keys.inside(eqn))
            self.block(block, child)
            children.append(child)
        for i, var in enumerate(eqn.outs):
            if var in self.region.plain:
                cases = [self.read(b.outs[i]) for b in eqn.blocks]
                self.env[var] = batched(
                    lambda k, *xs: [lax.select_n(_as_index(k, len(xs)), *xs)], [index, *cases]
                )[0]
        where = self.analysis.of(eqn.ins[0]).axes
        for i, child in enumerate(children):
            taken = batched(lambda k, i=i: [k.astype(jnp.int32) == i], [index])[0]
            for source, logp in child.logp.items():
                if source not in frame.logp:
                    frame.logp[source] = batched(
                        lambda t, x: [jnp.where(t, x, 0)], [taken, logp]
                    )[0]
            for source, factor in child.factors.items():
                if source not in frame.factors:
                    frame.factors[source] = _only_if(taken, factor, where)

    def _scan(self, eqn: Eqn, frame: Frame) -> None:
        _Loop(self, eqn, frame).run()


def _as_index(k: Array, cases: int) -> Array:
    return k.astype(bool) if cases == 2 else k.astype(jnp.int32)


def _only_if(taken: Val, factor: Factor, where: Mapping[Source, Alignment]) -> Factor:
    """A factor whose choice is made only where `taken`; elsewhere any distribution will do."""
    sizes = [factor.table.array.shape[factor.table.axes.index(m)] for m in factor.members]
    size = 1
    for n in sizes:
        size *= n
    table = batched(lambda t, p: [jnp.where(t, p, 1 / size)], [taken, factor.table])[0]
    return Factor(table, factor.members, {**where, **factor.lanes})


def _expected(
    cost: Array, axes: tuple[Source, ...], given: tuple[Source, ...], joint: Array | None
) -> Array:
    """Conditional expectation of a tabulated cost given some of the choices, as a constant."""
    if joint is None:
        return lax.stop_gradient(cost)
    over = tuple(i for i, a in enumerate(axes) if a not in given)
    weight = lax.stop_gradient(joint)
    value = jnp.where(weight > 0, lax.stop_gradient(cost), 0)
    share = jnp.sum(weight, over, keepdims=True)
    return jnp.sum(weight * value, over, keepdims=True) / jnp.where(share > 0, share, 1)


def _total(vals: Sequence[Val]) -> Val:
    axes = union(vals)
    total = spread(vals[0], axes)
    for val in vals[1:]:
        total = total + spread(val, axes)
    return Val(total, axes)


def _without_past(source: Source) -> Source:
    """A choice and its loop state belong together."""
    if isinstance(source, Past):
        return _without_past(source.inner)
    if isinstance(source, Stacked):
        return Stacked(source.loop, _without_past(source.inner))
    return source


@dataclass(frozen=True, eq=False)
class _Export:
    """An array that leaves a block, and where to put it outside."""

    array: Array
    put: Callable[[Array], None]


def _put(table: dict[Any, Any], name: Any) -> Callable[[Array], None]:
    return lambda array: table.__setitem__(name, array)


def _put_val(
    table: dict[Any, Val], name: Any, axes: tuple[Source, ...]
) -> Callable[[Array], None]:
    return lambda array: table.__setitem__(name, Val(array, axes))


def _put_factor(frame: Frame, source: Source, factor: Factor) -> Callable[[Array], None]:
    def put(array: Array) -> None:
        frame.factors[source] = Factor(
            Val(array, factor.table.axes), factor.members, factor.lanes
        )

    return put


# -------------------------------------------------------------------------------------- loops


class _Loop:
    """Lowers one `scan`.

    Beside the loop's own carries it carries: estimates of summed costs, the log-probabilities
    of earlier steps that later costs are charged with, and, if its state is enumerated, the
    probabilities of the state (the forward recursion).
    """

    def __init__(self, lowering: Lowering, eqn: Eqn, frame: Frame):
        self.low, self.eqn, self.frame = lowering, eqn, frame
        plan, region = lowering.plan, lowering.region
        self.body, self.n = eqn.blocks[0], eqn.params["num_carry"]
        n, body = self.n, self.body
        self.plain_carry = [i for i in range(n) if body.ins[i] in region.plain]
        self.sums = sorted(region.summed.get(eqn, ()))
        self.plain_xs = [i for i in range(n, len(body.ins)) if body.ins[i] in region.plain]
        self.plain_ys = [i for i in range(n, len(eqn.outs)) if eqn.outs[i] in region.plain]
        self.boxed_ys = [i for i in range(n, len(eqn.outs)) if eqn.outs[i] in region.boxed]
        mine = [s for s in plan.sources if getattr(s, "loop", None) is eqn]
        self.pasts = [s for s in mine if isinstance(s, Past) and s in plan.charged]
        ages = {s: i for i, s in enumerate([*frame.factors, *frame.logp])}
        self.slices = [s for s in mine if isinstance(s, Sliced)]
        self.slices.sort(key=lambda s: ages[s.inner])
        self.stacked = [s for s in mine if isinstance(s, Stacked) and s in plan.charged]
        self.tabled = [s for s in mine if isinstance(s, Stacked) and s in plan.tabulated]
        chains = {s.inner for s in plan.tabulated if plan.is_chain(s)}
        self.chains = [s for s in self.tabled if s in chains]
        self.states = plan.loop_states(eqn)
        self.draws = bool(draw_counts(body))

    # ------------------------------------------------------------------------------ before

    def run(self) -> None:
        eqn, low, frame = self.eqn, self.low, self.frame
        self.given = self._given()
        self.entry_axes = {i: self._entry_axes(i) for i in self.plain_carry}
        self.slice_factors = {}
        carry = dict(
            plain=[self._initial_carry(i) for i in self.plain_carry],
            sums=[
                jnp.asarray(low.estimate_of(eqn.ins[i]), self.body.ins[i].aval.dtype)
                for i in self.sums
            ],
            pasts=[self._no_past(s) for s in self.pasts],
            state=self._initial_state() if self.states else None,
        )
        xs = dict(
            step=self._steps() if self.draws else None,
            plain=[jnp.moveaxis(*self._scanned(i)) for i in self.plain_xs],
            slices=[self._slice(s) for s in self.slices],
        )
        self.made: dict[str, Any] = {}
        carry, ys = lax.scan(
            self._step,
            carry,
            xs,
            length=eqn.params["length"],
            reverse=eqn.params["reverse"],
            unroll=eqn.params["unroll"],
        )
        frame.keys.skip(eqn)
        self._finish(carry, ys)

    def _steps(self) -> Array:
        steps = jnp.arange(self.eqn.params["length"])
        return steps[::-1] if self.eqn.params["reverse"] else steps

    def _scanned(self, i: int) -> tuple[Array, int, int]:
        """A scanned array, with its enumerated axes behind the axis that is scanned."""
        val = self.low.read(self.eqn.ins[i])
        return jnp.asarray(val.array), len(val.axes), 0

    def _entry_axes(self, i: int) -> tuple[Source, ...]:
        axes = self.low.analysis.env[self.body.ins[i]].axes if self._influenced(i) else {}
        return tuple(sorted(axes, key=self._order))

    def _influenced(self, i: int) -> bool:
        return self.body.ins[i] in self.low.analysis.env

    def _order(self, source: Source) -> tuple[int, str]:
        return self.states.index(source) if source in self.states else len(self.states), repr(
            source
        )

    def _initial_carry(self, i: int) -> Array:
        """A carry's first value, with the enumerated axes that it has in every step."""
        val = self.low.read(self.eqn.ins[i])
        starts = self.low.analysis.starts.get(self.eqn, {})
        back = {start: state for state, start in starts.items()}
        renamed = Val(jnp.asarray(val.array), tuple(back.get(a, a) for a in val.axes))
        axes, aval = self.entry_axes[i], self.body.ins[i].aval
        sizes = [self.low.plan.axis_size(a) for a in axes]
        return jnp.broadcast_to(spread(renamed, axes), (*sizes, *aval.shape)).astype(aval.dtype)

    def _no_past(self, past: Past) -> Array:
        """The log-probability of no steps."""
        source = past.inner
        axes = self._past_axes(past)
        sizes = [self.low.plan.axis_size(a) for a in axes]
        lanes = source_lanes(source, self.low.plan.lane_sizes)
        return jnp.zeros((*sizes, *lanes), self.low.plan.logp_dtype(source))

    def _past_axes(self, past: Past) -> tuple[Source, ...]:
        axes = self.low.analysis.params_of[site_of(past)].axes
        local = local_sources(self.eqn)
        for axis in axes:
            if local(axis) or isinstance(axis, Past) and axis.loop is self.eqn:
                site = site_of(past)
                raise StrategyError(
                    "a score choice below an enumerated one is remembered by a loop",
                    address=site.params["address"],
                    where=site.where,
                    because=f"its distribution depends on the enumerated choice {axis!r}, and "
                    f"the loop at {self.eqn.where} carries what depends on it to later steps",
                    fix="use 'reparam' for this choice, or 'score' for the enumerated one",
                )
        return tuple(axes)

    def _given(self) -> tuple[Source, ...]:
        """Outer enumerated choices that the state's probabilities depend on."""
        if not self.states:
            return ()
        local, seen = local_sources(self.eqn), set()
        given: dict[Source, None] = {}
        todo = [s.inner for s in self.states]
        starts = self.low.analysis.starts.get(self.eqn, {})
        for start in starts.values():
            factor = self.frame.factors[start]
            given.update(dict.fromkeys(a for a in factor.table.axes if a not in factor.members))
        while todo:
            source = todo.pop()
            if source in seen:
                continue
            seen.add(source)
            for parent in self.low.plan.parents(source, self.frame.factors):
                if isinstance(parent, Past) and parent.loop is self.eqn:
                    continue
                if local(parent):
                    todo.append(parent)
                else:
                    given[parent] = None
        return tuple(given)

    def _state_lanes(self) -> tuple[int, ...]:
        return max(
            (source_lanes(s, self.low.plan.lane_sizes) for s in self.states), key=len, default=()
        )

    def _initial_state(self) -> Array:
        """`[*given, *states, *lanes]`: the state's probabilities before the first step."""
        plan, lanes = self.low.plan, self._state_lanes()
        axes = (*self.given, *self.states)
        starts = self.low.analysis.starts.get(self.eqn)
        if starts:
            wanted = {s: self._lanes_of(s) for s in starts.values()}
            order = tuple(starts[s] for s in self.states)
            table = self._weights((*self.given, *order), wanted, self.frame, len(lanes))
        else:
            # A known start: all entries of the table are equal, and one of them has weight 1.
            table = jnp.ones(())
            for state in self.states:
                table = table[..., None] * (jnp.arange(plan.axis_size(state)) == 0)
            table = jnp.reshape(
                table, (*(1,) * len(self.given), *table.shape, *(1,) * len(lanes))
            )
        sizes = [plan.axis_size(a) for a in axes]
        return jnp.broadcast_to(table, (*sizes, *lanes)).astype(plan.logp_dtype(self.states[0]))

    def _lanes_of(self, source: Source) -> Alignment:
        return tuple(
            Along(i) for i in range(len(source_lanes(source, self.low.plan.lane_sizes)))
        )

    def _weights(
        self, axes: tuple[Source, ...], wanted: dict[Source, Alignment], frame: Frame, ndim: int
    ) -> Array:
        """Joint probability of `axes` given the outer choices `self.given`."""

        ones = {
            g: Factor(Val(jnp.ones(self.low.plan.axis_size(g)), (g,)), (g,), {g: ()})
            for g in self.given
        }
        try:
            wanted = {**{g: () for g in self.given}, **wanted}
            return weights(axes, wanted, ndim, {**frame.factors, **ones}, {})
        except Conflict as conflict:
            raise self.low.refuse(conflict, self.body.outs[0]) from conflict

    def _slice(self, source: Sliced) -> Array:
        """What each step sees of an outer choice's log-probability or probabilities."""
        if source in self.low.plan.tabulated:
            chain = self.low.plan.is_chain(source)
            known = self.frame.transitions if chain else self.frame.factors
            factor = known[source.inner]
            lane = factor.lanes[source.inner][source.lane].axis
            self.slice_factors[source] = (factor, lane)
            return jnp.moveaxis(factor.table.array, len(factor.table.axes) + lane, 0)
        logp = self.frame.logp[source.inner]
        return jnp.moveaxis(logp.array, len(logp.axes) + source.lane, 0)

    # -------------------------------------------------------------------------------- step

    def _step(self, carry: dict[str, Any], x: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        low, body, n = self.low, self.body, self.n
        frame = self.frame.inside(self.frame.keys.inside(self.eqn, 0 if x["step"] is None else x["step"]))
        for i, array in zip(self.plain_carry, carry["plain"], strict=True):
            low.env[body.ins[i]] = Val(array, self.entry_axes[i])
        for i, array in zip(self.plain_xs, x["plain"], strict=True):
            low.env[body.ins[i]] = Val(array, self._sliced_axes(i))
        for i, array in zip(self.sums, carry["sums"], strict=True):
            low.boxed[body.ins[i]] = array
        for past, array in zip(self.pasts, carry["pasts"], strict=True):
            frame.logp[past] = Val(array, self._past_axes(past))
        # Parents first: the joint probabilities are built from the newest choice back.
        if self.states:
            self._publish_state(frame, carry["state"], self.states)
        for source, array in zip(self.slices, x["slices"], strict=True):
            self._publish_slice(frame, source, array)
        low.block(body, frame)
        after = dict(
            plain=[self._leaving(i) for i in self.plain_carry],
            sums=[
                jnp.asarray(low.estimate_of(body.outs[i]), body.ins[i].aval.dtype)
                for i in self.sums
            ],
            pasts=[
                a + frame.logp[p.inner].array
                for a, p in zip(carry["pasts"], self.pasts, strict=True)
            ],
            state=self._next_state(frame) if self.states else None,
        )
        return after, self._outputs(frame)

    def _sliced_axes(self, i: int) -> tuple[Source, ...]:
        """An outer choice whose lane is scanned is, in a step, the slice of it."""
        val = self.low.read(self.eqn.ins[i])
        seen = self.low.analysis.of(self.body.ins[i]).axes
        back = {s.inner: s for s in seen if isinstance(s, Sliced) and s.loop is self.eqn}
        return tuple(back.get(a, a) for a in val.axes)

    def _publish_slice(self, frame: Frame, source: Sliced, array: Array) -> None:
        if source not in self.slice_factors:
            frame.logp[source] = Val(array, self.frame.logp[source.inner].axes)
            return
        factor, lane = self.slice_factors[source]

        def rest(s: Source, alignment: Alignment) -> tuple[Source, Alignment]:
            if isinstance(s, Past):  # a chain's step before: what this loop remembers
                return Past(self.eqn, source), rest(source.inner, factor.lanes[source.inner])[1]
            at = next((i for i, e in enumerate(alignment) if e is not None and e.axis == lane), -1)
            moved = tuple(
                Along(e.axis - (e.axis > lane)) if e is not None else None
                for i, e in enumerate(alignment)
                if i != at
            )
            return (Sliced(self.eqn, s, at) if at >= 0 else s), moved

        lanes = dict(rest(s, a) for s, a in factor.lanes.items())
        names = {s: rest(s, a)[0] for s, a in factor.lanes.items()}
        axes = tuple(names[a] for a in factor.table.axes)
        members = tuple(names[m] for m in factor.members)
        frame.factors[source] = Factor(Val(array, axes), members, lanes)

    def _publish_state(self, frame: Frame, table: Array, names: Sequence[Source]) -> None:
        """Make the state's probabilities known under the given names."""
        factor = Factor(
            Val(table, (*self.given, *names)),
            tuple(names),
            {
                **{g: () for g in self.given},
                **{
                    name: self._lanes_of(state)
                    for name, state in zip(names, self.states, strict=True)
                },
            },
        )
        frame.factors.update(dict.fromkeys(names, factor))

    def _leaving(self, i: int) -> Array:
        """A carry at the end of a step: this step's choices become the past."""
        val = self.low.read(self.body.outs[i])
        local = local_sources(self.eqn)
        renamed = Val(
            jnp.asarray(val.array),
            tuple(Past(self.eqn, a) if local(a) else a for a in val.axes),
        )
        axes, aval = self.entry_axes[i], self.body.ins[i].aval
        sizes = [self.low.plan.axis_size(a) for a in axes]
        return jnp.broadcast_to(spread(renamed, axes), (*sizes, *aval.shape)).astype(aval.dtype)

    def _next_state(self, frame: Frame) -> Array:
        now = tuple(s.inner for s in self.states)
        wanted = {s: self._lanes_of(s) for s in now}
        lanes = self._state_lanes()
        table = self._weights((*self.given, *now), wanted, frame, len(lanes))
        sizes = [self.low.plan.axis_size(a) for a in (*self.given, *now)]
        dtype = self.low.plan.logp_dtype(self.states[0])
        return jnp.broadcast_to(table, (*sizes, *lanes)).astype(dtype)

    def _outputs(self, frame: Frame) -> dict[str, Any]:
        low, body = self.low, self.body
        plain = [low.read(body.outs[i]) for i in self.plain_ys]
        stacked = [frame.logp[s.inner] for s in self.stacked]
        self.made["plain"] = [v.axes for v in plain]
        self.made["stacked"] = [v.axes for v in stacked]
        inner = tuple(s.inner for s in self.tabled)
        table = None
        if inner:
            wanted = {s: self._lanes_of(s) for s in inner}
            lanes = max((source_lanes(s, low.plan.lane_sizes) for s in inner), key=len)
            table = self._weights((*self.given, *inner), wanted, frame, len(lanes))
        return dict(
            plain=[jnp.asarray(v.array) for v in plain],
            boxed=[low.estimate_of(body.outs[i]) for i in self.boxed_ys],
            stacked=[v.array for v in stacked],
            table=table,
            transitions=[self._transition(frame, s.inner) for s in self.chains],
            seen=dict(low.seen),
        )

    def _transition(self, frame: Frame, source: Source) -> Array:
        """`[*given, *before, *now, *lanes]`: a chain's step given the step before."""
        axes = (*self.states, source)
        wanted = {s: self._lanes_of(s) for s in axes}
        lanes = self._lanes_of(source)
        known = frame.factors
        ones = {
            s: Factor(Val(jnp.ones(self.low.plan.axis_size(s)), (s,)), (s,), {s: ()})
            for s in self.states
        }
        apart = Frame(frame.keys, factors={**known, **ones})
        wanted.update((s, ()) for s in self.states)
        return self._weights((*self.given, *axes), wanted, apart, len(lanes))

    # ------------------------------------------------------------------------------- after

    def _finish(self, carry: dict[str, Any], ys: dict[str, Any]) -> None:
        eqn, low, frame = self.eqn, self.low, self.frame
        local = local_sources(eqn)

        def mine(source: Source) -> bool:
            return local(source) or (isinstance(source, Past) and source.loop is eqn)

        for i, array in zip(self.plain_carry, carry["plain"], strict=True):
            axes = tuple(
                Final(eqn, a.inner) if isinstance(a, Past) and a.loop is eqn else a
                for a in self.entry_axes[i]
            )
            low.env[eqn.outs[i]] = Val(array, axes)
        for i, array in zip(self.sums, carry["sums"], strict=True):
            low.boxed[eqn.outs[i]] = array
        for i, array, axes in zip(self.plain_ys, ys["plain"], self.made["plain"], strict=True):
            named = tuple(Stacked(eqn, a) if mine(a) else a for a in axes)
            low.env[eqn.outs[i]] = Val(jnp.moveaxis(array, 0, len(axes)), named)
        for i, array in zip(self.boxed_ys, ys["boxed"], strict=True):
            low.boxed[eqn.outs[i]] = array
        for source, array, axes in zip(
            self.stacked, ys["stacked"], self.made["stacked"], strict=True
        ):
            frame.logp[source] = Val(jnp.moveaxis(array, 0, len(axes)), axes)
        if self.states:
            self._publish_state(frame, carry["state"], [Final(eqn, s.inner) for s in self.states])
        if self.tabled:
            self._publish_table(ys["table"])
        for source, table in zip(self.chains, ys["transitions"], strict=True):
            before = tuple(Past(eqn, source) for _ in self.states)
            axes = (*self.given, *before, source)
            lanes = tuple(Along(i) for i in range(table.ndim - len(axes)))
            frame.transitions[source] = Factor(
                Val(jnp.moveaxis(table, 0, len(axes)), axes),
                (source,),
                {**{g: () for g in self.given}, **{b: lanes for b in before}, source: lanes},
            )
        low.seen.update({name: jnp.mean(x) for name, x in ys["seen"].items()})

    def _publish_table(self, table: Array) -> None:
        lead = len(self.given) + len(self.tabled)
        table = jnp.moveaxis(table, 0, lead)
        lanes = {
            s: (Along(0), *(Along(i + 1) for i in range(len(self._lanes_of(s.inner)))))
            for s in self.tabled
        }
        factor = Factor(
            Val(table, (*self.given, *self.tabled)),
            tuple(self.tabled),
            {**{g: () for g in self.given}, **lanes},
        )
        self.frame.factors.update(dict.fromkeys(self.tabled, factor))


_rules: dict[str, Callable[[Lowering, Eqn, Frame], None]] = {
    "site": Lowering._site,
    "log_density": Lowering._log_density,
    "cond": Lowering._cond,
    "checkpoint": Lowering._checkpoint,
    "scan": Lowering._scan,
}
