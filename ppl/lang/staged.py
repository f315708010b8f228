"""Staged programs: what a program does, as flat lists of equations.

`stage(f, *args)` traces `f` once and rewrites its jaxpr into a form that passes can work on:

* every variable is unique and knows the equation that made it;
* calls (`jit`, custom derivatives around our primitives) are inlined;
* `scan`, `cond` and `checkpoint` are equations with *blocks*, and a block sees the variables
  around it directly, as a closure does, so there are no constants to thread through;
* parameters are inputs of the whole program, wherever they were declared;
* dead code is gone.

A random choice inside anything else (a `while_loop`, a primitive that we do not know) is refused
here, with its address and source line: no draw may be baked in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ppl import _compat
from ppl.errors import DataError, ShapeError, UnsupportedError
from ppl.lang.param import ParamInfo
from ppl.lang.primitives import open_draw_p, param_p, site_p
from ppl.lang.supports import contains_all

TRUSTED_CALL = "ppl_assume_continuous"
"""Name of the jitted call that `assume_continuous` makes."""


class Var:
    """A variable: made by equation `eqn`, or an input if that is `None`."""

    __slots__ = ("aval", "eqn")

    def __init__(self, aval: Any, eqn: Eqn | None = None):
        self.aval, self.eqn = aval, eqn


class Lit:
    """A constant."""

    __slots__ = ("aval", "val")

    def __init__(self, val: Any, aval: Any = None):
        self.val = val
        self.aval = jax.typeof(val) if aval is None else aval


Atom = Var | Lit


def equal_literals(a: Lit, b: Lit) -> bool:
    """Whether two constants are surely the same (one that is being traced may be anything)."""
    if a.val is b.val or a.aval != b.aval:
        return a.val is b.val
    concrete = _compat.is_concrete(a.val) and _compat.is_concrete(b.val)
    # In NumPy: JAX would trace the comparison of its arrays inside of a jit.
    return concrete and bool(np.all(np.asarray(a.val) == np.asarray(b.val)))


@dataclass(eq=False)
class Block:
    """A list of equations with inputs and outputs; it also sees the variables around it."""

    ins: list[Var]
    outs: list[Atom]
    eqns: list[Eqn]


@dataclass(eq=False)
class Eqn:
    """One equation.

    `kind` is the primitive's name. The inputs of the equations with blocks are: `scan` the
    initial carries, then the scanned arrays (its block: carries and slices -> carries and
    stacked outputs, `params["num_carry"]` many carries); `cond` the branch index; `checkpoint`
    none.
    """

    kind: str
    params: dict[str, Any]
    ins: list[Atom]
    outs: list[Var]
    source: Any
    blocks: tuple[Block, ...] = ()
    jax_eqn: Any = None
    """the original equation, which an equation without blocks runs as it is"""
    trusted: bool = False
    """whether the user vouched that it is continuous"""
    callers: tuple[Any, ...] = ()
    """the sources of the calls that it was inlined from, innermost first"""
    impl: Callable[..., Sequence[Any]] | None = None
    """what it computes instead of `jax_eqn`, if a pass changed it"""

    def run(self, args: Sequence[Any]) -> list[Any]:
        """Compute an equation without blocks."""
        if self.impl is not None:
            return list(self.impl(*args))
        return _compat.bind_eqn(self.jax_eqn, args)

    @property
    def where(self) -> str:
        """The user's source line."""
        return _compat.source_line(self.source, *self.callers)


@dataclass(eq=False)
class ParamDecl:
    """A trainable parameter: its leaves' variables and initial values."""

    name: str
    info: ParamInfo
    where: str
    source: Any
    leaves: dict[int, Var] = field(default_factory=dict)
    inits: dict[int, Atom] = field(default_factory=dict)


@dataclass(eq=False)
class Staged:
    """A staged program: `block` over the flattened arguments, and its parameters."""

    block: Block
    out_tree: Any
    params: dict[str, ParamDecl]
    sites: list[Eqn]
    """every random choice, dead ones included, in program order"""
    rewritten: list[Any] = field(default_factory=list)
    """what rewrites did to the program"""


def stage(fun: Callable, *args: Any, **kwargs: Any) -> Staged:
    """Stage `fun` at the shapes of its arguments.

    Raises:
        UnsupportedError: a random choice stands where the compiler cannot follow.
    """
    jaxpr, out, _ = _compat.stage(fun, *args, **kwargs)
    flat = _Flattener()
    ins = [Var(v.aval) for v in jaxpr.invars]
    eqns: list[Eqn] = []
    outs = flat.inline(jaxpr, ins, eqns)
    block = Block(ins, outs, eqns)
    drop_dead_code(block)
    return Staged(block, jax.tree.structure(out), flat.params, flat.sites)


def contains_ours(jaxpr: Any) -> bool:
    """Whether a random choice or a parameter stands anywhere inside."""
    return next(_ours(jaxpr), None) is not None


def _ours(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        if eqn.primitive in (site_p, param_p, open_draw_p) or is_genjax_sample(eqn.primitive):
            yield eqn
        for sub in _compat.sub_jaxprs(eqn.params):
            yield from _ours(sub)


def is_genjax_sample(primitive: Any) -> bool:
    """Whether this is a draw that GenJAX's own code made outside of an addressed choice."""
    return getattr(getattr(primitive, "prim", None), "name", "").find("pjax.") >= 0 and (
        "sample" in primitive.prim.name
    )


class _Flattener:
    def __init__(self) -> None:
        self.params: dict[str, ParamDecl] = {}
        self.sites: list[Eqn] = []
        self.trusted = False
        self.callers: tuple[Any, ...] = ()

    def inline(self, jaxpr: Any, args: Sequence[Atom], into: list[Eqn]) -> list[Atom]:
        """Append the equations of `jaxpr` to `into`; the atoms of its results."""
        env: dict[Any, Atom] = dict(zip(jaxpr.invars, args, strict=True))
        env.update((v, Lit(c, v.aval)) for v, c in zip(jaxpr.constvars, jaxpr.consts, strict=True))

        def read(v: Any) -> Atom:
            if isinstance(v, _compat.Literal):
                return Lit(np.asarray(v.val, getattr(v.aval, "dtype", None)), v.aval)
            return env[v]

        for eqn in jaxpr.eqns:
            rule = _flatten_rules.get(eqn.primitive.name, _Flattener.plain)
            outs = rule(self, eqn, [read(v) for v in eqn.invars], into)
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def emit(
        self, eqn: Any, into: list[Eqn], ins: list[Atom], kind: str = "", blocks=(), **params
    ) -> list[Var]:
        """Append an equation with fresh output variables."""
        new = Eqn(
            kind or eqn.primitive.name,
            {**eqn.params, **params},
            ins,
            [],
            eqn.source_info,
            tuple(blocks),
            eqn,
            self.trusted,
            self.callers,
        )
        new.outs = [Var(v.aval, new) for v in eqn.outvars]
        into.append(new)
        return new.outs

    def block(self, jaxpr: Any, args: Sequence[Atom], ins: list[Var]) -> Block:
        eqns: list[Eqn] = []
        outs = self.inline(jaxpr, args, eqns)
        return Block(ins, outs, eqns)

    # One rule per kind of equation. A rule appends equations and returns the result's atoms.

    def plain(self, eqn: Any, ins: list[Atom], into: list[Eqn]) -> Sequence[Atom]:
        if is_genjax_sample(eqn.primitive):
            return self.site(eqn, ins, into)
        inside = [e for sub in _compat.sub_jaxprs(eqn.params) for e in _ours(sub)]
        if inside:
            raise _refusal(eqn, next((e for e in inside if e.primitive is not param_p), inside[0]))
        return self.emit(eqn, into, ins)

    def site(self, eqn: Any, ins: list[Atom], into: list[Eqn]) -> Sequence[Atom]:
        outs = self.emit(eqn, into, ins, kind="site" if eqn.primitive is site_p else "foreign_site")
        self.sites.append(into[-1])
        return outs

    def param(self, eqn: Any, ins: list[Atom], into: list[Eqn]) -> Sequence[Atom]:
        name, info = eqn.params["name"], eqn.params["info"]
        where = _compat.source_line(eqn.source_info)
        decl = self.params.setdefault(name, ParamDecl(name, info, where, eqn.source_info))
        same = decl.info.treedef == info.treedef and decl.info.support.name == info.support.name
        var = decl.leaves.setdefault(info.index, Var(eqn.outvars[0].aval))
        if not same or var.aval.shape != eqn.outvars[0].aval.shape:
            raise ShapeError(
                f"parameter {name!r} is declared twice, differently",
                where=where,
                because=f"here it is {_describe(eqn.outvars[0], info)}; "
                f"at {decl.where} it is {_describe(var, decl.info)}",
                fix="use another name, or the same structure, shapes and support",
            )
        decl.inits.setdefault(info.index, ins[0])
        return [var]

    def call(self, eqn: Any, ins: list[Atom], into: list[Eqn]) -> Sequence[Atom]:
        before = self.trusted, self.callers
        self.trusted |= eqn.params.get("name") == TRUSTED_CALL
        self.callers = (eqn.source_info, *self.callers)
        outs = self.inline(eqn.params["jaxpr"], ins, into)
        self.trusted, self.callers = before
        return outs

    def custom_derivative(self, eqn: Any, ins: list[Atom], into: list[Eqn]) -> Sequence[Atom]:
        inner = eqn.params["call_jaxpr"]
        # Without our primitives the custom rule is kept; with them it has no meaning for a
        # draw, and the function is differentiated as it is written.
        return self.inline(inner, ins, into) if contains_ours(inner) else self.emit(eqn, into, ins)

    def checkpoint(self, eqn: Any, ins: list[Atom], into: list[Eqn]) -> Sequence[Atom]:
        inner = eqn.params["jaxpr"]
        if not contains_ours(inner):
            return self.emit(eqn, into, ins)
        return self.emit(eqn, into, [], "checkpoint", [self.block(inner, ins, [])])

    def cond(self, eqn: Any, ins: list[Atom], into: list[Eqn]) -> Sequence[Atom]:
        blocks = [self.block(b, ins[1:], []) for b in eqn.params["branches"]]
        return self.emit(eqn, into, ins[:1], blocks=blocks)

    def scan(self, eqn: Any, ins: list[Atom], into: list[Eqn]) -> Sequence[Atom]:
        num_consts, num_carry = _compat.scan_arity(eqn.params)
        if eqn.params["length"] == 0:
            stacked = [v.aval for v in eqn.outvars[num_carry:]]
            empty = [Lit(np.zeros(a.shape, a.dtype), a) for a in stacked]
            return [*ins[num_consts : num_consts + num_carry], *empty]
        inner = eqn.params["jaxpr"]
        own = [Var(v.aval) for v in inner.invars[num_consts:]]
        block = self.block(inner, [*ins[:num_consts], *own], own)
        return self.emit(eqn, into, ins[num_consts:], blocks=[block], num_carry=num_carry)


_flatten_rules: dict[str, Callable[[_Flattener, Any, list[Atom], list[Eqn]], Sequence[Atom]]] = {
    "site": _Flattener.site,
    "param": _Flattener.param,
    "jit": _Flattener.call,
    "closed_call": _Flattener.call,
    "core_call": _Flattener.call,
    "custom_jvp_call": _Flattener.custom_derivative,
    "custom_vjp_call": _Flattener.custom_derivative,
    "remat2": _Flattener.checkpoint,
    "checkpoint": _Flattener.checkpoint,
    "cond": _Flattener.cond,
    "scan": _Flattener.scan,
}


def _describe(var: Any, info: ParamInfo) -> str:
    """A parameter's leaf, for messages."""
    part = "" if info.treedef.num_nodes == 1 else f" in {info.treedef}"
    return f"{var.aval.str_short()} on {info.support}{part}"


def inlined(eqn: Eqn) -> Block:
    """The body of an equation that calls a function as a whole, as a block."""
    jaxpr = eqn.params["jaxpr" if "jaxpr" in eqn.params else "call_jaxpr"]
    ins = [Var(v.aval) for v in jaxpr.invars]
    return _Flattener().block(jaxpr, ins, ins)


def _refusal(eqn: Any, ours: Any) -> UnsupportedError:
    """The error for a choice or parameter inside a primitive that cannot hold one."""
    kind, is_param = _compat.primitive_name(eqn), ours.primitive is param_p
    here = _compat.source_line(eqn.source_info)
    if is_param:
        because = f"'{kind}' at {here} has no rule for it"
        fix = f"call param before it, and use its value inside of '{kind}'"
    else:
        because = (
            f"'{kind}' at {here} has no rule for it; run as it is, its draws would be the same in "
            "every run"
        )
        fix = "move it out of this operation, or use scan, cond, switch, vmap or checkpoint"
    if kind == "while" and not is_param:
        fix = (
            "bound the number of steps: lax.scan over jnp.arange(max_steps) with a carried `done` "
            "flag that masks the steps after the last"
        )
    return UnsupportedError(
        f"{'a parameter' if is_param else 'a random choice'} stands inside '{kind}', which the "
        "compiler cannot follow",
        address=ours.params.get("name" if is_param else "address"),
        where=_compat.source_line(ours.source_info),
        because=because,
        fix=fix,
    )


# --------------------------------------------------------------------------------- dead code


def drop_dead_code(block: Block) -> None:
    """Remove equations and loop outputs that nothing reads, here and in inner blocks."""
    live: set[Var] = set()
    _mark(block, list(range(len(block.outs))), live)
    _sweep(block, live)


def _mark(block: Block, wanted: Sequence[int], live: set[Var]) -> None:
    """Add to `live` what the outputs `wanted` of `block` need."""
    live.update(a for i in wanted if isinstance(a := block.outs[i], Var))
    for eqn in reversed(block.eqns):
        used = [i for i, v in enumerate(eqn.outs) if v in live]
        if used or has_effect(eqn):
            _mark_inputs(eqn, used, live)


def _mark_inputs(eqn: Eqn, used: Sequence[int], live: set[Var]) -> None:
    if eqn.kind != "scan":
        live.update(a for a in eqn.ins if isinstance(a, Var))
        for inner in eqn.blocks:
            _mark(inner, used, live)
        return
    body, num_carry = eqn.blocks[0], eqn.params["num_carry"]
    needed = set(used)
    while True:  # a carry that a needed output reads is needed itself
        _mark(body, sorted(needed), live)
        more = needed | {i for i in range(num_carry) if body.ins[i] in live}
        if more == needed:
            break
        needed = more
    live.update(
        a for a, v in zip(eqn.ins, body.ins, strict=True) if v in live and isinstance(a, Var)
    )
    live.update(a for i in needed if i < num_carry and isinstance(a := eqn.ins[i], Var))
    live.update(eqn.outs[i] for i in needed if i < num_carry)


def has_effect(eqn: Eqn) -> bool:
    """Whether an equation must run although nothing reads its results (a print)."""
    return bool(getattr(eqn.jax_eqn, "effects", ())) and not eqn.blocks


def _sweep(block: Block, live: set[Var]) -> None:
    kept = []
    for eqn in block.eqns:
        if not (any(v in live for v in eqn.outs) or has_effect(eqn)):
            continue
        kept.append(eqn)
        if eqn.kind == "scan":
            _sweep_scan(eqn, live)
        elif eqn.blocks:
            keep = [i for i, v in enumerate(eqn.outs) if v in live]
            eqn.outs = [eqn.outs[i] for i in keep]
            for inner in eqn.blocks:
                inner.outs = [inner.outs[i] for i in keep]
        for inner in eqn.blocks:
            _sweep(inner, live)
    block.eqns = kept


def _sweep_scan(eqn: Eqn, live: set[Var]) -> None:
    body, num_carry = eqn.blocks[0], eqn.params["num_carry"]
    keep_out = [i for i, v in enumerate(eqn.outs) if v in live]
    carries = [i for i in keep_out if i < num_carry]
    keep_in = [
        *carries,
        *(i for i in range(num_carry, len(body.ins)) if body.ins[i] in live),
    ]
    eqn.ins = [eqn.ins[i] for i in keep_in]
    body.ins = [body.ins[i] for i in keep_in]
    eqn.outs = [eqn.outs[i] for i in keep_out]
    body.outs = [body.outs[i] for i in keep_out]
    eqn.params = {**eqn.params, "num_carry": len(carries)}


# -------------------------------------------------------------------------- initial parameters


def initial_params(staged: Staged, key: jax.Array, flat_args: Sequence[Any]) -> dict[str, Any]:
    """Initial values of all parameters, each with its declared structure.

    Raises:
        UnsupportedError: an initial value depends on a random choice or a loop's state.
        DataError: an initial value is not finite, or outside of its support.
    """
    known = dict(zip(staged.block.ins, flat_args, strict=True))
    values = {d.name: _initial(d, key, known) for d in staged.params.values()}
    _check_initial([d for d in staged.params.values() if d.info.initialiser is None], values)
    return values


def _check_initial(decls: Sequence[ParamDecl], values: dict[str, Any]) -> None:
    """Refuse values outside of their supports; those not known yet (traced) pass."""
    import equinox as eqx

    arrays = {d: jax.tree.leaves(eqx.filter(values[d.name], eqx.is_inexact_array)) for d in decls}
    pairs = [(d, x) for d, leaves in arrays.items() for x in leaves if _compat.is_concrete(x)]
    inside = contains_all(tuple(d.info.support for d, _ in pairs), [x for _, x in pairs])
    for (decl, leaf), ok in zip(pairs, inside, strict=True):
        if not ok:
            raise DataError(
                f"the initial value of parameter {decl.name!r} is not in its support",
                where=decl.where,
                because=f"the support is {decl.info.support}, the value is {leaf}",
                fix="start inside of the support",
            )


def _initial(decl: ParamDecl, key: jax.Array, known: dict[Var, Any]) -> Any:
    import zlib

    import equinox as eqx

    info = decl.info
    if info.initialiser is not None:
        tree = info.initialiser(jax.random.fold_in(key, zlib.crc32(decl.name.encode())))
        return jax.tree.map(lambda x: jax.numpy.asarray(x) if eqx.is_array(x) else x, tree)
    leaves = [evaluate(decl.inits[i], known, decl) for i in range(info.treedef.num_leaves)]
    return eqx.combine(jax.tree.unflatten(info.treedef, leaves), info.static)


def evaluate(atom: Atom, known: dict[Var, Any], decl: ParamDecl) -> Any:
    """Compute a variable from the program's arguments, on demand."""
    if isinstance(atom, Lit):
        return jax.numpy.asarray(atom.val, atom.aval.dtype)
    if atom not in known:
        eqn = atom.eqn
        if eqn is None or eqn.kind in ("site", "foreign_site") or eqn.blocks:
            raise UnsupportedError(
                f"the initial value of parameter {decl.name!r} is not known before the run",
                where=decl.where,
                because="it depends on a random choice, on another parameter, or on a loop's state",
                fix="compute it from the program's arguments, or give a function `key -> value`",
            )
        args = [evaluate(a, known, decl) for a in eqn.ins]
        known.update(zip(eqn.outs, _compat.bind_eqn(eqn.jax_eqn, args), strict=True))
    return known[atom]
