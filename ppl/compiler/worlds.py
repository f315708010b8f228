"""Worlds: what the costs would have been, had a choice come out otherwise.

Some strategies compare costs at several values of a choice. All of them share one axis, `WORLDS`,
of static size. World 0 is the actual one. Each other world belongs to some choice, which takes an
alternate value there; all that follows from it follows, with common random numbers, and all else
is as in world 0. Values that cannot differ between worlds do not have the axis.

The choice (`alternates`) publishes *charges*, a table `[worlds, lanes]` whose derivative counts:
the gradient of a cost is its derivative in world 0, plus the sum over the worlds of the cost there,
times the derivative of the charge (`lower`). So if, for every function h of the choice,

    d E[h(x)] = E[ sum over worlds u of  h(x_u) d charge_u ],

then the estimator is unbiased: h is the cost's expectation given x and all before it.

In some worlds the cost's own derivative counts too, times a number (`Request.shares`): these are
estimates of the whole gradient at another, relaxed program. In them, all other choices with
alternatives are scored, and their charge is the log-probability.

How many worlds? One for each alternate value. An alternate may be taken in all lanes at once if
each entry of each cost depends on one lane; lanes (and steps of a loop) that a cost combines are
kept *apart*: each has worlds of its own. Choices that no cost has in common share worlds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ppl.compiler.influence import (
    WORLDS,
    Alignment,
    Analysis,
    Influence,
    Order,
    Past,
    Site,
    Sliced,
    Source,
    Stacked,
    Undrawn,
    covered,
    site_of,
    source_lanes,
)
from ppl.compiler.tables import Val, batched
from ppl.lang.staged import Block, Eqn, Var

Lane = int | Eqn
"""A lane of a choice: one of its own batch axes, or the steps of a loop around it."""


@dataclass(frozen=True, eq=False)
class Slots:
    """The worlds that a choice owns: `alternates` for each combination of lanes kept apart.

    Attributes:
        start: the first of them.
        loops: loops around the choice whose steps are kept apart, outermost first.
        axes: the choice's own axes that are kept apart.
        prune: whether all alternates share one world, and one of them is picked at random.
    """

    start: int
    alternates: int
    loops: tuple[Eqn, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]
    prune: bool = False

    @property
    def per_step(self) -> int:
        return self.alternates * math.prod(self.shape[i] for i in self.axes)

    @property
    def steps(self) -> int:
        return math.prod(loop.params["length"] for loop in self.loops)

    @property
    def size(self) -> int:
        return min(1, self.per_step) if self.prune else self.per_step * self.steps

    @property
    def stop(self) -> int:
        return self.start + self.size

    def step(self, steps: Mapping[Eqn, Any]) -> Any:
        """The number of the current step, among those kept apart."""
        at: Any = 0
        for loop in self.loops:
            at = at * loop.params["length"] + steps[loop]
        return at

    def taken(self) -> np.ndarray:
        """`[per_step, *lanes]`: which lanes take their alternate value in which world."""
        out = np.ones((1, *self.shape), bool)
        for i in self.axes:
            n = self.shape[i]
            own = np.eye(n, dtype=bool).reshape(
                n, *(n if j == i else 1 for j in range(out.ndim - 1))
            )
            out = (out[:, None] & own).reshape(-1, *self.shape)
        return np.repeat(out, self.alternates, 0)


@dataclass(frozen=True)
class Request:
    """What a choice asks for.

    Attributes:
        alternates: how many alternate values there are.
        together: whether an alternate replaces all lanes at once, however costs combine them.
        shares: where the costs' own derivatives count too, what each of them is multiplied by, one
            number per alternate; choices with the same shares and `group` share these worlds, and
            take their alternates together.
        prune: whether one of all alternates is picked at random, so that one world does.
    """

    alternates: int
    together: bool
    shares: tuple[float, ...] = ()
    group: Any = None
    prune: bool = False


def allocate(
    analysis: Analysis,
    costs: Sequence[Var],
    requests: Mapping[Eqn, Request],
    lane_sizes: Callable[[Eqn], tuple[int, ...]],
    loops: Mapping[Eqn, tuple[Eqn, ...]],
) -> dict[Eqn, Slots]:
    """Give each choice its worlds; choices that share no cost may share worlds.

    Args:
        loops: the loops around each choice, outermost first.
    """
    rivals: dict[Eqn, set[Eqn]] = {eqn: set() for eqn in requests}
    apart = {eqn: _own_past(analysis, eqn) for eqn in requests}
    for var in costs:
        sources = covered(analysis.of(var).score)
        here = {site_of(s) for s in sources} & requests.keys()
        for eqn in here:
            rivals[eqn] |= here - {eqn}
        for source, alignment in sources.items():
            eqn = site_of(source)
            if eqn in here and not requests[eqn].together:
                apart[eqn] |= _lanes_apart(source, alignment, lane_sizes)
    slots: dict[Eqn, Slots] = {}
    for eqn, request in requests.items():
        if request.shares:
            group = [e for e, r in requests.items() if r == request]
            others = set().union(*(rivals[e] for e in group)).difference(group)
            new = Slots(1, request.alternates, (), (), lane_sizes(eqn))
            kin = next((slots[e] for e in group if e in slots), None)
        else:
            axes = tuple(sorted(i for i in apart[eqn] if isinstance(i, int)))
            around = tuple(loop for loop in loops[eqn] if loop in apart[eqn])
            new = Slots(1, request.alternates, around, axes, lane_sizes(eqn), request.prune)
            others, kin = rivals[eqn], None
        start = kin.start if kin else _free(new, [slots[r] for r in others if r in slots])
        slots[eqn] = replace(new, start=start)
    return slots


def _free(new: Slots, others: Sequence[Slots]) -> int:
    """The first worlds that do not meet those of others."""
    start = new.start
    for other in sorted(others, key=lambda s: s.start):
        if start + new.size > other.start:
            start = max(start, other.stop)
    return start


def _own_past(analysis: Analysis, eqn: Eqn) -> set[Lane]:
    """Loops in which a choice depends on what it was in earlier steps.

    Then the alternates of two steps cannot be taken in one world.
    """
    decides = [*analysis.params_of[eqn].score, *analysis.guards[eqn].score]
    return {lane for s in decides if site_of(s) is eqn for lane in _remembered(s)}


def _lanes_apart(
    source: Source, alignment: Alignment, sizes: Callable[[Eqn], tuple[int, ...]]
) -> set[Lane]:
    """The lanes of a choice that a value combines."""
    names, lengths = _lane_names(source), source_lanes(source, sizes)
    mixed = {
        name
        for name, n, e in zip(names, lengths, alignment, strict=True)
        if n > 1 and (e is None or e.order is not Order.EXACT)
    }
    return mixed | _remembered(source)


def _remembered(source: Source) -> set[Lane]:
    """The lanes along which a source means several draws: the earlier steps of a loop."""
    match source:
        case Site() | Undrawn():
            return set()
        case Past(_, Sliced(_, inner, lane) as now):
            return {_lane_names(inner)[lane]} | _remembered(now)
        case Past(loop, inner):
            return {loop} | _remembered(inner)
    return _remembered(source.inner)


def _lane_names(source: Source) -> tuple[Lane, ...]:
    match source:
        case Site(eqn):
            return tuple(range(len(eqn.params["shape"])))
        case Stacked(loop, inner):
            return (loop, *_lane_names(inner))
        case Sliced(_, inner, lane):
            outer = _lane_names(inner)
            return (*outer[:lane], *outer[lane + 1 :])
        case Undrawn():
            return ()
    return _lane_names(source.inner)


@dataclass(frozen=True, eq=False)
class Shares:
    """What each world adds to the derivative of a cost.

    Attributes:
        follows: `[worlds]`, whether the cost's own derivative counts; else only charges do.
        weights: what the derivative is multiplied by.
    """

    follows: np.ndarray
    weights: tuple[float, ...]

    def cut(self, x: Array, axis: int) -> Array:
        """Cut the derivative of `x`, whose worlds are along `axis`, where only charges count."""
        follows = self.follows.reshape(-1, *(1,) * (x.ndim - axis - 1))
        return jnp.where(follows, x, lax.stop_gradient(x))

    def charged(self, charge: Val, slots: Slots | None) -> Val:
        """A charge in the worlds where it counts: those that follow, and the choice's own."""
        mine = np.zeros_like(self.follows)
        if slots is not None:
            mine[slots.start : slots.stop] = True
        counts = Val(self.follows | mine, (WORLDS,))
        return batched(lambda c, x: [jnp.where(c, x, 0)], [counts, charge])[0]


@dataclass(frozen=True, eq=False)
class WorldMap:
    """Which worlds belong to which choice.

    Attributes:
        moving: the values through which a derivative with respect to the parameters flows.
    """

    slots: Mapping[Eqn, Slots]
    requests: Mapping[Eqn, Request]
    moving: set[Var]

    @property
    def size(self) -> int:
        """How many worlds there are, the actual one included."""
        return max((s.stop for s in self.slots.values()), default=1)

    def moving_names(self, eqn: Eqn) -> tuple[str, ...]:
        """The parameters of a choice that move with those of the program."""
        named = zip(eqn.params["names"], eqn.ins, strict=True)
        return tuple(n for n, a in named if a in self.moving)

    def shares(self, influence: Influence) -> Shares | None:
        """What each world adds to the derivative of a cost; `None` if they are all the same."""
        sites = {site_of(s) for s in influence.score} & self.slots.keys()
        if not sites:
            return None
        follows, weights = np.arange(self.size) == 0, [1.0] * self.size
        for eqn in sites:
            start, shares = self.slots[eqn].start, self.requests[eqn].shares
            follows[start : start + len(shares)] = True
            weights[start : start + len(shares)] = shares
        return Shares(follows, tuple(weights))

    def scored(self, eqn: Eqn) -> np.ndarray:
        """Numbers of the worlds that follow some other choice: there, this one is scored."""
        own, found = self.slots[eqn], set()
        for other, slots in self.slots.items():
            if self.requests[other].shares:
                found |= set(range(slots.start, slots.stop))
        return np.array(sorted(found - set(range(own.start, own.stop))), int)


def loops_around(block: Block, outside: tuple[Eqn, ...] = ()) -> Iterator[tuple[Eqn, Any]]:
    """Each choice, and the loops around it, outermost first."""
    for eqn in block.eqns:
        if eqn.kind == "site":
            yield eqn, outside
        within = (*outside, eqn) if eqn.kind == "scan" else outside
        for inner in eqn.blocks:
            yield from loops_around(inner, within)
