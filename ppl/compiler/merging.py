"""Costs that may be charged and averaged as one.

Cost terms are kept apart so that each choice is charged only with what it influences. Terms that
the same choices influence in the same lanes gain nothing by that: if they also reach the objective
in the same way, one estimate of their sum does, with one baseline and one contraction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ppl.compiler.influence import WORLDS, Analysis
from ppl.compiler.region import Region
from ppl.lang.staged import Block, Eqn, Var

_SUMS = frozenset({"add", "add_any", "sub", "neg"})


@dataclass(frozen=True, eq=False)
class Merged:
    """Costs estimated as one.

    Attributes:
        last: the last of them in the program; its estimate is that of all, the others' are zero.
        widest: the one that depends on the most enumerated choices; on no others do they depend.
        signs: with which sign each enters, relative to the last, in program order.
    """

    last: Var
    widest: Var
    signs: dict[Var, int]


def merged_costs(
    block: Block, region: Region, analysis: Analysis, apart: Callable[[Var], bool]
) -> dict[Var, Merged]:
    """The groups of two costs or more, by each of their costs.

    Args:
        apart: whether a cost must stay by itself.
    """
    users: dict[Var, list[Var]] = {}
    for user, parts in region.parts.items():
        for part in parts:
            if isinstance(part, Var):
                users.setdefault(part, []).append(user)
    found: dict[Var, Merged] = {}
    for inner in _blocks(block):
        made = [v for e in inner.eqns for v in e.outs if v in region.costs and not apart(v)]
        ways: dict[Any, list[tuple[Var, int]]] = {}
        for cost in made:
            end, sums, sign = _way(cost, users, inner)
            ways.setdefault((end, cost.aval.shape, cost.aval.dtype, sums), []).append((cost, sign))
        for alike in ways.values():
            for group in _alike(alike, analysis):
                last, last_sign = group[-1]
                signs = {v: sign * last_sign for v, sign in group}
                merged = Merged(last, _widest(signs, analysis), signs)
                found.update((v, merged) for v in signs if len(signs) > 1)
    return found


def _blocks(block: Block) -> Iterable[Block]:
    yield block
    for eqn in block.eqns:
        for inner in eqn.blocks:
            yield from _blocks(inner)


def _way(cost: Var, users: dict[Var, list[Var]], block: Block) -> tuple[Var, tuple[Any, ...], int]:
    """Where a cost gets to by sums alone: (the last sum, the axes summed over, its sign there)."""
    var, axes, sign = cost, [], 1
    while len(users.get(var, ())) == 1 and var not in block.outs:
        (user,) = users[var]
        eqn = user.eqn
        if eqn is None or eqn.blocks or eqn.ins.count(var) != 1:
            break
        if eqn.kind in _SUMS and user.aval.shape == var.aval.shape:
            sign = -sign if _negative(eqn, var) else sign
        elif eqn.kind == "reduce_sum":
            axes.append((eqn.params["axes"], var.aval.shape))
        else:
            break
        var = user
    return var, tuple(axes), sign


def _negative(eqn: Eqn, var: Var) -> bool:
    return eqn.kind == "neg" or (eqn.kind == "sub" and eqn.ins[1] is var)


def _alike(costs: list[tuple[Var, int]], analysis: Analysis) -> list[list[tuple[Var, int]]]:
    """Groups of costs with the same draws, whose tables are no larger together than the largest."""
    groups: list[list[tuple[Var, int]]] = []
    for cost in costs:
        fits = (g for g in groups if _fit([v for v, _ in (*g, cost)], analysis))
        group = next(fits, None)
        if group is None:
            groups.append([cost])
        else:
            group.append(cost)
    return groups


def _fit(costs: Iterable[Var], analysis: Analysis) -> bool:
    widest = analysis.of(_widest(costs, analysis))
    return all(
        i.score == widest.score
        and i.axes.items() <= widest.axes.items()
        and (WORLDS in i.axes) == (WORLDS in widest.axes)
        for i in map(analysis.of, costs)
    )


def _widest(costs: Iterable[Var], analysis: Analysis) -> Var:
    return max(costs, key=lambda v: len(analysis.of(v).axes))
