"""Tabulated values: arrays with one leading axis per enumerated choice that they depend on."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ppl.compiler.influence import Alignment, Along, Order, Source
from ppl.lang.primitives import log_density_values


@dataclass(frozen=True, eq=False)
class Val:
    """A value: `array` has one leading axis for each source in `axes`."""

    array: Any
    axes: tuple[Source, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape without the enumerated axes."""
        return jnp.shape(self.array)[len(self.axes) :]


def distinct(array: np.ndarray) -> np.ndarray:
    """The array with size 1 along axes where it only repeats."""
    return array[tuple(slice(0, 1) if step == 0 else slice(None) for step in array.strides)]


def as_array(array: Any) -> Array:
    """As an array of JAX; what repeats is broadcast by the program, not stored in it."""
    if not isinstance(array, np.ndarray):
        return jnp.asarray(array)
    return jnp.broadcast_to(jnp.asarray(distinct(array)), array.shape)


def union(vals: Sequence[Val]) -> tuple[Source, ...]:
    """The enumerated axes of all values, in order of first appearance."""
    return tuple(dict.fromkeys(a for v in vals for a in v.axes))


def spread(val: Val, axes: tuple[Source, ...]) -> Array:
    """The array with axes in the given order, size 1 where the value does not have one."""
    order = [val.axes.index(a) for a in axes if a in val.axes]
    n = len(val.axes)
    array = as_array(val.array)
    if order != sorted(order):
        array = jnp.transpose(array, [*order, *range(n, array.ndim)])
    missing = [i for i, a in enumerate(axes) if a not in val.axes]
    return jnp.expand_dims(array, missing) if missing else array


def batched(fun: Callable[..., Sequence[Any]], vals: Sequence[Val]) -> list[Val]:
    """Apply a function of plain arrays once per combination of enumerated values."""
    axes = union(vals)
    if not axes:
        return [Val(x) for x in fun(*(v.array for v in vals))]
    arrays = [spread(v, tuple(a for a in axes if a in v.axes)) for v in vals]
    for axis in reversed(axes):
        fun = jax.vmap(fun, in_axes=tuple(0 if axis in v.axes else None for v in vals), out_axes=0)
    return [Val(x, axes) for x in fun(*arrays)]


def elementwise(
    fun: Callable[..., Sequence[Any]], vals: Sequence[Val], scalars: bool = True
) -> list[Val]:
    """`batched` for an operation on arrays of one shape, in one call and without `vmap`.

    Args:
        scalars: whether the operation takes scalars among arrays.
    """
    axes = union(vals)
    if not axes:
        return [Val(x) for x in fun(*(v.array for v in vals))]
    sizes = {a: n for v in vals for a, n in zip(v.axes, jnp.shape(v.array), strict=False)}
    shape = (*(sizes[a] for a in axes), *np.broadcast_shapes(*(v.shape for v in vals)))
    plain = [scalars and not (v.axes or v.shape) for v in vals]
    arrays = [v.array if p else _filled(v, axes, shape) for v, p in zip(vals, plain, strict=True)]
    return [Val(x, axes) for x in fun(*arrays)]


def _filled(val: Val, axes: tuple[Source, ...], shape: tuple[int, ...]) -> Any:
    """The array with all axes, broadcast to `shape`."""
    order = tuple(a for a in axes if a in val.axes)
    array = spread(val, order)
    lead = [i for i, a in enumerate(axes) if a in order]
    own = range(len(shape) - len(val.shape), len(shape))
    return lax.broadcast_in_dim(array, shape, (*lead, *own)) if array.shape != shape else array


def broadcasting(fun: Callable[..., Array], vals: Sequence[Val], ranks: Sequence[int]) -> Val:
    """`batched` for a function that broadcasts over batch axes, as a family's log-density does.

    Args:
        ranks: of one value of each argument; what an argument has more are batch axes, which
            broadcast from the right. The enumerated axes become the first ones.
    """
    axes = union(vals)
    batch = max(len(v.shape) - rank for v, rank in zip(vals, ranks, strict=True))
    arrays = []
    for val, rank in zip(vals, ranks, strict=True):
        array = val.array
        if val.axes:
            array = spread(val, axes[min(map(axes.index, val.axes)) :])
            lead, missing = array.ndim - len(val.shape), batch - (len(val.shape) - rank)
            array = jnp.expand_dims(array, range(lead, lead + missing)) if missing else array
        arrays.append(array)
    return Val(fun(*arrays), axes)


def log_densities(vals: Sequence[Val], params: Mapping[str, Any]) -> Val:
    """Log-densities of tabulated values at tabulated parameters.

    Args:
        vals: the values, then the parameters.
        params: of a `log_density` equation.
    """
    ranks = [params["event_ndims"], *(params["family"].parameters[n] for n in params["names"])]
    if _lists_all_values(vals, params):
        return _log_probabilities(vals, params)
    return broadcasting(lambda *xs: log_density_values(*xs, **params), vals, ranks)


def _lists_all_values(vals: Sequence[Val], params: Mapping[str, Any]) -> bool:
    """Whether the value is the constant table of all values, and its family has all at once."""
    (value, *given), family = vals, params["family"]
    if family.log_probabilities is None or not isinstance(value.array, np.ndarray):
        return False
    if len(value.axes) != 1 or any(value.axes[0] in v.axes for v in given):
        return False
    structs = [jax.ShapeDtypeStruct(v.shape, v.array.dtype) for v in given]
    with jax.ensure_compile_time_eval():
        every = np.asarray(family.enumerate(dict(zip(params["names"], structs, strict=True))))
    event = value.array.ndim - params["event_ndims"]
    lanes = (1,) * (event - 1)
    same_event = every.shape[1:] == value.array.shape[event:]
    every = every.reshape(len(every), *lanes, *every.shape[1:])
    return same_event and len(every) == len(value.array) and bool(np.all(every == value.array))


def _log_probabilities(vals: Sequence[Val], params: Mapping[str, Any]) -> Val:
    (value, *given), family = vals, params["family"]
    lanes = value.shape[: len(value.shape) - params["event_ndims"]]

    def every(*arrays: Array) -> list[Array]:
        log_p = family.log_probabilities(**dict(zip(params["names"], arrays, strict=True)))
        shape = np.broadcast_shapes(lanes, log_p.shape[1:])
        missing = tuple(range(1, 1 + len(shape) - (log_p.ndim - 1)))
        return [jnp.broadcast_to(jnp.expand_dims(log_p, missing), (len(log_p), *shape))]

    out = batched(every, given)[0]
    return Val(out.array, (*out.axes, *value.axes))


def lay_along(lanes: Array, lead: int, alignment: Alignment, ndim: int) -> Array:
    """Move lane axes to where they run in a value of rank `ndim`.

    Args:
        lanes: `lead` leading axes that stay, then one axis per lane.
        alignment: where each lane runs; a mixed lane is summed over, a running one accumulated.

    Returns:
        the leading axes, then `ndim` axes of size 1 or of the lane's size.
    """
    target: dict[int, int] = {}
    for lane, entry in enumerate(alignment):
        if entry is not None and entry.axis in target.values():
            entry = None  # two lanes along one axis: mixing one of them is sound
        if entry is not None:
            target[lane] = entry.axis
            if entry.order is not Order.EXACT:
                reverse = entry.order is Order.SUFFIX
                lanes = jax.lax.cumsum(lanes, lead + lane, reverse=reverse)
    gone = tuple(lead + i for i in range(len(alignment)) if i not in target)
    if gone:
        lanes = jnp.sum(lanes, gone)
    kept = sorted(target)
    order = sorted(range(len(kept)), key=lambda j: target[kept[j]])
    if order != list(range(len(kept))):
        lanes = jnp.transpose(lanes, [*range(lead), *(lead + j for j in order)])
    full = list(lanes.shape[:lead])
    sizes = {target[kept[j]]: lanes.shape[lead + i] for i, j in enumerate(order)}
    return jnp.reshape(lanes, (*full, *(sizes.get(i, 1) for i in range(ndim))))


@dataclass(frozen=True, eq=False)
class Factor:
    """Conditional probabilities of some enumerated choices given others.

    Attributes:
        table: `[*axes, *lanes]`; for `members`, sums to one over them.
        members: the choices whose joint probability this is.
        lanes: for each axis of the table, where that choice's lanes run among the table's lanes.
    """

    table: Val
    members: tuple[Source, ...]
    lanes: Mapping[Source, Alignment]


def always(source: Source, size: int) -> Factor:
    """The table of a source that others are conditional on: ones, so that it stays an axis."""
    return Factor(Val(jnp.ones(size), (source,)), (source,), {source: ()})


class Conflict(Exception):
    """Choices cannot be tabulated together; `source` is one of them."""

    def __init__(self, source: Source, because: str):
        super().__init__(because)
        self.source, self.because = source, because


def weights(
    axes: tuple[Source, ...],
    wanted: Mapping[Source, Alignment],
    ndim: int,
    factors: Mapping[Source, Factor],
    memo: dict[Any, Array],
) -> Array:
    """Joint probability of the choices `axes`, for each lane.

    The newest choice is replaced by its parents, and so on, which ends with the oldest ones; what
    was computed on the way is kept, so a chain of choices costs one small product per link.

    Args:
        axes: the choices.
        wanted: where the lanes of each choice run in a value of rank `ndim`.
        factors: the choices' conditional probabilities, oldest first.
        memo: joint probabilities computed so far.

    Returns:
        `[*axes, *lanes]` with `ndim` trailing axes, of size 1 where no lane runs.

    Raises:
        Conflict: a value combines lanes that the choices' probabilities keep apart.
    """
    age = {source: i for i, source in enumerate(factors)}
    # Oldest first, as the tables are (a choice after its parents): mostly nothing is transposed.
    order = tuple(sorted(axes, key=age.__getitem__))
    table = _joint(order, wanted, ndim, factors, age, memo)
    if order != axes:
        lead = [order.index(a) for a in axes]
        table = jnp.transpose(table, [*lead, *range(len(axes), table.ndim)])
    return table


def joint_name(order: tuple[Source, ...], wanted: Mapping[Source, Alignment], ndim: int) -> Any:
    """What the table `[*order, *lanes]` is remembered by; `order` is from oldest to newest."""
    return order, tuple(wanted[a] for a in order), ndim


def _joint(order, wanted, ndim, factors, age, memo) -> Array:
    name = joint_name(order, wanted, ndim)
    if name in memo:
        return memo[name]
    newest = order[-1]
    factor = factors[newest]
    where = dict(zip(order, name[1], strict=True))
    lane_to_axis = _lane_map(factor, where)
    rest = {a: where[a] for a in order if a not in factor.members}
    for parent in factor.table.axes:
        if parent in factor.members:
            continue
        there = tuple(
            Along(lane_to_axis[e.axis]) if e is not None and e.axis in lane_to_axis else None
            for e in factor.lanes[parent]
        )
        if rest.setdefault(parent, there) != there:
            raise Conflict(parent, "its lanes meet those of another choice crosswise")
    own = _lay_factor(factor, lane_to_axis, ndim)
    every = tuple(sorted({*rest, *factor.table.axes}, key=age.__getitem__))
    together = {**rest, **where}
    alone = together.keys() == set(every)  # no member of the factor that is not asked for
    if not rest and factor.table.axes == order:
        table = own
    elif alone and (wide := joint_name(every, together, ndim)) in memo:
        # The product is there already, not yet summed over the parents.
        table = jnp.sum(memo[wide], tuple(i for i, a in enumerate(every) if a not in where))
    else:
        known = tuple(a for a in every if a in rest)
        operands = [(factor.table.axes, own)]
        if known:
            operands.append((known, _joint(known, rest, ndim, factors, age, memo)))
        table = _multiply(operands, every, order, ndim)
    memo[name] = table
    return table


def _lane_map(factor: Factor, where: Mapping[Source, Alignment]) -> dict[int, int]:
    """Where the lanes of a factor's table run, given where those of its members do."""
    out: dict[int, int] = {}
    for member in factor.members:
        for own, outer in zip(factor.lanes[member], where.get(member, ()), strict=False):
            if own is not None and outer is not None:
                out.setdefault(own.axis, outer.axis)
    return out


def _lay_factor(factor: Factor, lane_to_axis: Mapping[int, int], ndim: int) -> Array:
    """The table with its lanes along the axes of a value of rank `ndim`."""
    lead = len(factor.table.axes)
    for lane, size in enumerate(factor.table.shape):
        if size != 1 and lane not in lane_to_axis:
            raise Conflict(factor.members[0], "a value combines its lanes")
    alignment = tuple(
        Along(lane_to_axis[i]) if i in lane_to_axis else None
        for i in range(len(factor.table.shape))
    )
    return lay_along(factor.table.array, lead, alignment, ndim)


def _multiply(
    operands: Sequence[tuple[tuple[Source, ...], Array]],
    every: tuple[Source, ...],
    target: tuple[Source, ...],
    ndim: int,
) -> Array:
    """Product of tables of choices among `every`, summed over all but `target`, lane by lane.

    `target` has the order of `every`.
    """
    spreads = [spread(Val(x, axes), every) for axes, x in operands]
    if math.prod(np.broadcast_shapes(*(x.shape for x in spreads))) <= _SMALL:
        product = functools.reduce(jnp.multiply, spreads)
        summed = tuple(i for i, a in enumerate(every) if a not in target)
        return jnp.sum(product, summed) if summed else product
    letters: dict[Any, str] = {}

    def letter(thing: Any) -> str:
        return letters.setdefault(thing, _LETTERS[len(letters)])

    terms, arrays, sizes = [], [], {}
    for axes, array in operands:
        lead = len(axes)
        lanes = [i for i in range(ndim) if array.shape[lead + i] != 1]
        sizes.update((i, array.shape[lead + i]) for i in lanes)
        flat = tuple(lead + i for i in range(ndim) if i not in lanes)
        arrays.append(lax.squeeze(array, flat) if flat else array)
        terms.append("".join([*map(letter, axes), *map(letter, lanes)]))
    out = "".join([*map(letter, target), *map(letter, sorted(sizes))])
    product = jnp.einsum(f"{','.join(terms)}->{out}", *arrays, precision=lax.Precision.HIGHEST)
    lead = product.shape[: len(target)]
    return lax.reshape(product, (*lead, *(sizes.get(i, 1) for i in range(ndim))))


_SMALL = 4096
"""Up to this size a product is multiplied out: XLA fuses that, and does not fuse a matrix product
into the loop around it (three times slower for an HMM of 3 states on a CPU)."""

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" + "".join(
    chr(0xC0 + i) for i in range(1000)
)


def contract(cost: Array, joint: Array, lead: int) -> Array:
    """Expectation of a tabulated cost; states of probability zero add exactly nothing.

    Args:
        cost: `[*axes, *shape]`, with `lead` axes.
        joint: `[*axes, *lanes]`, which broadcasts against it.
    """
    # Masking the cost is enough: where the probability is 0, so is every product with it, and
    # the derivative of the probability meets a 0.
    cost = jnp.broadcast_to(cost, jnp.broadcast_shapes(cost.shape, joint.shape))
    possible = jnp.broadcast_to(joint > 0, cost.shape)
    finite = lax.select(possible, cost, lax.full_like(cost, 0))
    return lax.reduce_sum(joint * finite, tuple(range(lead)))
