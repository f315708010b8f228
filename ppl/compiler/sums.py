"""Sums that are added are one sum: `sum(a) + sum(b)` is computed as `sum(a + b)`.

The log-density of a program adds up one sum for each choice. XLA keeps the order of additions, and
so goes through the memory once for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ppl.compiler.tables import Val
from ppl.lang.staged import Atom, Eqn, Lit, Var


@dataclass(frozen=True, eq=False)
class Sum:
    """`array` summed over some of its axes."""

    array: Array
    axes: tuple[int, ...]

    @property
    def total(self) -> Array:
        return jnp.sum(self.array, self.axes) if self.axes else self.array


def as_sum(eqn: Eqn, vals: Sequence[Val], known: Mapping[Var, Sum]) -> Sum | None:
    """The sum that an equation computes, if it takes or adds up sums of plain arrays.

    Args:
        vals: what the equation reads.
        known: variables that are such sums.
    """
    rule = _rules.get(eqn.kind)
    return None if rule is None or eqn.impl is not None else rule(eqn, vals, known)


def _taken(eqn: Eqn, vals: Sequence[Val], known: Mapping[Var, Sum]) -> Sum | None:
    (val,) = vals
    plain = not val.axes and jnp.issubdtype(jnp.result_type(val.array), jnp.inexact)
    return Sum(jnp.asarray(val.array), tuple(eqn.params["axes"])) if plain else None


def _negated(eqn: Eqn, vals: Sequence[Val], known: Mapping[Var, Sum]) -> Sum | None:
    found = _of(eqn.ins[0], known)
    return None if found is None else Sum(-found.array, found.axes)


def _added(eqn: Eqn, vals: Sequence[Val], known: Mapping[Var, Sum]) -> Sum | None:
    a, b = eqn.ins
    if _is_zero(a) or _is_zero(b):
        return _of(b if _is_zero(a) else a, known)
    return _together(eqn, known, jnp.add)


def _subtracted(eqn: Eqn, vals: Sequence[Val], known: Mapping[Var, Sum]) -> Sum | None:
    return _together(eqn, known, jnp.subtract)


def _together(
    eqn: Eqn, known: Mapping[Var, Sum], combine: Callable[[Array, Array], Array]
) -> Sum | None:
    a, b = (_of(x, known) for x in eqn.ins)
    if a is None or b is None or a.axes != b.axes:
        return None
    alike = a.array.shape == b.array.shape and a.array.dtype == b.array.dtype
    return Sum(combine(a.array, b.array), a.axes) if alike else None


def _of(atom: Atom, known: Mapping[Var, Sum]) -> Sum | None:
    return known.get(atom) if isinstance(atom, Var) else None


def _is_zero(atom: Atom) -> bool:
    return isinstance(atom, Lit) and np.size(atom.val) == 1 and not np.any(atom.val)


_rules: dict[str, Callable[[Eqn, Sequence[Val], Mapping[Var, Sum]], Sum | None]] = {
    "reduce_sum": _taken,
    "neg": _negated,
    "add": _added,
    "add_any": _added,
    "sub": _subtracted,
}
