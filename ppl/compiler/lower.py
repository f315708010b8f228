"""Lowering: from a staged program and a plan to an ordinary JAX function.

The function's value is an unbiased estimate of the objective, and its derivative an unbiased
estimate of the gradient. Nothing probabilistic is left: draws come from a key, enumerated
choices are array axes, score choices are boxes around the costs that they influence.

Here are plain equations, choices and costs; loops are in `loops`, branches in `control`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl.compiler import boxes, classes, constants
from ppl.compiler.axis_rules import ELEMENTWISE
from ppl.compiler.baselines import Baseline, Charged
from ppl.compiler.baselines.per_lane import charge_of_others
from ppl.compiler.control import lower_checkpoint, lower_cond
from ppl.compiler.frame import Frame
from ppl.compiler.influence import (
    WORLDS,
    Alignment,
    Along,
    Entry,
    Final,
    Influence,
    Order,
    Past,
    Site,
    Source,
    Stacked,
    covered,
    site_of,
)
from ppl.compiler.loops import lower_scan
from ppl.compiler.noise import NOISE, Noise
from ppl.compiler.plan import CannotEnumerate, Plan
from ppl.compiler.pooling import pooled
from ppl.compiler.slices import Split, splits
from ppl.compiler.strategies.base import Choice, View
from ppl.compiler.sums import Sum, as_sum
from ppl.compiler.tables import (
    Conflict,
    Factor,
    Val,
    always,
    batched,
    contract,
    elementwise,
    lay_along,
    log_densities,
    spread,
    union,
    weights,
)
from ppl.compiler.worlds import Shares
from ppl.lang.keys import choice_key
from ppl.lang.seed import Keys
from ppl.lang.staged import Atom, Block, Eqn, Lit, Var, equal_literals
from ppl.lang.standard_noise import Ready


class Lowering:
    """One run of a planned program over arrays (concrete or traced).

    Args:
        env: values of the program's inputs and parameters.
        num_samples: size of the vmapped axis `boxes.SAMPLES` around this run (1: no such axis).
        state: of the baselines and control variates, by name.
        data: the objective's arguments.
        probe: observe, for each log-density and cost, which part of its entries is not finite.
        noise: where the random numbers come from.
    """

    def __init__(
        self,
        plan: Plan,
        env: Mapping[Var, Any],
        num_samples: int,
        state: Mapping[str, Any] | None = None,
        data: tuple[Any, ...] = (),
        probe: bool = False,
        noise: Noise = NOISE,
    ):
        self.noise = noise
        self.plan, self.num_samples = plan, num_samples
        self.analysis, self.region = plan.analysis, plan.region
        self.env: dict[Var, Val] = {v: Val(x) for v, x in env.items()}
        self.boxed: dict[Var, Array] = {}
        self.sums: dict[Var, Sum] = {}
        """variables that are sums over axes of an array"""
        self.splits: dict[Eqn, Split] = {}
        """slices that are parts of a split"""
        self.pooled: dict[Eqn, Callable[[], Ready]] = {}
        """what makes the noise of choices that is drawn together with that of others"""
        self.own_log_density: dict[Eqn, Val] = {}
        """of each choice's value at itself, where its strategy computed that anyway"""
        self.chain_starts: dict[Source, int] = {}
        """of Markov chains made by loops, which of its values each starts from"""
        self.state, self.data, self.probe = state or {}, data, probe
        self.seen: dict[str, Any] = {}
        """what was observed on the way, averaged over the steps of loops: by baselines that
        remember; with `probe`, shares of entries that are not finite"""
        self.asides: list[Array] = []
        """zeros to be added to the objective, whose derivatives have mean zero"""

    def run(self, key: jax.Array) -> list[Array]:
        """Estimates of the program's results."""
        block = self.plan.staged.block
        frame = Frame(Keys(key, mark=self.noise.mark))
        frame.factors[WORLDS] = always(WORLDS, self.plan.worlds.size)
        self.block(block, frame)
        outs = [self.estimate_of(a) for a in block.outs]
        return [sum(self.asides, outs[0]), *outs[1:]]

    # ------------------------------------------------------------------------------ values

    def read(self, atom: Atom) -> Val:
        """A value, with an axis for each enumerated choice that it depends on."""
        return classes.expanded(self._read(atom))

    def _read(self, atom: Atom) -> Val:
        """The same by classes of these choices' values."""
        return Val(atom.val) if isinstance(atom, Lit) else self.env[atom]

    def estimate_of(self, atom: Atom) -> Array:
        """The estimate of a variable of the additive region."""
        if isinstance(atom, Var) and atom in self.boxed:
            return self.boxed[atom]
        return self.read(atom).array

    def block(self, block: Block, frame: Frame) -> None:
        self.splits.update(splits(block))
        if self.noise.draw is NOISE.draw:  # any other may want the keys
            self.pooled.update(pooled(block, frame.keys, self.plan))
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
        vals = classes.together([self._read(a) for a in eqn.ins])
        if (total := as_sum(eqn, vals, self.sums)) is not None:
            self.sums[eqn.outs[0]] = total
            outs = [Val(total.total)]
        elif (known := constants.evaluate(eqn, vals)) is not None:
            outs = map(classes.condensed, known)
        elif eqn in self.splits:
            outs = [self.splits[eqn].part(eqn, *vals)]
        elif eqn.kind in _ELEMENTWISE:
            outs = elementwise(
                lambda *xs: eqn.run(xs), vals, scalars=eqn.kind not in ("select_n", "clamp")
            )
        else:
            outs = batched(lambda *xs: eqn.run(xs), vals)
        self.env.update(zip(eqn.outs, outs, strict=True))

    def _require(self, eqn: Eqn, frame: Frame) -> None:
        if eqn.outs[0] not in self.region.plain:
            return
        self._plain(eqn)
        name = f"{eqn.params['what']} (at {self.plan.where(eqn.outs[0])})"
        self._observe(name, lambda: ~self.read(eqn.ins[1]).array)

    def _log_density(self, eqn: Eqn, frame: Frame) -> None:
        if eqn.outs[0] not in self.region.plain:
            return
        site = _site_at_itself(eqn)
        if eqn.impl is None and site in self.own_log_density:
            out = self.own_log_density[site]
        else:
            vals = classes.together([self._read(a) for a in eqn.ins])
            out = batched(eqn.impl, vals)[0] if eqn.impl else log_densities(vals, eqn.params)
        self.env[eqn.outs[0]] = out
        self._probe(eqn.params["address"], out)

    def _probe(self, name: str, val: Val) -> None:
        """Observe the share of entries that are not finite."""
        # Minus infinity is right for an impossible value of an enumerated choice.
        wrong = lambda x: ~jnp.isfinite(x) & ((x != -jnp.inf) | (not val.axes))
        self._observe(name, lambda: wrong(val.array))

    def _observe(self, name: str, bad: Callable[[], Array]) -> None:
        if self.probe:
            self.seen[name] = self.seen.get(name, 0.0) + jnp.mean(bad().astype(float))

    def _site(self, eqn: Eqn, frame: Frame) -> None:
        source, plan = Site(eqn), self.plan
        alone = frame.keys.next(eqn)
        new_key = self.pooled.get(eqn, alone)
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
            lambda log_density: self.own_log_density.__setitem__(eqn, log_density),
            self.noise.draw,
            self._view(eqn, frame),
            self._learned(eqn),
            self.data,
            self.asides.append,
        )
        self.env[eqn.outs[0]] = plan.strategies[eqn].lower(choice)

    def _view(self, eqn: Eqn, frame: Frame) -> View | None:
        worlds = self.plan.worlds
        if eqn not in worlds.slots:
            return None
        slots = worlds.slots[eqn]
        moving, name = worlds.moving_names(eqn), f"{eqn.params['address']}: pick"
        pick = lambda: choice_key(frame.keys.key, name, 0)
        return View(worlds.size, slots, slots.step(frame.steps), pick, moving, worlds.scored(eqn))

    def _learned(self, eqn: Eqn) -> Any:
        """What the control variate of a choice learned so far."""
        name = self.plan.control_names.get(eqn)
        return None if name is None else self.state[name]["learned"]

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
            outs = var.eqn.run(args)
            self.boxed[var] = outs[var.eqn.outs.index(var)]

    def _cost(self, var: Var, frame: Frame) -> Array:
        """The estimate of a cost term, or of all those that it is merged with."""
        cost = self.env[var]
        cost = Val(jnp.asarray(cost.array), cost.axes)
        self._probe(f"the cost at {self.plan.where(var)}", cost)
        merged = self.plan.merged.get(var)
        if merged is None:
            return self._charged(var, cost, self.analysis.of(var), frame)
        if var is not merged.last:
            return jnp.zeros(cost.shape, cost.array.dtype)
        signed = [Val(s * self.env[v].array, self.env[v].axes) for v, s in merged.signs.items()]
        (total,) = elementwise(lambda *xs: [sum(xs[1:], xs[0])], classes.together(signed))
        return self._charged(var, total, self.analysis.of(merged.widest), frame)

    def _charged(self, var: Var, cost: Val, influence: Influence, frame: Frame) -> Array:
        """A cost, charged to the choices that were drawn and averaged over the enumerated."""
        ndim = len(cost.shape)
        shares = self.plan.worlds.shares(influence)
        if influence.score or shares:
            cost = classes.expanded(cost)  # charges have an axis for each choice
        wanted = {s: tuple(map(_exactly, a)) for s, a in influence.axes.items()}
        charges = self._charges(var, influence, ndim, shares, frame, wanted)
        axes = union([cost, *(v for group in charges.values() for v in group)])
        axes = tuple(a for a in axes if a is not WORLDS)
        every = (*axes, WORLDS) if shares else axes
        level, at = spread(cost, every), len(axes)
        joint = None
        if axes:
            joint = self._joint(every, {**wanted, WORLDS: ()}, ndim, frame, var)
        if shares:
            level = shares.cut(level, at)
            joint = None if joint is None else shares.cut(joint, at)
        boxed = level
        for (baseline, given), group in charges.items():
            expected = _expected(level, every, (*given, WORLDS), joint)
            if shares:
                expected = lax.index_in_dim(expected, 0, at, keepdims=True)
            base = self._baseline(baseline, var, expected)
            boxed = boxes.box(boxed, level, base, spread(_total(group), every))
        if others := self._others(var, influence.score, every, joint, shares, frame):
            boxed = boxes.box(boxed, jnp.zeros_like(level), jnp.ones(()), sum(others))
        if joint is not None:
            boxed = contract(boxed, joint, at)
        return boxes.actual(boxed, shares.weights) if shares else boxed

    def _charges(
        self,
        var: Var,
        influence: Influence,
        ndim: int,
        shares: Shares | None,
        frame: Frame,
        wanted: dict[Source, Alignment],
    ) -> dict[tuple[Baseline, tuple[Source, ...]], list[Val]]:
        """Log-probabilities of the draws that a cost is charged to, by baseline and axes.

        Args:
            wanted: where lanes of enumerated choices run in the cost; gets those of choices that
                the log-probabilities alone depend on.
        """
        charges: dict[tuple[Baseline, tuple[Source, ...]], list[Val]] = {}
        for source, alignment in covered(influence.score).items():
            logp = frame.logp[source]
            for axis, lanes in self.plan.logp_axes(source).items():
                where = tuple(None if e is None else _exactly(alignment[e.axis]) for e in lanes)
                wanted.setdefault(axis, where)
            laid = Val(lay_along(logp.array, len(logp.axes), alignment, ndim), logp.axes)
            if shares:
                laid = shares.charged(laid, self.plan.worlds.slots.get(site_of(source)))
            baseline = self.plan.baseline(var, source)
            charges.setdefault((baseline, laid.axes), []).append(laid)
        return charges

    def _joint(
        self,
        axes: tuple[Source, ...],
        wanted: Mapping[Source, Alignment],
        ndim: int,
        frame: Frame,
        var: Var,
    ) -> Array:
        """Joint probabilities of enumerated choices that a cost is averaged over."""
        choices = classes.choices(axes)
        try:
            self._check_sites(choices)
            joint = weights(choices, wanted, ndim, frame.factors, frame.joints)
            return classes.collapsed(joint, axes)
        except Conflict as conflict:
            raise self.refuse(conflict, self.plan.where(var)) from conflict

    def _check_sites(self, axes: Sequence[Source]) -> None:
        """The same choice seen in two unrelated ways cannot be tabulated twice."""
        by_site: dict[Eqn, Source] = {}
        for source in axes:
            if source is WORLDS:
                continue
            plain = _without_past(source)
            if by_site.setdefault(site_of(source), plain) != plain:
                raise Conflict(source, "a value combines two different steps of it")
        for loop, starts in self.analysis.starts.items():
            ended = any(isinstance(s, Final | Stacked) and s.loop is loop for s in axes)
            if ended and not set(starts.values()).isdisjoint(axes):
                raise Conflict(axes[0], "a value combines a loop's first and later states")

    def refuse(self, conflict: Conflict, where: str) -> CannotEnumerate:
        """The error for choices that cannot be tabulated together."""
        because = f"{conflict.because}, at {where}"
        return CannotEnumerate(site_of(conflict.source), because)

    def _baseline(self, baseline: Baseline, var: Var, expected: Array) -> Array:
        """What is subtracted from a cost before it is charged.

        Args:
            expected: the cost, averaged over the enumerated choices that come after the draws
                to be charged; their probabilities may depend on those draws.
        """
        name = self.plan.memories.get((var, baseline), "")

        def observe(seen: Any) -> None:
            self.seen[name] = lax.stop_gradient(seen)

        charged = Charged(expected, self.num_samples, self.state.get(name), observe)
        return baseline.value(charged)

    def _others(
        self,
        var: Var,
        score: Mapping[Source, Alignment],
        axes: tuple[Source, ...],
        joint: Array | None,
        shares: Shares | None,
        frame: Frame,
    ) -> list[Array]:
        """Per-lane baselines times log-probabilities of a cost."""
        out = []
        for source, alignment in covered(score).items():
            if frontier := self.plan.frontiers.get((var, source)):
                logp = frame.logp[source]

                def expected(cost: Val, given: tuple[Source, ...] = logp.axes) -> Array:
                    level = spread(cost, axes)
                    if shares:
                        level = lax.index_in_dim(level, 0, len(axes) - 1, keepdims=True)
                    return _expected(level, axes, (*given, WORLDS), joint)

                def lay(lanes: Array, rest: Alignment, given: Any = logp.axes) -> Array:
                    laid = Val(lay_along(lanes, len(given), rest, len(var.aval.shape)), given)
                    return spread(shares.charged(laid, None) if shares else laid, axes)

                out.append(charge_of_others(frontier, logp, alignment, self.read, expected, lay))
        return out


# Of these, the first may change the shape and the others know it.
_ELEMENTWISE = frozenset(ELEMENTWISE) - {
    "bitcast_convert_type", "optimization_barrier", "sharding_constraint"
}  # fmt: skip


def _site_at_itself(log_density: Eqn) -> Eqn | None:
    """The choice whose own log-density this is: of its value, with its parameters."""
    value, *params = log_density.ins
    site = value.eqn if isinstance(value, Var) else None
    if site is None or site.kind != "site":
        return None
    same = all(site.params[k] == log_density.params[k] for k in ("family", "names"))
    return site if same and all(map(_same_atom, site.ins, params)) else None


def _same_atom(a: Atom, b: Atom) -> bool:
    if isinstance(a, Lit) and isinstance(b, Lit):
        return equal_literals(a, b)
    return a is b


def _exactly(entry: Entry) -> Entry:
    """The entry if it is one lane per entry of the value."""
    return entry if entry is not None and entry.order is Order.EXACT else None


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


_rules: dict[str, Callable[[Lowering, Eqn, Frame], None]] = {
    "site": Lowering._site,
    "log_density": Lowering._log_density,
    "require": Lowering._require,
    "cond": lower_cond,
    "checkpoint": lower_checkpoint,
    "scan": lower_scan,
}
