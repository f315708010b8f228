"""Joint values of enumerated choices that no array tells apart are one class, with one entry.

Three flips of which each counts only after the one before it have eight joint values, but "how many
come before the first 0?" has four. What is computed from such an answer alone, be it an image, is
computed for four classes; the probability of a class is the sum of those of its values.

A constant table that repeats is the origin of all classes (`condensed`). Where values meet that
are tabulated by classes and choices that overlap, they are tabulated by the classes that both tell
apart (`together`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ppl.compiler.influence import WORLDS, Classes, Source
from ppl.compiler.tables import Val, distinct, union


def choices(axes: Sequence[Source]) -> tuple[Source, ...]:
    """The choices that axes are about."""
    return tuple(s for a in axes for s in (a.of if isinstance(a, Classes) else (a,)))


def condensed(val: Val) -> Val:
    """A constant table by the classes that it tells apart, if these are fewer than its entries."""
    axes, lead = val.axes, len(val.axes)
    if not isinstance(val.array, np.ndarray) or not axes or WORLDS in axes:
        return val
    sizes = val.array.shape[:lead]
    entries = dict(zip(axes, sizes, strict=True))
    if _values(entries) > _MOST:
        return val
    rows = distinct(val.array)
    rows = np.broadcast_to(rows, (*sizes, *rows.shape[lead:])).reshape(math.prod(sizes), -1)
    classes, first = _number([row.tobytes() for row in rows])
    if len(first) == len(rows):
        return val
    at = _positions(entries)
    entry = np.ravel_multi_index([at.entry[a] for a in axes], sizes)
    axis = Classes(at.of, at.sizes, tuple(_number([classes[e] for e in entry])[0]))
    return Val(_rows(val.array, lead, first), (axis,))


def expanded(val: Val) -> Val:
    """A value with an axis for each choice."""
    for axis in val.axes:
        if isinstance(axis, Classes):
            at = val.axes.index(axis)
            array = _rows(_library(val).moveaxis(val.array, at, 0), 1, np.array(axis.index))
            array = array.reshape(*axis.sizes, *array.shape[1:])
            val = Val(array, (*axis.of, *val.axes[:at], *val.axes[at + 1 :]))
    return val


def together(vals: Sequence[Val]) -> list[Val]:
    """Values whose axes have no choice in common, unless they are the same axis."""
    vals = list(vals)
    axes = union(vals)
    if not any(isinstance(a, Classes) for a in axes):
        return vals
    sizes = {a: n for v in vals for a, n in zip(v.axes, jnp.shape(v.array), strict=False)}
    for group in _overlapping(axes):
        vals = _joined(vals, {a: sizes[a] for a in group})
    return vals


def collapsed(joint: Array, axes: Sequence[Source]) -> Array:
    """Probabilities of classes.

    Args:
        joint: `[*choices(axes), *lanes]`: of all values.

    Returns:
        `[*axes, *lanes]`.
    """
    for i, axis in enumerate(axes):
        if isinstance(axis, Classes):
            lead, lanes = joint.shape[:i], joint.shape[i + len(axis.of) :]
            values = jnp.reshape(joint, (*lead, 1, len(axis.index), *lanes))
            classes = np.arange(max(axis.index) + 1)[:, None]
            member = np.reshape(classes == axis.index, (len(classes), -1, *(1,) * len(lanes)))
            joint = jnp.sum(jnp.where(member, values, 0), i + 1)
    return joint


def _overlapping(axes: Sequence[Source]) -> list[list[Source]]:
    """The axes that have choices in common with others, in groups."""
    groups: list[list[Source]] = []
    for axis in axes:
        own = set(choices([axis]))
        linked = [g for g in groups if not own.isdisjoint(choices(g))]
        groups = [g for g in groups if g not in linked]
        groups.append([*(a for g in linked for a in g), axis])
    return [g for g in groups if len(g) > 1]


def _joined(vals: Sequence[Val], sizes: Mapping[Source, int]) -> list[Val]:
    """Values by the classes that these axes tell apart; by all choices, if that is no fewer."""
    if _values(sizes) <= _MOST:
        at = _positions(sizes)
        classes, first = _number(list(zip(*(at.entry[a] for a in sizes), strict=True)))
        if len(first) < len(classes):
            axis = Classes(at.of, at.sizes, tuple(classes))
            picked = {a: at.entry[a][first] for a in sizes}
            return [_by(v, axis, picked) for v in vals]
    return [expanded(v) if not sizes.keys().isdisjoint(v.axes) else v for v in vals]


def _by(val: Val, axis: Classes, picked: Mapping[Source, np.ndarray]) -> Val:
    """A value by classes of which the axes that it has take these entries."""
    own = [a for a in val.axes if a in picked]
    if not own:
        return val
    at = [val.axes.index(a) for a in own]
    array = _library(val).moveaxis(val.array, at, range(len(at)))
    index = np.ravel_multi_index([picked[a] for a in own], array.shape[: len(at)])
    return Val(_rows(array, len(at), index), (axis, *(a for a in val.axes if a not in picked)))


@dataclass(frozen=True)
class _Positions:
    """For all joint values of some choices, the entry that each axis has for them."""

    of: tuple[Source, ...]
    sizes: tuple[int, ...]
    entry: Mapping[Source, np.ndarray]


def _sizes(axes: Mapping[Source, int]) -> dict[Source, int]:
    """How many values the choices have."""
    found: dict[Source, int] = {}
    for axis, n in axes.items():
        sizes = axis.sizes if isinstance(axis, Classes) else (n,)
        found.update(zip(choices([axis]), sizes, strict=True))
    return found


def _values(axes: Mapping[Source, int]) -> int:
    """How many joint values the choices have."""
    return math.prod(_sizes(axes).values())


def _positions(axes: Mapping[Source, int]) -> _Positions:
    sizes = _sizes(axes)
    values = dict(
        zip(sizes, np.indices(tuple(sizes.values())).reshape(len(sizes), -1), strict=True)
    )

    def entry(axis: Source) -> np.ndarray:
        if not isinstance(axis, Classes):
            return values[axis]
        at = np.ravel_multi_index([values[s] for s in axis.of], axis.sizes)
        return np.array(axis.index)[at]

    return _Positions(tuple(sizes), tuple(sizes.values()), {a: entry(a) for a in axes})


def _number(things: Sequence[object]) -> tuple[list[int], np.ndarray]:
    """For each thing, the number of those before it that are new; and where each is first."""
    known: dict[object, int] = {}
    numbers = [known.setdefault(thing, len(known)) for thing in things]
    return numbers, np.array([numbers.index(i) for i in range(len(known))])


def _library(val: Val) -> Any:
    """What keeps a constant one."""
    return np if isinstance(val.array, np.ndarray) else jnp


def _rows(array: Array | np.ndarray, lead: int, index: np.ndarray) -> Array | np.ndarray:
    """Entries of an array whose first axes count as one."""
    if isinstance(array, np.ndarray):
        core = distinct(array)
        core = np.broadcast_to(core, (*array.shape[:lead], *core.shape[lead:]))
        rows = core[np.unravel_index(index, array.shape[:lead])]
        return np.broadcast_to(rows, (len(rows), *array.shape[lead:]))
    array = lax.reshape(array, (math.prod(array.shape[:lead]), *array.shape[lead:]))
    runs = [[i for _, i in run] for _, run in groupby(enumerate(index), lambda p: p[1] - p[0])]
    if len(runs) > _PIECES:
        return jnp.take(array, index, 0)
    # A gather's way back is a scatter, which is slow; that of slices is sums.
    pieces = [lax.slice_in_dim(array, int(run[0]), int(run[-1]) + 1) for run in runs]
    return lax.concatenate(pieces, 0) if len(pieces) > 1 else pieces[0]


_MOST = 4096
"""Joint values that are told apart at most: beyond, tables have an axis for each choice."""

_PIECES = 16
