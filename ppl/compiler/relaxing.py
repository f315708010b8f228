"""Relaxing a program: discrete values become numbers between 0 and 1 (or sums of such).

A relaxed choice (`strategies/gumbel_softmax.py`) has a float where the program has a boolean, a 0
or 1, or a one-hot vector of integers. This pass carries the floats through what follows, until
the program itself makes floats of them: one rule per primitive says what it computes on relaxed
values, as the multilinear extension of what it computes on 0 and 1. Where there is none (an
index, a branch) the pass stops with an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl import _compat
from ppl.errors import StrategyError
from ppl.lang.staged import Atom, Block, Eqn, Lit, Staged, Var

Rule = Callable[..., "Callable[..., Sequence[Any]] | None"]
"""`rule(pass, eqn)`: what the equation computes on relaxed values; `None`: it cannot."""

rules: dict[str, Rule] = {}


def relax(staged: Staged, sites: Iterable[Eqn]) -> None:
    """Relax these choices, and all that follows from them, in place.

    Raises:
        StrategyError: a relaxed value is used in a way that only a discrete one can be.
    """
    sites = [e for e in sites if not _is_real(e.outs[0])]
    if sites:
        _Relaxing(sites).block(staged.block)


class _Relaxing:
    """Attributes:
    origin: the choice that each relaxed variable comes from.
    unit: relaxed variables that were 0 or 1.
    """

    def __init__(self, sites: Sequence[Eqn]):
        self.sites = set(sites)
        self.origin: dict[Var, Eqn] = {}
        self.unit: set[Var] = set()

    def relaxed(self, atom: Atom) -> bool:
        return not isinstance(atom, Lit) and atom in self.origin

    def mark(self, var: Var, origin: Eqn, unit: bool) -> None:
        var.aval = _compat.ShapedArray(var.aval.shape, jnp.result_type(float))
        self.origin[var] = origin
        self.unit |= {var} if unit else set()

    def block(self, block: Block) -> None:
        for eqn in block.eqns:
            if eqn in self.sites:
                self.mark(eqn.outs[0], eqn, unit=True)
                continue
            if eqn.kind == "scan":
                self.scan(eqn)
                continue
            for inner in eqn.blocks:
                self.block(inner)
            if eqn.kind == "checkpoint":
                for var, atom in zip(eqn.outs, eqn.blocks[0].outs, strict=True):
                    self.follow(var, atom)
            elif came := self.among(eqn.ins):
                self.plain(eqn, self.origin[came[0]])
            elif leave := self.among(a for b in eqn.blocks for a in b.outs):
                raise _refusal(eqn, self.origin[leave[0]])

    def among(self, atoms: Iterable[Atom]) -> list[Var]:
        return [a for a in atoms if isinstance(a, Var) and a in self.origin]

    def follow(self, var: Var, atom: Atom) -> bool:
        """Relax `var` if `atom`, of which it is a copy, is; whether that is new."""
        if isinstance(atom, Lit) or atom not in self.origin or var in self.origin:
            return False
        self.mark(var, self.origin[atom], atom in self.unit)
        return True

    def scan(self, eqn: Eqn) -> None:
        body, n = eqn.blocks[0], eqn.params["num_carry"]
        while True:
            for var, atom in zip(body.ins, eqn.ins, strict=True):
                self.follow(var, atom)
            self.block(body)
            if not any([self.follow(body.ins[i], body.outs[i]) for i in range(n)]):
                break
        for i, var in enumerate(eqn.outs):
            self.follow(var, body.ins[i] if i < n else body.outs[i])

    def plain(self, eqn: Eqn, origin: Eqn) -> None:
        rule = rules.get(eqn.kind)
        impl = None if rule is None else rule(self, eqn)
        if impl is None:
            raise _refusal(eqn, origin)
        eqn.impl = impl
        unit = eqn.kind in _STILL_UNIT and all(self.is_unit(a) for a in eqn.ins)
        for var in eqn.outs:
            if not _is_real(var):
                self.mark(var, origin, unit)

    def is_unit(self, atom: Atom) -> bool:
        return not self.relaxed(atom) or atom in self.unit


def _refusal(eqn: Eqn, origin: Eqn) -> StrategyError:
    address = origin.params["address"]
    return StrategyError(
        "a relaxed choice is used where only a discrete one can be",
        address=address,
        where=eqn.where,
        because=f"'{eqn.kind}' has no meaning for a value between 0 and 1",
        fix=f"make a float of it before, z.astype(float); or strategies={{'{address}': 'score'}}",
    )


def _is_real(var: Var) -> bool:
    return jnp.issubdtype(var.aval.dtype, jnp.inexact)


# ------------------------------------------------------------------------------------- rules


def rule_for(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        rules.update(dict.fromkeys(names, rule))
        return rule

    return register


_MOVES = (
    "reshape broadcast_in_dim transpose squeeze expand_dims slice concatenate rev copy split "
    "stop_gradient"
).split()
_STILL_UNIT = {*_MOVES, *"gather dynamic_slice convert_element_type not and or xor eq ne".split()}


@rule_for(*_MOVES, "add", "sub", "mul", "neg", "add_any", "reduce_sum", "cumsum", "pad")
def _same(relaxing: _Relaxing, eqn: Eqn):
    """Linear in each operand: the same on floats."""
    return lambda *xs: _compat.bind_eqn(eqn.jax_eqn, [_real(x) for x in xs])


@rule_for("gather", "dynamic_slice")
def _indexed(relaxing: _Relaxing, eqn: Eqn):
    if any(relaxing.relaxed(a) for a in eqn.ins[1:]):
        return None
    return lambda x, *at: _compat.bind_eqn(eqn.jax_eqn, [_real(x), *at])


@rule_for("convert_element_type")
def _convert(relaxing: _Relaxing, eqn: Eqn):
    to = eqn.params["new_dtype"]
    real = jnp.issubdtype(to, jnp.inexact)
    if to == jnp.dtype(bool) and eqn.ins[0] not in relaxing.unit:
        return None
    return lambda x: [x.astype(to) if real else x]


@rule_for("dot_general")
def _dot_general(relaxing: _Relaxing, eqn: Eqn):
    p = eqn.params
    return lambda x, y: [
        lax.dot_general(_real(x), _real(y), p["dimension_numbers"], precision=p["precision"])
    ]


@rule_for("select_n")
def _select(relaxing: _Relaxing, eqn: Eqn):
    if not relaxing.relaxed(eqn.ins[0]):
        return lambda k, *xs: [lax.select_n(k, *map(_real, xs))]
    if len(eqn.ins) != 3 or not relaxing.is_unit(eqn.ins[0]):
        return None
    return lambda k, no, yes: [(1 - k) * _real(no) + k * _real(yes)]


@rule_for("not")
def _not(relaxing: _Relaxing, eqn: Eqn):
    return (lambda x: [1 - x]) if relaxing.is_unit(eqn.ins[0]) else None


def _logical(relaxing: _Relaxing, eqn: Eqn):
    if not all(relaxing.is_unit(a) for a in eqn.ins):
        return None
    return {
        "and": lambda x, y: [_real(x) * _real(y)],
        "or": lambda x, y: [1 - (1 - _real(x)) * (1 - _real(y))],
        "xor": lambda x, y: [_real(x) + _real(y) - 2 * _real(x) * _real(y)],
    }[eqn.kind]


rule_for("and", "or", "xor")(_logical)

_IS_ONE = {("eq", 1), ("ne", 0), ("gt", 0), ("ge", 1)}
_IS_ZERO = {("eq", 0), ("ne", 1), ("le", 0), ("lt", 1)}


@rule_for("eq", "ne", "gt", "ge", "le", "lt")
def _compared(relaxing: _Relaxing, eqn: Eqn):
    """`z == 1`, `z > 0`: the value itself; `z == 0`: what is missing to 1."""
    z, bound = eqn.ins
    if not (isinstance(bound, Lit) and jnp.size(bound.val) == 1 and relaxing.is_unit(z)):
        return None
    test = eqn.kind, int(bound.val)
    if test in _IS_ONE:
        return lambda z, _: [z]
    return (lambda z, _: [1 - z]) if test in _IS_ZERO else None


@rule_for("log_density")
def _log_density(relaxing: _Relaxing, eqn: Eqn):
    """Linear in the value: the log-probability of a one, times the value, and so on."""
    names, relaxation = eqn.params["names"], eqn.params["family"].relaxation
    if relaxation is None or any(relaxing.relaxed(a) for a in eqn.ins[1:]):
        return None
    shape = eqn.outs[0].aval.shape

    def log_density(x: Array, *params: Array) -> list[Array]:
        named = zip(names, map(jnp.asarray, params), strict=True)
        return [jnp.broadcast_to(relaxation.log_density(x, **dict(named)), shape)]

    return log_density


def _real(x: Any) -> Array:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))
