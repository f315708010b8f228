"""Equations on constant tables: done while a program is lowered.

The values of an enumerated choice are a NumPy array. Along its lanes they repeat, which a stride of
0 tells, and what is computed from them alone is such an array again. So a loop sees that its state
is one table in each step, and an array that is indexed by a choice in 100,000 lanes is looked up
once for all lanes: on the way back, a sum instead of a scatter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl import _compat
from ppl.compiler.axis_rules import ELEMENTWISE
from ppl.compiler.influence import Source
from ppl.compiler.tables import Val, batched, distinct, union
from ppl.lang.staged import Atom, Eqn, Lit, Var


def evaluate(eqn: Eqn, vals: Sequence[Val]) -> list[Val] | None:
    """The results of an equation on constant tables, or `None` if it has none to offer."""
    rule = _rules.get(eqn.kind)
    tabled = any(v.axes and isinstance(v.array, np.ndarray) for v in vals)
    return rule(eqn, vals) if rule is not None and tabled and eqn.impl is None else None


def _elementwise(eqn: Eqn, vals: Sequence[Val]) -> list[Val] | None:
    axes = union(vals)
    vals = [_filled_in(a, v) for a, v in zip(eqn.ins, vals, strict=True)]
    if not all(_compat.is_concrete(v.array) for v in vals):
        return None
    sizes = {a: n for v in vals for a, n in zip(v.axes, v.array.shape, strict=False)}
    lead = tuple(sizes[a] for a in axes)
    whole = (*lead, *np.broadcast_shapes(*(v.shape for v in vals)))
    arrays = [distinct(np.broadcast_to(_laid(v, axes, len(whole)), whole)) for v in vals]
    core = np.broadcast_shapes(*(a.shape for a in arrays))
    if math.prod(core) > _MOST:
        return None
    with jax.ensure_compile_time_eval():
        outs = eqn.run([np.broadcast_to(a, core) for a in arrays])
    return [Val(np.broadcast_to(np.asarray(x), whole), axes) for x in outs]


def _filled_in(atom: Atom, val: Val) -> Val:
    """The value; an array of one known number, such as `jnp.ones(10)`, as a constant."""
    made = atom.eqn if isinstance(atom, Var) else None
    if made is None or made.kind != "broadcast_in_dim" or not isinstance(made.ins[0], Lit):
        return val
    number = np.asarray(made.ins[0].val)
    return val if number.ndim else Val(np.broadcast_to(number, made.params["shape"]))


def _laid(val: Val, axes: Sequence[Source], rank: int) -> np.ndarray:
    """The table with these enumerated axes, of size 1 where it has none, and of this rank.

    A scalar may decide for a whole array (`select_n`).
    """
    array = np.transpose(
        np.asarray(val.array),
        [*(val.axes.index(a) for a in axes if a in val.axes),
         *range(len(val.axes), np.ndim(val.array))],
    )  # fmt: skip
    missing = [i for i, a in enumerate(axes) if a not in val.axes]
    own = range(len(axes), rank - len(val.shape))
    return np.expand_dims(array, (*missing, *own))


def _broadcast(eqn: Eqn, vals: Sequence[Val]) -> list[Val] | None:
    (val, *sizes), params = vals, eqn.params
    if sizes:
        return None
    lead = len(val.axes)
    kept, rank = params["broadcast_dimensions"], len(params["shape"])
    array = np.expand_dims(val.array, tuple(lead + d for d in range(rank) if d not in kept))
    return [Val(np.broadcast_to(array, (*array.shape[:lead], *params["shape"])), val.axes)]


def _transpose(eqn: Eqn, vals: Sequence[Val]) -> list[Val]:
    (val,) = vals
    lead = len(val.axes)
    order = [*range(lead), *(lead + d for d in eqn.params["permutation"])]
    return [Val(np.transpose(val.array, order), val.axes)]


def _squeeze(eqn: Eqn, vals: Sequence[Val]) -> list[Val]:
    (val,) = vals
    return [Val(np.squeeze(val.array, tuple(len(val.axes) + d for d in eqn.params["dimensions"])),
                val.axes)]  # fmt: skip


def _gather(eqn: Eqn, vals: Sequence[Val]) -> list[Val] | None:
    """One lookup for all lanes that look up the same."""
    operand, index = vals
    numbers = eqn.params["dimension_numbers"]
    if not isinstance(index.array, np.ndarray) or numbers.operand_batching_dims:
        return None
    out = batched(lambda *xs: eqn.run(xs), [operand, Val(distinct(index.array), index.axes)])[0]
    shape = (*out.array.shape[: len(out.axes)], *eqn.outs[0].aval.shape)
    return [Val(jnp.broadcast_to(out.array, shape), out.axes)]


def _rows(eqn: Eqn, vals: Sequence[Val]) -> list[Val] | None:
    """An array indexed by a choice with the values 0, 1, ..., its length - 1, is the array."""
    operand, *starts = vals
    sizes, array = list(eqn.params["slice_sizes"]), operand.array
    by = [d for d, start in enumerate(starts) if start.axes]
    if operand.axes or len(by) != 1 or sizes[by[0]] != 1:
        return None
    d, index = by[0], starts[by[0]]
    if len(index.axes) != 1 or not np.array_equal(index.array, np.arange(operand.shape[d])):
        return None
    sizes[d] = operand.shape[d]
    if tuple(sizes) != operand.shape:
        at = [0 if i == d else start.array for i, start in enumerate(starts)]
        array = lax.dynamic_slice(array, at, sizes)
    numpy: Any = np if isinstance(array, np.ndarray) else jnp
    return [Val(numpy.expand_dims(numpy.moveaxis(array, d, 0), 1 + d), index.axes)]


_MOST = 4096
"""Entries of a table that are computed in advance: more would weigh in the compiled program."""

_rules: dict[str, Callable[[Eqn, Sequence[Val]], list[Val] | None]] = {
    **dict.fromkeys(set(ELEMENTWISE) - {"require"}, _elementwise),
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "gather": _gather,
    "dynamic_slice": _rows,
}
