"""Lowering of branches and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl.compiler.frame import Frame
from ppl.compiler.influence import Alignment, Source, source_lanes
from ppl.compiler.tables import Factor, Val, batched
from ppl.lang.staged import Block, Eqn

if TYPE_CHECKING:
    from ppl.compiler.lower import Lowering


def lower_checkpoint(low: Lowering, eqn: Eqn, frame: Frame) -> None:
    """A `checkpoint`: run its block inside of JAX's."""
    inner = eqn.blocks[0]
    made: list[Any] = []

    def run() -> list[Array]:
        child, asides = frame.inside(frame.keys.inside(eqn)), low.asides
        low.asides = []
        low.block(inner, child)
        made[:] = _exports(low, child, frame, inner, eqn)
        made.extend(_Export(x, asides.append) for x in low.asides)
        low.asides = asides
        return [export.array for export in made]

    arrays = jax.checkpoint(run)()
    frame.keys.skip(eqn)
    for export, array in zip(made, arrays, strict=True):
        export.put(array)


def _exports(low: Lowering, child: Frame, frame: Frame, inner: Block, eqn: Eqn) -> list[_Export]:
    """All that a block made which the code after it can see."""
    out: list[_Export] = []
    for var, atom in zip(eqn.outs, inner.outs, strict=True):
        if var in low.region.plain:
            val = low.read(atom)
            out.append(_Export(jnp.asarray(val.array), _put_val(low.env, var, val.axes)))
        if var in low.region.boxed:
            out.append(_Export(low.estimate_of(atom), _put(low.boxed, var)))
    for source, logp in child.logp.items():
        if source not in frame.logp:
            out.append(_Export(logp.array, _put_val(frame.logp, source, logp.axes)))
    for inside, outside in (
        (child.factors, frame.factors),
        (child.transitions, frame.transitions),
    ):
        for source, factor in inside.items():
            if source not in outside:
                out.append(_Export(factor.table.array, _put_factor(outside, source, factor)))
    for name, mean in low.seen.items():
        out.append(_Export(mean, _put(low.seen, name)))
    return out


def lower_cond(low: Lowering, eqn: Eqn, frame: Frame) -> None:
    """A `cond` or `switch`."""
    index = low.read(eqn.ins[0])
    tabulated = index.axes or any(low.analysis.of(v).axes for v in eqn.outs)
    (_select if tabulated else _switch)(low, eqn, index, frame)
    frame.keys.skip(eqn)


def _switch(low: Lowering, eqn: Eqn, index: Val, frame: Frame) -> None:
    """Run only the branch taken; a branch not taken contributes no log-probability."""
    wanted = [i for i, v in enumerate(eqn.outs) if v in low.region.plain]
    controlled = any(low.plan.controlled(b) for b in eqn.blocks)
    exported = [s for b in eqn.blocks for s in low.plan.made_in(b) if s in low.plan.charged]

    def branch(block: Block) -> Callable[[], Any]:
        def run() -> Any:
            child, seen = frame.inside(frame.keys.inside(eqn)), dict(low.seen)
            asides, low.asides = low.asides, []
            low.block(block, child)
            low.seen = seen  # what a branch observed does not leave it
            low.asides, inner = asides, low.asides
            outs = [jnp.asarray(low.read(block.outs[i]).array) for i in wanted]
            logps = [child.logp[s].array if s in child.logp else _no_logp(low, s) for s in exported]
            return outs, logps, sum(inner, jnp.zeros(())) if controlled else None

        return run

    outs, logps, aside = lax.switch(index.array, [branch(b) for b in eqn.blocks])
    low.env.update((eqn.outs[i], Val(x)) for i, x in zip(wanted, outs, strict=True))
    frame.logp.update((s, Val(x)) for s, x in zip(exported, logps, strict=True))
    if aside is not None:
        low.asides.append(aside)


def _no_logp(low: Lowering, source: Source) -> Array:
    lanes = source_lanes(source, low.plan.lane_sizes)
    return jnp.zeros(lanes, low.plan.logp_dtype(source))


def _select(low: Lowering, eqn: Eqn, index: Val, frame: Frame) -> None:
    """Run all branches and select: the index differs between enumerated values."""
    children = []
    for block in eqn.blocks:
        child = frame.inside(frame.keys.inside(eqn))
        low.block(block, child)
        children.append(child)
    for i, var in enumerate(eqn.outs):
        if var in low.region.plain:
            cases = [low.read(b.outs[i]) for b in eqn.blocks]
            low.env[var] = batched(
                lambda k, *xs: [lax.select_n(_as_index(k, len(xs)), *xs)], [index, *cases]
            )[0]
    where = low.analysis.of(eqn.ins[0]).axes
    for i, child in enumerate(children):
        taken = batched(lambda k, i=i: [k.astype(jnp.int32) == i], [index])[0]
        for source, logp in child.logp.items():
            if source not in frame.logp:
                frame.logp[source] = batched(lambda t, x: [jnp.where(t, x, 0)], [taken, logp])[0]
        for source, factor in child.factors.items():
            if source not in frame.factors:
                frame.factors[source] = _only_if(taken, factor, where)


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


@dataclass(frozen=True, eq=False)
class _Export:
    """An array that leaves a block, and where to put it outside."""

    array: Array
    put: Callable[[Array], None]


def _put(table: dict[Any, Any], name: Any) -> Callable[[Array], None]:
    return lambda array: table.__setitem__(name, array)


def _put_val(table: dict[Any, Val], name: Any, axes: tuple[Source, ...]) -> Callable[[Array], None]:
    return lambda array: table.__setitem__(name, Val(array, axes))


def _put_factor(
    table: dict[Source, Factor], source: Source, factor: Factor
) -> Callable[[Array], None]:
    def put(array: Array) -> None:
        table[source] = Factor(Val(array, factor.table.axes), factor.members, factor.lanes)

    return put
