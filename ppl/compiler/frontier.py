"""Frontiers: the part of a program in which the lanes of a choice are combined.

A cost that combines lanes (the log of an average of K weights) is a function of values that still
have them apart (the K log-weights). Those values are the *frontier*; what stands between them and
the cost can be evaluated again, with other values in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ppl.compiler.influence import (
    Alignment,
    Analysis,
    Final,
    Order,
    Past,
    Site,
    Sliced,
    Source,
    Stacked,
    Undrawn,
    site_of,
)
from ppl.compiler.tables import Val, batched
from ppl.errors import StrategyError
from ppl.lang.staged import Atom, Eqn, Lit, Var


@dataclass(frozen=True, eq=False)
class Frontier:
    """Where one lane axis of a choice is combined on the way to a cost.

    Attributes:
        cost: the cost.
        lane: which lane axis.
        inputs: the values that enter, with the axis along which the lane runs in each.
        eqns: the equations from there to the cost, in order.
    """

    cost: Var
    lane: int
    inputs: Mapping[Var, int]
    eqns: tuple[Eqn, ...]


def find_frontier(
    analysis: Analysis, cost: Var, source: Source, sizes: tuple[int, ...]
) -> Frontier | None:
    """The smallest part in which a lane axis of `source` is combined; `None` if there is none,
    or if only the steps of a loop are combined, by the loop itself.

    Args:
        sizes: of the lane axes.

    Raises:
        StrategyError: lanes are combined by something that cannot be evaluated again.
    """
    alignment: Alignment = analysis.of(cost).score[source]
    combined = [i for i, e in enumerate(alignment) if sizes[i] > 1 and not _is_exact(e)]
    found = [_walk(analysis, cost, source, lane) for lane in combined]
    parts = [f for f in found if isinstance(f, Frontier)]
    loops = _step_lanes(source)
    obstacles = [f for i, f in zip(combined, found, strict=True) if i not in loops]
    if obstacles and not parts:
        obstacle = obstacles[0]
        assert not isinstance(obstacle, Frontier)
        what = "a loop's state" if obstacle is None else f"'{obstacle.kind}' at {obstacle.where}"
        site = site_of(source)
        raise StrategyError(
            "the lanes of this choice are combined where they cannot be told apart again",
            address=site.params["address"],
            where=site.where,
            because=f"a per-lane baseline evaluates the rest of the program once per lane, and "
            f"{what} on the way to the cost at {cost.eqn.where if cost.eqn else '?'} makes "
            "choices or loops over them",
            fix=f"strategies={{'{site.params['address']}': Score('leave_one_out')}}, or combine "
            "the lanes after the loop",
        )
    return min(parts, key=lambda f: len(f.eqns), default=None)


def _step_lanes(source: Source) -> set[int]:
    """Which lane axes are the steps of loops."""
    match source:
        case Site() | Undrawn():
            return set()
        case Stacked(_, inner):
            return {0, *(i + 1 for i in _step_lanes(inner))}
        case Sliced(_, inner, lane):
            return {i - (i > lane) for i in _step_lanes(inner) if i != lane}
        case Past(_, inner) | Final(_, inner):
            return _step_lanes(inner)


def _is_exact(entry: object) -> bool:
    return entry is not None and getattr(entry, "order", None) is Order.EXACT


def _walk(analysis: Analysis, cost: Var, source: Source, lane: int) -> Frontier | Eqn | None:
    """The frontier of one lane axis, or the equation that stands in the way."""
    inputs: dict[Var, int] = {}
    order: dict[Eqn, None] = {}
    todo: list[tuple[Atom, bool]] = [(cost, False)]
    while todo:  # depth first, so that `order` ends up in program order
        atom, entered = todo.pop()
        alignment = analysis.of(atom).score.get(source)
        if isinstance(atom, Lit) or alignment is None or atom in inputs or atom.eqn in order:
            continue
        entry = alignment[lane]
        if entry is not None and entry.order is Order.EXACT:
            inputs[atom] = entry.axis
        elif atom.eqn is None or atom.eqn.kind == "site" or atom.eqn.blocks:
            return atom.eqn
        elif entered:
            order[atom.eqn] = None
        else:
            todo.append((atom, True))
            todo += [(a, False) for a in atom.eqn.ins]
    return Frontier(cost, lane, inputs, tuple(order))


def evaluate(frontier: Frontier, inputs: Mapping[Var, Val], read: Callable[[Atom], Val]) -> Val:
    """The cost, with other values at the frontier.

    Args:
        read: the value of anything else.
    """
    env = dict(inputs)
    for eqn in frontier.eqns:
        vals = [env[a] if isinstance(a, Var) and a in env else read(a) for a in eqn.ins]
        env.update(zip(eqn.outs, batched(lambda *xs, e=eqn: e.run(xs), vals), strict=True))
    return env[frontier.cost]
