"""Slices of one array that do not overlap are taken by one split.

On the way back, each slice would be an array of zeros around what it got, and all of them would be
added up: with a slice for each of n choices that is n squared. A split's is one concatenation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from jax import lax
from jaxtyping import Array

from ppl.compiler.tables import Val
from ppl.lang.staged import Block, Eqn, Var


@dataclass(eq=False)
class Split:
    """The parts that an array is cut into along an axis.

    Attributes:
        sizes: of all parts, also of those that nobody takes.
        index: of the part that each slice is.
    """

    axis: int
    sizes: list[int]
    index: Mapping[Eqn, int]
    _parts: list[Array] = field(default_factory=list)

    def part(self, eqn: Eqn, val: Val) -> Val:
        """One of the slices of an array."""
        if not self._parts:
            self._parts = list(lax.split(val.array, self.sizes, len(val.axes) + self.axis))
        return Val(self._parts[self.index[eqn]], val.axes)


def splits(block: Block) -> dict[Eqn, Split]:
    """The slices in a block that can be parts of a split."""
    slices: dict[Var, list[Eqn]] = defaultdict(list)
    for eqn in block.eqns:
        # An empty slice has no part: where it starts, another one does.
        if eqn.kind == "slice" and isinstance(eqn.ins[0], Var) and eqn.outs[0].aval.size:
            slices[eqn.ins[0]].append(eqn)
    found = (_split(var, eqns) for var, eqns in slices.items())
    return {eqn: split for split in found if split is not None for eqn in split.index}


def _split(var: Var, eqns: list[Eqn]) -> Split | None:
    """One axis is cut, the others are whole."""
    shape = var.aval.shape
    axes = {d for eqn in eqns for d, n in enumerate(shape) if eqn.outs[0].aval.shape[d] != n}
    if len(axes) != 1 or any(set(eqn.params["strides"] or (1,)) != {1} for eqn in eqns):
        return None
    (axis,) = axes
    ranges = [(e.params["start_indices"][axis], e.params["limit_indices"][axis]) for e in eqns]
    ordered = sorted(set(ranges))
    if len(ordered) < 2 or any(a[1] > b[0] for a, b in pairwise(ordered)):
        return None
    edges = sorted({0, shape[axis], *(edge for r in ordered for edge in r)})
    number = {edge: i for i, edge in enumerate(edges)}
    sizes = [b - a for a, b in pairwise(edges)]
    return Split(
        axis, sizes, {e: number[start] for e, (start, _) in zip(eqns, ranges, strict=True)}
    )
