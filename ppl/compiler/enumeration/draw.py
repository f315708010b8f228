"""Exact draws: the choices in the reverse order of their elimination, each given the later ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ppl import _compat
from ppl.compiler.enumeration.eliminate import (
    Before,
    Elimination,
    Factor,
    Last,
    Name,
    Plate,
    Recursion,
    Summed,
    lane_axes,
)
from ppl.compiler.influence import Source, site_of
from ppl.compiler.strategies.enumerate import support_table, support_values
from ppl.lang.distributions.categorical import categorical
from ppl.lang.inference.importance import possible
from ppl.lang.primitives import param_p
from ppl.lang.scope import current_address, scope
from ppl.lang.staged import Atom, Block, Eqn, Lit, Staged, Var, evaluate

Drawn = dict[Name, Factor]
"""The index of each choice's value, by its lanes: `array[*plates]`."""


def draw_values(elimination: Elimination, joint: set[Eqn]) -> dict[Eqn, Array]:
    """Values of the summed choices, `[*loops, *shape]`, from their joint law."""
    drawn: Drawn = {}
    for step in reversed(elimination.trail):
        if isinstance(step, Summed):
            _draw_choice(step, drawn)
        else:
            _draw_chain(step, drawn)
    values = {}
    for name, index in drawn.items():
        if isinstance(name, Before | Last):
            continue
        eqn = site_of(name)
        lanes = [elimination.plates.root(p) for p in lane_axes(name, elimination.lanes[name])]
        table = support_table(eqn, True) if eqn in joint else support_values(eqn)
        values[eqn] = jnp.asarray(table)[index.laid((), lanes)]
    return values


def _sample(name: Source | Name, logits: Array) -> Array:
    """An index along the first axis of the logits, for each entry of the others."""
    source = name.base if isinstance(name, Before | Last) else name
    address = site_of(source).params["address"].removeprefix(f"{current_address()}/")
    with scope(address):
        return categorical.sample(possible(jnp.moveaxis(logits, 0, -1)))


def _draw_choice(step: Summed, drawn: Drawn) -> None:
    table, _ = _pick(step.table, step.axes, step.plates, drawn)
    drawn[step.name] = Factor(_sample(step.name, table), (), step.plates)


def _pick(
    array: Array, axes: Sequence[Name], plates: Sequence[Plate], drawn: Drawn
) -> tuple[Array, tuple[Name, ...]]:
    """`array[*axes, *plates]` at the values drawn so far, and the axes that are left."""
    left = list(axes)
    for name in axes:
        if name not in drawn:
            continue
        at, lead = left.index(name), len(left)
        index = drawn[name].laid((), plates)
        shape = np.broadcast_shapes(array.shape[lead:], index.shape)
        array = jnp.broadcast_to(array, (*array.shape[:lead], *shape))
        one = jnp.broadcast_to(
            index, (*(1 if i == at else n for i, n in enumerate(array.shape[:lead])), *shape)
        )
        array = jnp.squeeze(jnp.take_along_axis(array, one, at), at)
        left.remove(name)
    return array, tuple(left)


def _draw_chain(step: Recursion, drawn: Drawn) -> None:
    """Backward sampling (Fruhwirth-Schnatter 1994): the last state, then each one before."""
    last, _ = _pick(step.last, (*step.given, *step.bases), step.plates, drawn)
    sizes, lanes = last.shape[: len(step.bases)], last.shape[len(step.bases) :]
    for i, end in enumerate(step.ends):
        if end in drawn:  # it was needed after the loop
            fixed = drawn[end].laid((), step.plates)
            same = jnp.arange(sizes[i]).reshape(-1, *(1,) * len(lanes)) == fixed
            around = [1] * len(sizes)
            around[i] = sizes[i]
            last = jnp.where(same.reshape(*around, *same.shape[1:]), last, -jnp.inf)
    states = math.prod(sizes)  # of all choices of the chain together
    name, outer = step.bases[0], {n: drawn[n] for n in step.given}
    state = _sample(name, last.reshape(states, *last.shape[len(sizes) :]))

    def back(state: Array, tables: tuple[Array, Array]) -> tuple[Array, Array]:
        before, table = tables
        before, _ = _pick(before, (*step.given, *step.bases), step.plates, outer)
        axes = (*step.given, *(Before(b, 0, False) for b in step.bases), *step.bases)
        table, _ = _pick(table, axes, step.plates, outer)
        table = table.reshape(states, states, *table.shape[2 * len(sizes) :])
        index = jnp.broadcast_to(state, (states, 1, *state.shape))
        table = jnp.broadcast_to(table, (*table.shape[:2], *state.shape))
        links = jnp.squeeze(jnp.take_along_axis(table, index, 1), 1)
        before = before.reshape(states, *before.shape[len(sizes) :])
        return _sample(name, before + links), state

    first, path = lax.scan(back, state, (step.states, step.tables), reverse=not step.reverse)
    for base, start, now, then in zip(
        step.bases,
        step.starts,
        jnp.unravel_index(path, sizes),
        jnp.unravel_index(first, sizes),
        strict=True,
    ):
        drawn[base] = Factor(now.astype(jnp.int32), (), (step.plate, *step.plates))
        if start is not None:
            drawn[start] = Factor(then.astype(jnp.int32), (), step.plates)


# ------------------------------------------------------------------------------------ replay


def replay(staged: Staged, values: Mapping[Eqn, Array]) -> list[Any]:
    """Results of a staged program with the given values of some choices; others are drawn."""
    run = _Replay(values)
    for decl in staged.params.values():
        for index, var in decl.leaves.items():
            init = evaluate(decl.inits[index], {}, decl)
            run.env[var] = param_p.bind(init, name=decl.name, info=decl.info, source=decl.source)
    return run.block(staged.block)


class _Replay:
    def __init__(self, values: Mapping[Eqn, Array]):
        self.env: dict[Var, Any] = {}
        self.values = dict(values)

    def read(self, atom: Atom) -> Any:
        return atom.val if isinstance(atom, Lit) else self.env[atom]

    def block(self, block: Block) -> list[Any]:
        for eqn in block.eqns:
            self.env.update(zip(eqn.outs, self.equation(eqn), strict=True))
        return [self.read(a) for a in block.outs]

    def equation(self, eqn: Eqn) -> Sequence[Any]:
        if eqn in self.values:
            shape, dtype = eqn.outs[0].aval.shape, eqn.outs[0].aval.dtype
            return [jnp.broadcast_to(self.values[eqn], shape).astype(dtype)]
        ins = [self.read(a) for a in eqn.ins]
        if eqn.kind == "scan":
            return self.scan(eqn, ins)
        if eqn.kind == "checkpoint":
            return self.block(eqn.blocks[0])
        if eqn.kind == "cond":
            cases = [self.block(b) for b in eqn.blocks]
            index = jnp.clip(ins[0], 0, len(cases) - 1)
            which = index.astype(bool) if len(cases) == 2 else index
            return [lax.select_n(which, *outs) for outs in zip(*cases, strict=True)]
        return _compat.bind_eqn(eqn.jax_eqn, ins)

    def scan(self, eqn: Eqn, ins: Sequence[Any]) -> Sequence[Any]:
        body, n = eqn.blocks[0], eqn.params["num_carry"]
        outer = self.values
        inside = [e for e in _sites(body) if e in outer]

        def step(carry: Any, x: Any) -> Any:
            slices, values = x
            self.values = {**outer, **dict(zip(inside, values, strict=True))}
            self.env.update(zip(body.ins, [*carry, *slices], strict=True))
            outs = self.block(body)
            return outs[:n], outs[n:]

        same = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
        xs = list(ins[n:]), [outer[e] for e in inside]
        carry, ys = lax.scan(step, list(ins[:n]), xs, **same)
        self.values = outer
        return [*carry, *ys]


def _sites(block: Block) -> list[Eqn]:
    found = [e for e in block.eqns if e.kind == "site"]
    return found + [e for outer in block.eqns for b in outer.blocks for e in _sites(b)]
