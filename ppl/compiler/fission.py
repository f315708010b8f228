"""Loops cut apart, so that only what is recursive runs step by step (loop distribution).

`scan` computes what `lax.scan` does, up to the order of sums, in three phases:

1. *before*: what a step computes without the state, for all steps at once;
2. *the core*: carries that depend on themselves, and what they need of each step;
3. *after*: what no later step needs, for all steps at once.

A carry that only adds up is a (running) sum, and one that just hands on what a step computes is
that, a step later: neither needs a loop. So a hidden Markov model's tables and costs are computed
as whole arrays, and the loop that is left is the forward recursion. The way back needs as much
memory as the loop's would, which keeps what its steps computed as well; that of a recursion of sums
and products is cut apart in the same way. Branches and inner `while`
loops stay in the core (for all steps at once, both branches would run), and so does a
`checkpoint`, which is there to save memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from ppl import _compat
from ppl._compat import JaxprEqn, Literal

_PINNED = frozenset({"cond", "while", "checkpoint", "remat2"})
_ADDITIONS = frozenset({"add", "add_any"})


def scan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any,
    *,
    length: int,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[Any, Any]:
    """`jax.lax.scan`, with as much as possible done for all steps at once.

    `init` has the types of the carries that `step` returns.
    """
    if length == 0:
        return lax.scan(step, init, xs, length=length, reverse=reverse, unroll=unroll)
    return _scan(step, init, xs, _polynomial, length=length, reverse=reverse, unroll=unroll)


def _scan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any,
    loop: Callable,
    *,
    length: int,
    reverse: bool,
    unroll: int,
) -> tuple[Any, Any]:
    """`loop` runs what is left to run step by step."""
    slices = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), init)
    jaxpr, out, _ = _compat.stage(step, state, slices)
    run = _Fission(jaxpr, len(jax.tree.leaves(init)), loop, length, reverse, unroll)
    leaves = run(jax.tree.leaves(init), jax.tree.leaves(xs))
    return jax.tree.unflatten(jax.tree.structure(out), leaves)


def scan_and_constants(
    step: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any, **options: Any
) -> tuple[Any, Any, list[bool]]:
    """`jax.lax.scan`, and for each leaf of the stacked outputs whether all steps give the same, as
    it rests on nothing that changes.

    Args:
        options: of `jax.lax.scan`.
    """
    slices = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
    jaxpr, out, _ = _compat.stage(step, init, slices)
    start, structure = jax.tree.leaves(init), jax.tree.structure(out)
    n = len(start)

    def run(state: list[Any], values: list[Any]) -> tuple[list[Any], list[Any]]:
        env = dict(zip(jaxpr.constvars, jaxpr.consts, strict=True))
        env.update(zip(jaxpr.invars, [*state, *values], strict=True))
        _evaluate(jaxpr.eqns, env)
        outs = [_read(env, a) for a in jaxpr.outvars]
        return outs[:n], outs[n:]

    leaves = lax.scan(run, start, jax.tree.leaves(xs), **options)
    last, ys = jax.tree.unflatten(structure, [*leaves[0], *leaves[1]])
    changing = {c for c, a in zip(jaxpr.invars, jaxpr.outvars, strict=False) if c is not a}
    changing.update(jaxpr.invars[n:])
    for eqn in jaxpr.eqns:
        if _compat.has_side_effects(eqn) or not changing.isdisjoint(_variables(eqn.invars)):
            changing.update(eqn.outvars)
    same = [isinstance(a, Literal) or a not in changing for a in jaxpr.outvars[n:]]
    return last, ys, same


class _Fission:
    """One loop being run.

    Attributes:
        loop: runs the core, if that is sums and products.
        carries, next: for each carry, the variable that a step reads and the atom that it leaves.
        source: what a carry is made of in a step: what it adds up, or what it hands on.
        once: values of variables that are the same in all steps.
        each: values of the others, stacked along a first axis of steps.
        last: carries after the last step.
    """

    def __init__(
        self,
        jaxpr: Any,
        num_carry: int,
        loop: Callable,
        length: int,
        reverse: bool,
        unroll: int,
    ):
        self.loop = loop
        self.length, self.reverse, self.unroll = length, reverse, unroll
        self.carries, self.xs = jaxpr.invars[:num_carry], jaxpr.invars[num_carry:]
        self.next, self.ys = jaxpr.outvars[:num_carry], jaxpr.outvars[num_carry:]
        self.eqns = list(jaxpr.eqns)
        self.addends = {
            c: a
            for c, n in zip(self.carries, self.next, strict=True)
            if (a := _addends(c, n, self.eqns))
        }
        self.source = {
            c: self.addends.get(c, [n]) for c, n in zip(self.carries, self.next, strict=True)
        }
        self.once: dict[Any, Any] = dict(zip(jaxpr.constvars, jaxpr.consts, strict=True))
        self.each: dict[Any, Array] = {}
        self.last: dict[Any, Array] = {}

    def __call__(self, init: Sequence[Any], xs: Sequence[Any]) -> list[Any]:
        """The last carries and the stacked outputs."""
        self.init = dict(zip(self.carries, init, strict=True))
        self.each.update(zip(self.xs, xs, strict=True))
        for carry, leaves in zip(self.carries, self.next, strict=True):
            if carry is leaves:
                self.once[carry] = self.last[carry] = self.init[carry]
        wanted = [*self.ys, *(a for c in self.carries for a in self.source[c])]
        needed = _needed(self.eqns, wanted)
        rest = self._all_steps(needed)
        left = [c for c in self.carries if c not in self.last]
        core, inside = self._core(rest, left)
        self._loop(core, inside, rest)
        done = {id(e) for e in core}
        rest = self._all_steps([e for e in rest if id(e) not in done])
        assert not rest and len(self.last) == len(self.carries)
        return [*(self.last[c] for c in self.carries), *map(self._stacked, self.ys)]

    # ------------------------------------------------------------------------ all steps at once

    def _all_steps(self, eqns: Sequence[JaxprEqn]) -> list[JaxprEqn]:
        """Run all equations that can run now, for all steps; returns the others."""
        left = list(eqns)
        while True:
            same, left = self._ready(left, self._is_once, _compat.has_side_effects)
            _evaluate(same, self.once)
            group, left = self._ready(left, self._is_known, _is_pinned)
            self._vmapped(group)
            ready = [
                c
                for c in self.carries
                if c not in self.last and all(map(self._is_known, self.source[c]))
            ]
            if not (same or group or ready):
                return left
            read = _variables(a for e in left for a in e.invars) | _variables(self.ys)
            for carry in ready:
                self._resolve(carry, carry in read)

    def _ready(
        self,
        eqns: Sequence[JaxprEqn],
        known: Callable[[Any], bool],
        stays: Callable[[JaxprEqn], bool],
    ) -> tuple[list[JaxprEqn], list[JaxprEqn]]:
        """The equations that rest on known values alone, and the others."""
        made: set[Any] = set()
        group, others = [], []
        for eqn in eqns:
            able = all(known(a) or a in made for a in eqn.invars) and not stays(eqn)
            (group if able else others).append(eqn)
            made.update(eqn.outvars if able else ())
        return group, others

    def _vmapped(self, eqns: Sequence[JaxprEqn]) -> None:
        if not eqns:
            return
        made = [v for e in eqns for v in e.outvars]
        read = _variables(a for e in eqns for a in e.invars)
        args = {v: x for v, x in self.each.items() if v in read}
        once = {v: x for v, x in self.once.items() if v in read}

        def one(values: Sequence[Any]) -> list[Any]:
            env = {**once, **dict(zip(args, values, strict=True))}
            _evaluate(eqns, env)
            return [env[v] for v in made]

        outs = jax.vmap(one, axis_size=self.length)(list(args.values()))
        self.each.update(zip(made, outs, strict=True))

    def _resolve(self, carry: Any, read: bool) -> None:
        """A carry whose steps are known: a running sum, or what the step before computed."""
        init = jnp.asarray(self.init[carry])
        if carry not in self.addends:
            leaves = self._stacked(self.source[carry][0])
        else:
            shape = (self.length, *init.shape)
            total = jnp.zeros(shape, init.dtype)
            for addend in map(self._stacked, self.addends[carry]):
                # A single number may be added to an array.
                total += addend.reshape(self.length, *addend.shape[1:] or (1,) * init.ndim)
            if not read:
                self.last[carry] = init + jnp.sum(total, 0, dtype=init.dtype)
                return
            leaves = init + lax.cumsum(total, 0, reverse=self.reverse)
        self.last[carry] = leaves[0 if self.reverse else -1]
        first = init[None]
        parts = [leaves[1:], first] if self.reverse else [first, leaves[:-1]]
        self.each[carry] = jnp.concatenate(parts)

    def _is_once(self, atom: Any) -> bool:
        return isinstance(atom, Literal) or atom in self.once

    def _is_known(self, atom: Any) -> bool:
        return self._is_once(atom) or atom in self.each

    def _stacked(self, atom: Any) -> Array:
        """A value for all steps."""
        if not isinstance(atom, Literal) and atom in self.each:
            return self.each[atom]
        value = jnp.asarray(_read(self.once, atom))
        return jnp.broadcast_to(value, (self.length, *value.shape))

    # ------------------------------------------------------------------------------- the core

    def _core(self, eqns: Sequence[JaxprEqn], left: Sequence[Any]) -> tuple[list[JaxprEqn], list]:
        """The equations and the carries that must run step by step."""
        reads = {c: self._carries_in(eqns, self.source[c], left) for c in left}
        reach = {c: _closure(reads[c], reads) for c in left}
        pinned = [v for e in eqns if _is_pinned(e) for v in e.outvars]
        inside = {c for c in left if c in reach[c]} | self._carries_in(eqns, pinned, left)
        inside |= _closure(inside, reads)
        # Within the loop a carry is made as the program says, additions included.
        roots = [*pinned, *(n for c, n in zip(self.carries, self.next, strict=True) if c in inside)]
        core = [e for e in _needed(self.eqns, roots) if not all(map(self._is_known, e.outvars))]
        return core, [c for c in left if c in inside]

    def _carries_in(self, eqns: Sequence[JaxprEqn], atoms: Iterable[Any], left: Any) -> set[Any]:
        """The carries that some values of a step are computed from."""
        atoms = _variables(atoms)
        read = atoms | _variables(a for e in _needed(eqns, atoms) for a in e.invars)
        return read & set(left)

    def _loop(self, core: list[JaxprEqn], inside: list[Any], rest: list[JaxprEqn]) -> None:
        """Run the core; what the equations after it read of it becomes known for all steps."""
        if not core and not inside:
            return
        leaves = [n for c, n in zip(self.carries, self.next, strict=True) if c in inside]
        core_ids = {id(e) for e in core}
        later = _variables(
            [
                *(a for e in rest if id(e) not in core_ids for a in e.invars),
                *(a for c in self.carries if c not in inside for a in self.source[c]),
                *self.ys,
            ]
        )
        kept = [v for e in core for v in e.outvars if v in later]
        seen = _Part(inside, later.__contains__)
        read = _variables([*(a for e in core for a in e.invars), *leaves])
        once = [v for v in self.once if v in read]
        each = [v for v in self.each if v in read]

        def step(state: Any, values: Any, same: Any) -> tuple[list[Any], list[Any]]:
            names = [*inside, *each, *once]
            env = dict(zip(names, [*state, *values, *same], strict=True))
            _evaluate(core, env)
            return [_read(env, a) for a in leaves], [env[v] for v in kept]

        cheap = _is_polynomial(core)
        loop = self.loop if cheap else _plain
        # Two steps at a time, unless something else was asked for: a hundredth of the time of a
        # short hidden Markov model. Four take longer.
        twice = cheap and self.unroll == 1 and self.length % 2 == 0
        unroll = 2 if twice else self.unroll
        last, ys, states = loop(
            step,
            seen,
            [self.init[c] for c in inside],
            [self.each[v] for v in each],
            [self.once[v] for v in once],
            {"length": self.length, "reverse": self.reverse, "unroll": unroll},
        )
        self.last.update(zip(inside, last, strict=True))
        self.each.update(zip([*kept, *seen.of(inside)], [*ys, *states], strict=True))


# ------------------------------------------------------------------------- the core's derivative

_POLYNOMIAL = frozenset(
    "add add_any broadcast_in_dim concatenate convert_element_type copy dot_general jit mul neg "
    "reduce_sum reshape rev select_n slice squeeze sub transpose".split()
)

_Step = Callable[[list, list, list], tuple[list, list]]
"""`(state, x, once) -> (state, y)`, all of them lists of arrays; `once` is for all steps."""


def _is_polynomial(eqns: Iterable[JaxprEqn]) -> bool:
    """Whether all are sums and products."""
    return all(
        e.primitive.name in _POLYNOMIAL
        and all(_is_polynomial(sub.eqns) for sub in _compat.sub_jaxprs(e.params))
        for e in eqns
    )


def _plain(
    step: _Step, seen: _Part, init: list, xs: list, once: list, options: dict[str, Any]
) -> tuple[list, list, list]:
    """The last state, all y, and of the states before all steps those that are `seen`."""

    def one(state: list, x: list) -> Any:
        after, y = step(state, x, once)
        return after, (y, seen.of(state))

    last, (ys, states) = lax.scan(one, init, xs, **options)
    return last, ys, states


def _polynomial(
    step: _Step, seen: _Part, init: list, xs: list, once: list, options: dict[str, Any]
) -> tuple[list, list, list]:
    """The same for sums and products, with a derivative that is cut apart as the loop is.

    JAX's own way back works out in each step what that step's inputs contribute. Here that is done
    for all steps at once, from the states, which are all that is remembered of the loop. Dearer
    functions would have to be computed twice: their loops keep JAX's derivative.
    """

    @jax.custom_jvp
    def run(init: list, xs: list, once: list) -> Any:
        return _plain(step, seen, init, xs, once, options)

    def jvp(primals: Any, tangents: Any) -> Any:
        init, xs, once = primals
        last, ys, states = _plain(step, _Part(init, lambda _: True), init, xs, once, options)
        from_init, from_xs, from_once = (_Part(t, _moves) for t in tangents)
        smooth, smooth_ys, smooth_seen = (_Part(v, _is_inexact) for v in (init, ys, seen.of(init)))
        moved_once = from_once.of(tangents[2])

        def smooth_step(state: list, x: list, once: list) -> Any:
            after, y = step(state, x, once)
            return smooth.of(after), (smooth_ys.of(y), smooth_seen.of(seen.of(state)))

        def moved_step(moved: list, at: Any) -> Any:
            state, x, moved_x = at
            by_state = lambda part: smooth_step(smooth.put(state, part), x, once)
            by_input = lambda part, same: smooth_step(
                state, from_xs.put(x, part), from_once.put(once, same)
            )
            where = from_xs.of(x), from_once.of(once)
            # One by one: what the inputs contribute does not pass through the recursion.
            _, recursive = jax.jvp(by_state, (smooth.of(state),), (moved,))
            _, new = jax.jvp(by_input, where, (moved_x, moved_once))
            return jax.tree.map(jnp.add, recursive, new)

        start = from_init.put([jnp.zeros_like(x) for x in init], from_init.of(tangents[0]))
        at = states, xs, from_xs.of(tangents[1])
        moved, (moved_ys, moved_seen) = _scan(moved_step, smooth.of(start), at, _plain, **options)
        out = last, ys, seen.of(states)
        still = [[np.zeros(jnp.shape(x), jax.dtypes.float0) for x in values] for values in out]
        parts = (smooth, moved), (smooth_ys, moved_ys), (smooth_seen, moved_seen)
        return out, tuple(p.put(s, moved) for s, (p, moved) in zip(still, parts, strict=True))

    run.defjvp(jvp, symbolic_zeros=True)
    return run(init, xs, once)


class _Part:
    """Some places of a list."""

    def __init__(self, values: Sequence[Any], belongs: Callable[[Any], bool]):
        self.places = [i for i, x in enumerate(values) if belongs(x)]

    def of(self, values: Sequence[Any]) -> list[Any]:
        """What is there."""
        return [values[i] for i in self.places]

    def put(self, values: Sequence[Any], part: Sequence[Any]) -> list[Any]:
        """A copy with something else there."""
        out = list(values)
        for i, x in zip(self.places, part, strict=True):
            out[i] = x
        return out


def _moves(tangent: Any) -> bool:
    return not isinstance(tangent, SymbolicZero)


def _is_inexact(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


# ------------------------------------------------------------------------------- the equations


def _addends(carry: Any, leaves: Any, eqns: Sequence[JaxprEqn]) -> list[Any]:
    """What a step adds to a carry, or nothing if the carry does not only add up."""
    made_by = {v: e for e in eqns for v in e.outvars}
    addends: list[Any] = []
    total = leaves
    while total is not carry:  # from the sum back to the carry, along the running total
        eqn = None if isinstance(total, Literal) else made_by.get(total)
        if eqn is None or eqn.primitive.name not in _ADDITIONS:
            return []
        a, b = eqn.invars
        on_path: list[Any] = [x for x in (a, b) if x is carry or _leads_to(x, carry, made_by)]
        if len(on_path) != 1 or on_path[0].aval.shape != carry.aval.shape:
            return []
        total = on_path[0]
        addends.append(b if total is a else a)
    return addends


def _leads_to(atom: Any, carry: Any, made_by: Mapping[Any, JaxprEqn]) -> bool:
    """Whether a value is the carry plus something."""
    eqn = None if isinstance(atom, Literal) else made_by.get(atom)
    if eqn is None or eqn.primitive.name not in _ADDITIONS:
        return False
    return any(x is carry or _leads_to(x, carry, made_by) for x in eqn.invars)


def _needed(eqns: Sequence[JaxprEqn], atoms: Iterable[Any]) -> list[JaxprEqn]:
    """The equations that some values rest on, in order."""
    wanted = _variables(atoms)
    out = []
    for eqn in reversed(eqns):
        if not wanted.isdisjoint(eqn.outvars):
            wanted |= _variables(eqn.invars)
            out.append(eqn)
    return out[::-1]


def _closure(start: Iterable[Any], reads: Mapping[Any, set[Any]]) -> set[Any]:
    """Everything that can be reached, the start included."""
    seen: set[Any] = set()
    todo = list(start)
    while todo:
        if (c := todo.pop()) not in seen:
            seen.add(c)
            todo += reads[c]
    return seen


def _is_pinned(eqn: JaxprEqn) -> bool:
    """Whether an equation must run step by step."""
    return (
        eqn.primitive.name in _PINNED
        or _compat.has_side_effects(eqn)
        or any(_is_pinned(e) for sub in _compat.sub_jaxprs(eqn.params) for e in sub.eqns)
    )


def _variables(atoms: Iterable[Any]) -> set[Any]:
    return {a for a in atoms if not isinstance(a, Literal)}


def _read(env: Mapping[Any, Any], atom: Any) -> Any:
    return atom.val if isinstance(atom, Literal) else env[atom]


def _evaluate(eqns: Iterable[JaxprEqn], env: dict[Any, Any]) -> None:
    for eqn in eqns:
        outs = _compat.bind_eqn(eqn, [_read(env, v) for v in eqn.invars])
        env.update(zip(eqn.outvars, outs, strict=True))
