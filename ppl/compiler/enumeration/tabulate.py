"""Tables of a program's log-weights over the values of its discrete choices.

The program's log-weight is a sum of cost terms (`ppl.compiler.region`). Each, and each choice's
log-probability, becomes a table with one axis per choice that it depends on, and the axes of its
own shape, of which some run along the choices' lanes. In a loop the tables of all steps are
stacked, so that a loop looks like a plate whose lanes are linked: a choice as the next step
remembers it is another axis, `Past`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ppl import _compat
from ppl.compiler import constants, fission
from ppl.compiler.influence import (
    Alignment,
    Along,
    Analysis,
    Final,
    Past,
    Site,
    Sliced,
    Source,
    local_sources,
    site_of,
    stack_axis,
)
from ppl.compiler.region import Region
from ppl.compiler.strategies.enumerate import (
    joint_size,
    starts_in_table,
    support_size,
    support_table,
)
from ppl.compiler.tables import Val, batched, log_densities, spread
from ppl.lang.primitives import param_p
from ppl.lang.staged import Atom, Block, Eqn, Lit, Staged, Var, evaluate


@dataclass(frozen=True, eq=False)
class Table:
    """A table of log-weights or log-probabilities.

    Attributes:
        array: `[*axes, *dims]`; entries along the dims are separate terms. Of size 1 along the
            steps of a loop that all have the same.
        axes: the choices.
        lanes: for each choice, where its lanes run among the dims.
        about: what is tabulated: a cost, or a choice's log-probability.
    """

    array: Array
    axes: tuple[Source, ...]
    lanes: Mapping[Source, Alignment]
    about: Var | Eqn


def tabulate(
    staged: Staged, analysis: Analysis, region: Region, joint: set[Eqn]
) -> tuple[Array, list[Table], dict[Source, Source | int]]:
    """Tables that add up to the staged log-weight.

    Returns:
        its constant part, all other parts, and for each choice that a loop remembers (by its
        `Past`) the outer choice from which the loop starts, or which of the choice's values, where
        there is one or it is known.
    """
    tables: list[Table] = []
    starts: dict[Source, Source | int] = {}

    costs = _costs(staged.block, region, ())

    def total(offsets: list[Array]) -> tuple[Array, list[Array]]:
        replacing = dict(zip(costs, offsets, strict=True))
        run = _Run(staged, analysis, region, joint, replacing)
        value = run.program()
        tables[:] = run.tables
        starts.update(run.first | run.starts)
        return value, [t.array for t in tables]

    # The log-weight is linear in its cost terms: its derivative says with which coefficient each
    # enters (the size of a plate over a subsample, say), and its value at zero is the rest.
    zeros = [
        jnp.zeros((*lengths, *var.aval.shape), var.aval.dtype) for var, lengths in costs.items()
    ]
    constant, pull, arrays = jax.vjp(total, zeros, has_aux=True)
    coefficients = dict(zip(costs, pull(jnp.ones_like(constant))[0], strict=True))
    scaled = []
    for table, array in zip(tables, arrays, strict=True):
        if isinstance(table.about, Var):
            weight = coefficients[table.about]
            array = jnp.where(weight == 0, 0, array) * weight  # -inf that does not count
        scaled.append(replace(table, array=array))
    return constant, scaled, starts


def _costs(block: Block, region: Region, lengths: tuple[int, ...]) -> dict[Var, tuple[int, ...]]:
    """The cost terms, and the lengths of the loops around each."""
    made = [*block.ins, *(v for eqn in block.eqns for v in eqn.outs)]
    found = {v: lengths for v in made if v in region.costs}
    for eqn in block.eqns:
        inside = (*lengths, eqn.params["length"]) if eqn.kind == "scan" else lengths
        for inner in eqn.blocks:
            found.update(_costs(inner, region, inside))
    return found


class _Run:
    """One run of a staged program with its choices tabulated.

    Args:
        offsets: for each cost term what stands in for it in the sums (zeros, with a derivative).
    """

    def __init__(
        self,
        staged: Staged,
        analysis: Analysis,
        region: Region,
        joint: set[Eqn],
        offsets: dict[Var, Array],
    ):
        self.staged, self.analysis, self.region, self.joint = staged, analysis, region, joint
        self.offsets = offsets
        self.env: dict[Var, Val] = {}
        self.sums: dict[Var, Array] = {}
        self.tables: list[Table] = []
        self.starts: dict[Source, Source] = {}
        """outer choices from which loops start, by what a loop remembers (a `Past`)"""
        self.first: dict[Source, int] = {}
        """which value loops start from, where it is known and one of the choice's"""

    def program(self) -> Array:
        for decl in self.staged.params.values():
            for index, var in decl.leaves.items():
                init = evaluate(decl.inits[index], {}, decl)
                info = replace(decl.info, index=index)
                again = param_p.bind(init, name=decl.name, info=info, source=decl.source)
                self.env[var] = Val(again)
        block = self.staged.block
        self.block(block)
        return jnp.asarray(self.estimate(block.outs[0]))

    def read(self, atom: Atom) -> Val:
        return Val(atom.val) if isinstance(atom, Lit) else self.env[atom]

    def estimate(self, atom: Atom) -> Any:
        """The value of a sum of cost terms, with the offsets in their place."""
        if isinstance(atom, Var) and atom in self.sums:
            return self.sums[atom]
        return self.read(atom).array

    def block(self, block: Block) -> None:
        for var in block.ins:
            self.sum(var)
        for eqn in block.eqns:
            if eqn.kind == "scan":
                self.scan(eqn)
            elif eqn.kind == "checkpoint":
                self.block(eqn.blocks[0])
                inner = eqn.blocks[0].outs
                self.env.update(
                    (v, self.read(a))
                    for v, a in zip(eqn.outs, inner, strict=True)
                    if v in self.region.plain
                )
            elif any(v in self.region.plain for v in eqn.outs) or not eqn.outs:
                self.equation(eqn)
            for var in eqn.outs:
                self.sum(var)

    def sum(self, var: Var) -> None:
        """Compute a variable of the additive region; a cost term is tabulated."""
        if var not in self.region.boxed:
            return
        if var in self.region.costs:
            self.sums[var] = self.offsets[var]
            val = self.env[var]
            lanes = {s: a for s, a in self.analysis.of(var).axes.items() if s in val.axes}
            self.tables.append(Table(jnp.asarray(val.array), val.axes, lanes, var))
            return
        parts = self.region.parts.get(var)
        if parts is None or var in self.sums:
            return
        if var.eqn.kind == "checkpoint":
            self.sums[var] = jnp.asarray(self.estimate(parts[0]))
        elif not var.eqn.blocks:
            args = [self.estimate(a) if a in parts else self.read(a).array for a in var.eqn.ins]
            self.sums[var] = _compat.bind_eqn(var.eqn.jax_eqn, args)[var.eqn.outs.index(var)]

    def equation(self, eqn: Eqn) -> None:
        if eqn.kind == "site" and self.analysis.kind_of(eqn) == "enum":
            self.env[eqn.outs[0]] = self.choice(eqn)
            return
        vals = [self.read(a) for a in eqn.ins]
        if (known := constants.evaluate(eqn, vals)) is not None:
            outs = known
        elif eqn.kind == "cond":
            outs = self.branches(eqn, vals[0])
        elif eqn.kind == "log_density" and any(v.axes for v in vals):
            outs = [log_densities(vals, eqn.params)]
        else:
            outs = batched(lambda *xs: _compat.bind_eqn(eqn.jax_eqn, xs), vals)
        self.env.update(zip(eqn.outs, outs, strict=True))

    def choice(self, eqn: Eqn) -> Val:
        """All values of a choice; its log-probabilities are tabulated."""
        source, joint, shape = Site(eqn), eqn in self.joint, tuple(eqn.params["shape"])
        values = Val(support_table(eqn, joint), (source,))
        params = [self.read(a) for a in eqn.ins]
        static = {k: eqn.params[k] for k in ("family", "names")}
        static["event_ndims"] = len(eqn.outs[0].aval.shape) - len(shape)
        logp = log_densities([values, *params], static)
        lanes: dict[Source, Alignment] = dict(self.analysis.params_of[eqn].axes)
        lanes[source] = tuple(Along(i) for i in range(len(shape)))
        array = jnp.broadcast_to(logp.array, (*jnp.shape(logp.array)[: len(logp.axes)], *shape))
        if joint:
            array = jnp.sum(array, tuple(range(len(logp.axes), array.ndim)))
            lanes = {s: tuple(None for _ in a) for s, a in lanes.items()}
            lanes[source] = ()
        self.tables.append(Table(array, logp.axes, lanes, eqn))
        return values

    def branches(self, eqn: Eqn, index: Val) -> Sequence[Val]:
        """A `cond`: all branches, and the taken one's values."""
        for inner in eqn.blocks:
            self.block(inner)
        outs = []
        for i in range(len(eqn.outs)):
            cases = [self.read(inner.outs[i]) for inner in eqn.blocks]
            outs += batched(lambda k, *xs: [lax.select_n(_index(k, xs), *xs)], [index, *cases])
        return outs

    # -------------------------------------------------------------------------------- loops

    def scan(self, eqn: Eqn) -> None:
        body, n, region = eqn.blocks[0], eqn.params["num_carry"], self.region
        carried = [i for i in range(n) if body.ins[i] in region.plain]
        summed = sorted(region.summed.get(eqn, ()))
        scanned = [i for i in range(n, len(body.ins)) if body.ins[i] in region.plain]
        stacked = [i for i in range(n, len(eqn.outs)) if eqn.outs[i] in region.plain]
        totals = [i for i in range(n, len(eqn.outs)) if eqn.outs[i] in region.boxed]
        costs = [v for v in _costs(body, region, ()) if v in self.offsets]
        local, outer = local_sources(eqn), dict(self.offsets)
        axes = {i: self._axes_of(body.ins[i]) for i in carried}
        first: dict[Source, int] = {}
        tables = {
            i: t for i in carried if (t := self._state_table(eqn, i, axes[i], first)) is not None
        }
        carried = [i for i in carried if i not in tables]
        made: dict[str, Any] = {}

        def past(source: Source) -> Source:
            return Past(eqn, source) if local(source) else source

        def step(carry: Any, x: Any) -> Any:
            for i, array in (*tables.items(), *zip(carried, carry[0], strict=True)):
                self.env[body.ins[i]] = Val(array, axes[i])
            for i, array in zip(summed, carry[1], strict=True):
                self.sums[body.ins[i]] = array
            for i, array in zip(scanned, x[0], strict=True):
                self.env[body.ins[i]] = Val(array, self._sliced(eqn, i))
            self.offsets.update(zip(costs, x[1], strict=True))
            before = self.tables, self.starts, self.first
            self.tables, self.starts, self.first = [], {}, {}
            self.block(body)
            made["tables"], made["starts"], made["first"] = self.tables, self.starts, self.first
            self.tables, self.starts, self.first = before
            after = [self.read(body.outs[i]) for i in carried]
            ys = [self.read(body.outs[i]) for i in stacked]
            made["stacked"] = [v.axes for v in ys]
            carry = (
                [
                    self._carry(Val(v.array, tuple(map(past, v.axes))), axes[i], body.ins[i])
                    for i, v in zip(carried, after, strict=True)
                ],
                [_like(self.estimate(body.outs[i]), body.ins[i]) for i in summed],
            )
            return carry, (
                [t.array for t in made["tables"]],
                [jnp.asarray(v.array) for v in ys],
                [jnp.asarray(self.estimate(body.outs[i])) for i in totals],
            )

        back = {start: state for state, start in self.analysis.starts.get(eqn, {}).items()}
        initial = [self.read(eqn.ins[i]) for i in carried]
        init = (
            [
                self._carry(
                    Val(v.array, tuple(back.get(a, a) for a in v.axes)), axes[i], body.ins[i]
                )
                for i, v in zip(carried, initial, strict=True)
            ],
            [_like(self.estimate(eqn.ins[i]), body.ins[i]) for i in summed],
        )
        inputs = [self.read(eqn.ins[i]) for i in scanned]
        xs = (
            [jnp.moveaxis(jnp.asarray(v.array), len(v.axes), 0) for v in inputs],
            [outer[v] for v in costs],
        )
        options = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
        last, ys, same = fission.scan_and_constants(step, init, xs, **options)
        self.offsets = outer
        self.env.update(
            (eqn.outs[i], self._last(eqn, i, array, axes[i]))
            for i, array in (*tables.items(), *zip(carried, last[0], strict=True))
        )
        self.sums.update((eqn.outs[i], a) for i, a in zip(summed, last[1], strict=True))
        for i, array, names in zip(stacked, ys[1], made["stacked"], strict=True):
            named = tuple(stack_axis(eqn, local, a, ())[0] for a in names)
            self.env[eqn.outs[i]] = Val(jnp.moveaxis(array, 0, len(names)), named)
        self.sums.update((eqn.outs[i], a) for i, a in zip(totals, ys[2], strict=True))
        for table, array, constant in zip(made["tables"], ys[0], same[: len(ys[0])], strict=True):
            array = array[:1] if constant else array
            lanes = dict(stack_axis(eqn, local, a, table.lanes[a]) for a in table.axes)
            names = tuple(stack_axis(eqn, local, a, ())[0] for a in table.axes)
            array = jnp.moveaxis(array, 0, len(names))
            self.tables.append(Table(array, names, lanes, table.about))
        inside = made["starts"] | self.analysis.starts.get(eqn, {})
        for source, start in inside.items():
            named = [stack_axis(eqn, local, s, ())[0] for s in (source, start)]
            self.starts[named[0]] = named[1]
        for source, entry in (made["first"] | first).items():
            self.first[stack_axis(eqn, local, source, ())[0]] = entry

    def _state_table(
        self, loop: Eqn, i: int, axes: tuple[Source, ...], first: dict[Source, int]
    ) -> np.ndarray | None:
        """The constant that a carry is in each step, if what it starts from is an entry of it.

        Args:
            first: where known starts are in their tables; added to.
        """
        leaves = loop.blocks[0].outs[i]
        made = leaves.eqn if isinstance(leaves, Var) else None
        if made is None or axes != (Past(loop, Site(made)),):
            return None
        table = support_table(made, made in self.joint)
        start = self.analysis.starts.get(loop, {}).get(axes[0])
        init = self.read(loop.ins[i])
        return table if starts_in_table(table, init, start, axes[0], first) else None

    def _carry(self, val: Val, axes: tuple[Source, ...], like: Var) -> Array:
        """A carry with all the axes that it has in some step."""
        sizes = [axis_size(a, self.joint) for a in axes]
        array = jnp.broadcast_to(spread(val, axes), (*sizes, *like.aval.shape))
        return array.astype(like.aval.dtype)

    def _axes_of(self, var: Var) -> tuple[Source, ...]:
        return tuple(self.analysis.of(var).axes)

    def _sliced(self, loop: Eqn, i: int) -> tuple[Source, ...]:
        """An outer choice whose lane is scanned is, in a step, the slice of it."""
        seen = self.analysis.of(loop.blocks[0].ins[i]).axes
        back = {s.inner: s for s in seen if isinstance(s, Sliced) and s.loop is loop}
        return tuple(back.get(a, a) for a in self.read(loop.ins[i]).axes)

    def _last(self, loop: Eqn, i: int, array: Array | np.ndarray, axes: tuple[Source, ...]) -> Val:
        """A carry after the last step, without the axes that only its first value had."""
        names = [
            Final(loop, a.inner) if isinstance(a, Past) and a.loop is loop else a for a in axes
        ]
        left = self.analysis.of(loop.outs[i]).axes
        for at in reversed(range(len(names))):
            if names[at] not in left:
                array = lax.index_in_dim(array, 0, at, keepdims=False)
                del names[at]
        return Val(array, tuple(names))


def axis_size(source: Source, joint: set[Eqn]) -> int:
    """Length of a choice's axis."""
    eqn = site_of(source)
    return joint_size(eqn) if eqn in joint else support_size(eqn) or 0


def _like(x: Any, var: Var) -> Array:
    return jnp.asarray(x, var.aval.dtype)


def _index(index: Array, cases: Sequence[Any]) -> Array:
    """The index of a `cond`, as `select_n` takes it."""
    index = jnp.clip(index, 0, len(cases) - 1)
    return index.astype(bool) if len(cases) == 2 else index
