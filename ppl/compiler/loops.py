"""Lowering of loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ppl.compiler import fission
from ppl.compiler.frame import Chain, Frame
from ppl.compiler.influence import (
    Alignment,
    Along,
    Final,
    Past,
    Site,
    Sliced,
    Source,
    Stacked,
    local_sources,
    site_of,
    slice_axis,
    source_lanes,
    stack_axis,
)
from ppl.compiler.plan import CannotEnumerate
from ppl.compiler.strategies.enumerate import starts_in_table, support_table
from ppl.compiler.tables import Conflict, Factor, Val, always, joint_name, spread, weights
from ppl.lang.seed import draw_counts
from ppl.lang.staged import Atom, Eqn, Var

if TYPE_CHECKING:
    from ppl.compiler.lower import Lowering


def lower_scan(low: Lowering, eqn: Eqn, frame: Frame) -> None:
    """A `scan`."""
    Loop(low, eqn, frame).run()


class Loop:
    """Lowers one `scan`.

    Beside the loop's own carries it carries: estimates of summed costs, the log-probabilities
    of earlier steps that later costs are charged with, and, if its state is enumerated, the
    probabilities of the state (the forward recursion).

    Attributes:
        constant_xs: scanned arrays that are the same in each step: what a step sees.
        tables: carries that are, from the first step to the last, the table of all values of an
            enumerated choice: what a step then computes from it, it computes once for all steps.
        first: of a state that starts from a known value, where that is in its table.
        known: the law of the state, if it is a chain that another loop made: then this loop needs
            no forward recursion of its own.
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
        chains = {s.inner for s in plan.tabulated if isinstance(s, Sliced) and plan.is_chain(s)}
        self.chains = [s for s in self.tabled if s in chains]
        self.states = plan.loop_states(eqn)
        self.draws = bool(draw_counts(body))

    # ------------------------------------------------------------------------------ before

    def run(self) -> None:
        eqn, low, frame = self.eqn, self.low, self.frame
        self.given = self._given()
        self.entry_axes = {i: self._entry_axes(i) for i in self.plain_carry}
        self.constant_xs = {i: v for i in self.plain_xs if (v := self._constant_slice(i))}
        self.plain_xs = [i for i in self.plain_xs if i not in self.constant_xs]
        # A chain that another loop made is tabulated by the states of that loop, its start too.
        read = self._chains_read()
        self.first = {state: low.chain_starts[chain] for state, chain in read.items()}
        self.tables = {i: t for i in self.plain_carry if (t := self._table(i)) is not None}
        self.carried = [i for i in self.plain_carry if i not in self.tables]
        self.slice_factors = {}
        self.known = frame.chains.get(read[self.states[0]]) if self._alone and read else None
        carry = dict(
            plain=[self._initial_carry(i) for i in self.carried],
            sums=[
                jnp.asarray(low.estimate_of(eqn.ins[i]), self.body.ins[i].aval.dtype)
                for i in self.sums
            ],
            pasts=[self._no_past(s) for s in self.pasts],
            state=self._initial_state() if self._recurs else None,
        )
        xs = dict(
            state=None if self.known is None else self.known.before,
            pairs=None if self.known is None else self.known.pairs,
            step=self._steps() if self.draws else None,
            plain=[jnp.moveaxis(*self._scanned(i)) for i in self.plain_xs],
            slices=[self._slice(s) for s in self.slices],
        )
        self.made: dict[str, Any] = {}
        carry, ys = fission.scan(
            self._step,
            carry,
            xs,
            length=eqn.params["length"],
            reverse=eqn.params["reverse"],
            unroll=eqn.params["unroll"],
        )
        frame.keys.skip(eqn)
        self._finish(carry, ys)

    @property
    def _alone(self) -> bool:
        """Whether there is one state, and what it does depends on no outer choice."""
        return len(self.states) == 1 and not self.given

    @property
    def _recurs(self) -> bool:
        """Whether the state's probabilities are a forward recursion of this loop."""
        return bool(self.states) and self.known is None

    def _steps(self) -> Array:
        steps = jnp.arange(self.eqn.params["length"])
        return steps[::-1] if self.eqn.params["reverse"] else steps

    def _scanned(self, i: int) -> tuple[Array, int, int]:
        """A scanned array, with its enumerated axes behind the axis that is scanned."""
        val = self.low.read(self.eqn.ins[i])
        return jnp.asarray(val.array), len(val.axes), 0

    def _constant_slice(self, i: int) -> Val | None:
        """What each step sees of a scanned array, if it is one constant repeated."""
        val = self.low.read(self.eqn.ins[i])
        at = len(val.axes)
        if not isinstance(val.array, np.ndarray) or val.array.strides[at] or not val.axes:
            return None
        return Val(np.take(val.array, 0, at), self._sliced_axes(i))

    def _table(self, i: int) -> np.ndarray | None:
        """The constant that a carry is in each step, if what it starts from is an entry of it."""
        axes, leaves = self.entry_axes[i], self.body.outs[i]
        if len(axes) != 1 or axes[0] not in self.states:
            return None
        table = self._known_table(leaves, axes[0].inner)
        if table is None:
            return None
        start = self.low.analysis.starts.get(self.eqn, {}).get(axes[0])
        init = self.low.read(self.eqn.ins[i])
        return table if starts_in_table(table, init, start, axes[0], self.first) else None

    def _known_table(self, leaves: Atom, source: Source) -> np.ndarray | None:
        """The values of an enumerated choice, if that is what a carry leaves a step with."""
        for j, val in self.constant_xs.items():
            if self.body.ins[j] is leaves and val.axes == (source,):
                return val.array
        made = leaves.eqn if isinstance(leaves, Var) else None
        if made is None or made not in self.body.eqns or Site(made) != source:
            return None
        return support_table(made, made in self.low.plan.joint)

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
        axes = self.low.plan.logp_axes(past)
        local = local_sources(self.eqn)
        for axis in axes:
            if local(axis) or (isinstance(axis, Past) and axis.loop is self.eqn):
                score = site_of(past)
                raise CannotEnumerate(
                    site_of(axis),
                    f"the choice {score.params['address']} depends on it, and the loop at "
                    f"{self.eqn.where} remembers that choice",
                )
        return tuple(axes)

    def _given(self) -> dict[Source, Alignment]:
        """Outer enumerated choices that the probabilities of a step's choices depend on.

        Each with where its lanes run among those of the step's choices.
        """
        local, seen = local_sources(self.eqn), set()
        given: dict[Source, Alignment] = {}
        for state, start in self.low.analysis.starts.get(self.eqn, {}).items():
            factor = self.frame.factors[start]
            at = dict(zip(factor.lanes[start], self._lanes_of(state), strict=True))
            for axis in factor.table.axes:
                if axis not in factor.members:
                    given.setdefault(axis, tuple(at.get(e) for e in factor.lanes[axis]))
        todo = [(s.inner, self._lanes_of(s)) for s in (*self.states, *self.tabled)]
        while todo:
            source, lanes = todo.pop()
            if source in seen:
                continue
            seen.add(source)
            above = self.low.plan.logp_axes(source)
            for parent in self.low.plan.parents(source, self.frame.factors):
                if isinstance(parent, Past) and parent.loop is self.eqn:
                    continue
                there = tuple(None if e is None else lanes[e.axis] for e in above.get(parent, ()))
                if local(parent):
                    todo.append((parent, there))
                else:
                    given.setdefault(parent, there)
        return given

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
            # A known start: that entry of the table, or any if all are equal, has weight 1.
            table = jnp.ones(())
            for state in self.states:
                first = self.first.get(state, 0)
                table = table[..., None] * (jnp.arange(plan.axis_size(state)) == first)
            table = jnp.reshape(table, (*(1,) * len(self.given), *table.shape, *(1,) * len(lanes)))
        sizes = [plan.axis_size(a) for a in axes]
        return jnp.broadcast_to(table, (*sizes, *lanes)).astype(plan.logp_dtype(self.states[0]))

    def _chains_read(self) -> dict[Source, Source]:
        """Of the states, those that are steps of a chain that another loop made; and that chain."""
        found: dict[Source, Source] = {}
        for state in self.states:
            match state:
                case Past(_, Sliced(_, chain, _) as step) if self._is_chain(step):
                    found[state] = chain
        return found

    def _is_chain(self, source: Source) -> bool:
        return source in self.slices and self.low.plan.is_chain(source)

    def _lanes_of(self, source: Source) -> Alignment:
        return tuple(Along(i) for i in range(len(source_lanes(source, self.low.plan.lane_sizes))))

    def _weights(
        self,
        axes: tuple[Source, ...],
        wanted: dict[Source, Alignment],
        frame: Frame,
        ndim: int,
        joints: dict[Any, Array] | None = None,
    ) -> Array:
        """Joint probability of `axes` given the outer choices `self.given`.

        Args:
            joints: those computed so far in this frame.
        """

        ones = {g: always(g, self.low.plan.axis_size(g)) for g in self.given}
        try:
            wanted = {**self.given, **wanted}
            known = {**frame.factors, **ones}
            return weights(axes, wanted, ndim, known, {} if joints is None else joints)
        except Conflict as conflict:
            raise self.low.refuse(conflict, self.eqn.where) from conflict

    def _slice(self, source: Sliced) -> Array:
        """What each step sees of an outer choice's log-probability or probabilities."""
        if source in self.low.plan.tabulated:
            chain = self._is_chain(source)
            known = self.frame.transitions if chain else self.frame.factors
            factor = known[source.inner]
            lane = factor.lanes[source.inner][source.lane].axis
            self.slice_factors[source] = (factor, lane)
            return jnp.moveaxis(factor.table.array, len(factor.table.axes) + lane, 0)
        logp = self.frame.logp[source.inner]
        return jnp.moveaxis(logp.array, len(logp.axes) + source.lane, 0)

    # -------------------------------------------------------------------------------- step

    def _step(self, carry: dict[str, Any], x: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        low, body = self.low, self.body
        step = 0 if x["step"] is None else x["step"]
        frame = self.frame.inside(self.frame.keys.inside(self.eqn, step))
        frame.steps[self.eqn] = step
        asides, low.asides = low.asides, []
        for i, array in (*self.tables.items(), *zip(self.carried, carry["plain"], strict=True)):
            low.env[body.ins[i]] = Val(array, self.entry_axes[i])
        for i, val in self.constant_xs.items():
            low.env[body.ins[i]] = val
        for i, array in zip(self.plain_xs, x["plain"], strict=True):
            low.env[body.ins[i]] = Val(array, self._sliced_axes(i))
        for i, array in zip(self.sums, carry["sums"], strict=True):
            low.boxed[body.ins[i]] = array
        for past, array in zip(self.pasts, carry["pasts"], strict=True):
            frame.logp[past] = Val(array, self._past_axes(past))
        # Parents first: the joint probabilities are built from the newest choice back.
        if self.states:
            state = carry["state"] if self.known is None else x["state"]
            self._publish_state(frame, state, self.states)
        for source, array in zip(self.slices, x["slices"], strict=True):
            self._publish_slice(frame, source, array)
        if self.known is not None:
            frame.joints[self._pair_name(self.states[0].inner)] = x["pairs"]
        low.block(body, frame)
        joints: dict[Any, Array] = {}
        after = dict(
            plain=[self._leaving(i) for i in self.carried],
            sums=[
                jnp.asarray(low.estimate_of(body.outs[i]), body.ins[i].aval.dtype)
                for i in self.sums
            ],
            pasts=[
                a + spread(frame.logp[p.inner], self._past_axes(p))
                for a, p in zip(carry["pasts"], self.pasts, strict=True)
            ],
            state=self._next_state(frame, joints) if self._recurs else None,
        )
        ys = self._outputs(frame, joints) | dict(before=carry["state"] if self.chains else None)
        low.asides = asides
        return after, ys

    def _sliced_axes(self, i: int) -> tuple[Source, ...]:
        """An outer choice whose lane is scanned is, in a step, the slice of it."""
        val = self.low.read(self.eqn.ins[i])
        seen = self.low.analysis.of(self.body.ins[i]).axes
        back = {s.inner: s for s in seen if isinstance(s, Sliced) and s.loop is self.eqn}
        return tuple(back.get(a, a) for a in val.axes)

    def _publish_slice(self, frame: Frame, source: Sliced, array: Array) -> None:
        if source not in self.slice_factors:
            lanes = self.low.plan.logp_axes(source.inner)
            axes = self.frame.logp[source.inner].axes
            sliced = (slice_axis(self.eqn, source.lane, a, lanes.get(a, ()))[0] for a in axes)
            frame.logp[source] = Val(array, tuple(sliced))
            return
        factor, lane = self.slice_factors[source]

        def rest(s: Source, alignment: Alignment) -> tuple[Source, Alignment]:
            if isinstance(s, Past):  # a chain's step before: what this loop remembers
                return Past(self.eqn, source), rest(source.inner, factor.lanes[source.inner])[1]
            return slice_axis(self.eqn, lane, s, alignment)

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
                **self.given,
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

    def _next_state(self, frame: Frame, joints: dict[Any, Array]) -> Array:
        now = tuple(s.inner for s in self.states)
        wanted = {s: self._lanes_of(s) for s in now}
        lanes = self._state_lanes()
        table = self._weights((*self.given, *now), wanted, frame, len(lanes), joints)
        sizes = [self.low.plan.axis_size(a) for a in (*self.given, *now)]
        dtype = self.low.plan.logp_dtype(self.states[0])
        return jnp.broadcast_to(table, (*sizes, *lanes)).astype(dtype)

    def _outputs(self, frame: Frame, joints: dict[Any, Array]) -> dict[str, Any]:
        low, body = self.low, self.body
        plain = {i: low.read(body.outs[i]) for i in self.plain_ys}
        constant = {i: v for i, v in plain.items() if v.axes and isinstance(v.array, np.ndarray)}
        plain = {i: v for i, v in plain.items() if i not in constant}
        stacked = [frame.logp[s.inner] for s in self.stacked]
        self.made["constant"] = constant
        self.made["plain"] = {i: v.axes for i, v in plain.items()}
        self.made["stacked"] = [v.axes for v in stacked]
        inner = tuple(s.inner for s in self.tabled)
        table = None
        if inner:
            wanted = {s: self._lanes_of(s) for s in inner}
            lanes = max((source_lanes(s, low.plan.lane_sizes) for s in inner), key=len)
            table = self._weights((*self.given, *inner), wanted, frame, len(lanes), joints)
        return dict(
            plain=[jnp.asarray(v.array) for v in plain.values()],
            boxed=[low.estimate_of(body.outs[i]) for i in self.boxed_ys],
            stacked=[v.array for v in stacked],
            table=table,
            transitions=[self._transition(frame, s.inner) for s in self.chains],
            pairs=[self._pairs(frame, s.inner) for s in self.chains if self._alone],
            seen=dict(low.seen),
            aside=sum(low.asides) if low.asides else None,
        )

    def _pair_name(self, now: Source) -> Any:
        """What the probabilities of a chain's step and the state before it are remembered by."""
        axes = (*self.states, now)
        return joint_name(axes, {s: self._lanes_of(s) for s in axes}, len(self._lanes_of(now)))

    def _pairs(self, frame: Frame, now: Source) -> Array:
        """`[before, now, *lanes]`: these probabilities."""
        axes = (*self.states, now)
        wanted = {s: self._lanes_of(s) for s in axes}
        return self._weights(axes, wanted, frame, len(self._lanes_of(now)), frame.joints)

    def _transition(self, frame: Frame, source: Source) -> Array:
        """`[*given, *before, *now, *lanes]`: a chain's step given the step before."""
        axes = (*self.states, source)
        wanted = {s: self._lanes_of(s) for s in axes}
        lanes = self._lanes_of(source)
        known = frame.factors
        ones = {s: always(s, self.low.plan.axis_size(s)) for s in self.states}
        apart = Frame(frame.keys, factors={**known, **ones})
        wanted.update((s, ()) for s in self.states)
        return self._weights((*self.given, *axes), wanted, apart, len(lanes))

    # ------------------------------------------------------------------------------- after

    def _finish(self, carry: dict[str, Any], ys: dict[str, Any]) -> None:
        eqn, low, frame = self.eqn, self.low, self.frame
        local = local_sources(eqn)

        for i, array in (*self.tables.items(), *zip(self.carried, carry["plain"], strict=True)):
            low.env[eqn.outs[i]] = self._last(i, array)
        for i, array in zip(self.sums, carry["sums"], strict=True):
            low.boxed[eqn.outs[i]] = array
        named = lambda axes: tuple(stack_axis(eqn, local, a, ())[0] for a in axes)
        for (i, axes), array in zip(self.made["plain"].items(), ys["plain"], strict=True):
            low.env[eqn.outs[i]] = Val(jnp.moveaxis(array, 0, len(axes)), named(axes))
        for i, val in self.made["constant"].items():
            at, length = len(val.axes), eqn.params["length"]
            shape = (*val.array.shape[:at], length, *val.array.shape[at:])
            every = np.broadcast_to(np.expand_dims(val.array, at), shape)
            low.env[eqn.outs[i]] = Val(every, named(val.axes))
        for i, array in zip(self.boxed_ys, ys["boxed"], strict=True):
            low.boxed[eqn.outs[i]] = array
        for source, array, axes in zip(
            self.stacked, ys["stacked"], self.made["stacked"], strict=True
        ):
            frame.logp[source] = Val(jnp.moveaxis(array, 0, len(axes)), named(axes))
        self._publish_probabilities(carry, ys)
        low.seen.update(jax.tree.map(lambda x: jnp.mean(x, 0), ys["seen"]))
        if ys["aside"] is not None:
            low.asides.append(jnp.sum(ys["aside"]))

    def _publish_probabilities(self, carry: dict[str, Any], ys: dict[str, Any]) -> None:
        eqn, frame = self.eqn, self.frame
        if self.states:
            state = carry["state"] if self.known is None else self.known.last
            self._publish_state(frame, state, [Final(eqn, s.inner) for s in self.states])
        if self.tabled:
            self._publish_table(ys["table"])
        for source, table in zip(self.chains, ys["transitions"], strict=True):
            (state,) = self.states
            self.low.chain_starts[source] = self.first.get(state, 0)
            if self._recurs and self._alone:
                (pairs,) = ys["pairs"]
                frame.chains[source] = Chain(ys["before"], carry["state"], pairs)
            before = tuple(Past(eqn, source) for _ in self.states)
            axes = (*self.given, *before, source)
            lanes = tuple(Along(i) for i in range(table.ndim - len(axes)))
            frame.transitions[source] = Factor(
                Val(jnp.moveaxis(table, 0, len(axes)), axes),
                (source,),
                {**self._given_outside(), **{b: lanes for b in before}, source: lanes},
            )

    def _last(self, i: int, array: Array | np.ndarray) -> Val:
        """A carry after the last step, without the axes that only its first value had."""
        axes = [
            Final(self.eqn, a.inner) if isinstance(a, Past) and a.loop is self.eqn else a
            for a in self.entry_axes[i]
        ]
        left = self.low.analysis.of(self.eqn.outs[i]).axes
        for at in reversed(range(len(axes))):
            if axes[at] not in left:
                array = lax.index_in_dim(array, 0, at, keepdims=False)
                del axes[at]
        return Val(array, tuple(axes))

    def _given_outside(self) -> dict[Source, Alignment]:
        """`_given`, among the lanes of all steps."""
        shift = lambda e: None if e is None else Along(e.axis + 1, e.order)
        return {g: tuple(map(shift, lanes)) for g, lanes in self.given.items()}

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
            {**self._given_outside(), **lanes},
        )
        self.frame.factors.update(dict.fromkeys(self.tabled, factor))
