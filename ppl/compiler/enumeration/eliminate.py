"""Summing choices out of tables of log-weights, one after the other.

All tables that hold a choice are added, and the sum over its values is a new table without it
(variable elimination). Lanes of choices that run along one another are a *plate*: terms along a
plate are separate, so a choice in it is summed out lane by lane, and once nothing in a table
varies along a plate any more its entries are added up (Obermeyer et al., ICML 2019,
arXiv 1902.03210). Choices linked from lane to lane along a plate are a chain, summed out by the
forward recursion, which takes time linear in its length.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl.compiler.enumeration.tabulate import Table
from ppl.compiler.influence import (
    Alignment,
    Final,
    Order,
    Past,
    Site,
    Sliced,
    Source,
    Stacked,
)
from ppl.compiler.tables import Conflict
from ppl.lang.logspace import log_sum_exp

MAX_ENTRIES = 2**24
"""A table with more entries is refused."""


@dataclass(frozen=True)
class Before:
    """The lane before each lane of `base`, along its lane axis `lane`."""

    base: Source
    lane: int
    reverse: bool


@dataclass(frozen=True)
class Last:
    """The last lane of `base`, along its lane axis `lane`."""

    base: Source
    lane: int
    reverse: bool


Name = Source | Before | Last
Plate = tuple[Source, int]
"""A plate, named after one of the lane axes that run along it."""


def _canonical[L](source: Source, lanes: tuple[L, ...]) -> tuple[Name, tuple[L, ...]]:
    """One name for a choice, however it was reached, and what is said of its lanes, in its own
    order."""
    match source:
        case Site():
            return source, lanes
        case Stacked(loop, Past(_, inner)):
            base, lanes = _canonical(Stacked(loop, inner), lanes)
            assert not isinstance(base, Before | Last)
            step = _step_lane(Stacked(loop, inner))
            return Before(base, step, loop.params["reverse"]), lanes
        case Stacked(_, Sliced(_, inner, lane)):
            step, *rest = lanes
            return _canonical(inner, (*rest[:lane], step, *rest[lane:]))
        case Stacked(loop, inner):
            name, rest = _canonical(inner, lanes[1:])
            match name:
                case Before(base, lane, reverse):
                    return Before(Stacked(loop, base), lane + 1, reverse), (lanes[0], *rest)
                case Last(base, lane, reverse):
                    return Last(Stacked(loop, base), lane + 1, reverse), (lanes[0], *rest)
            return Stacked(loop, name), (lanes[0], *rest)
        case Final(loop, inner):
            with_steps: tuple[Any, ...] = (None, *lanes)
            base, all_lanes = _canonical(Stacked(loop, inner), with_steps)
            assert not isinstance(base, Before | Last)
            step = _step_lane(Stacked(loop, inner))
            rest = (*all_lanes[:step], *all_lanes[step + 1 :])
            return Last(base, step, loop.params["reverse"]), rest
    raise Conflict(source, "it is used in a way that has no table")


def _step_lane(source: Stacked) -> int:
    """Which lane axis of the canonical choice are the steps of the loop."""
    return source.inner.lane if isinstance(source.inner, Sliced) else 0


@dataclass(frozen=True, eq=False)
class Factor:
    """`array[*axes, *plates]`: log-weights by choices, separate along plates."""

    array: Array
    axes: tuple[Name, ...]
    plates: tuple[Plate, ...]

    def laid(self, axes: Sequence[Name], plates: Sequence[Plate]) -> Array:
        """The array with these axes and plates in this order, of size 1 where it lacks one."""
        own, wanted = [*self.axes, *self.plates], [*axes, *plates]
        array = jnp.transpose(self.array, [own.index(a) for a in wanted if a in own])
        return jnp.expand_dims(array, [i for i, a in enumerate(wanted) if a not in own])


class _Plates:
    """Which lane axes run along one another: sets of lane axes, merged as that is found out."""

    def __init__(self) -> None:
        self.parent: dict[Plate, Plate] = {}

    def root(self, plate: Plate) -> Plate:
        while (above := self.parent.setdefault(plate, plate)) != plate:
            plate = above
        return plate

    def join(self, plates: Iterable[Plate]) -> None:
        first, *rest = map(self.root, plates)
        for other in rest:
            self.parent[self.root(other)] = self.root(first)


def lane_axes(name: Name, num_lanes: int) -> list[Plate]:
    """The lane axes of a choice, as plates."""
    match name:
        case Before(base, _, _):
            return [(base, i) for i in range(num_lanes)]
        case Last(base, lane, _):
            return [(base, i) for i in range(num_lanes + 1) if i != lane]
    return [(name, i) for i in range(num_lanes)]


@dataclass(frozen=True, eq=False)
class Summed:
    """A choice that was summed out: `table[*axes, *plates]` were the log-weights."""

    name: Name
    table: Array
    axes: tuple[Name, ...]
    plates: tuple[Plate, ...]


@dataclass(frozen=True, eq=False)
class Recursion:
    """A chain that was summed out.

    Attributes:
        bases: the choices that are linked along `plate`.
        starts: the outer choices that the first step remembers, where there are any.
        given: outer choices that all tables depend on.
        plates: the other plates.
        reverse: whether the steps run backwards.
        states: `[steps, *given, *bases, *plates]`, log-weights of all before each step, by what the
            step remembers.
        tables: `[steps, *given, *remembered, *bases, *plates]`, log-weights that link a step with
            what it remembers.
        last: `[*given, *bases, *plates]`, log-weights after the last step.
    """

    bases: tuple[Source, ...]
    starts: tuple[Name | None, ...]
    ends: tuple[Last, ...]
    given: tuple[Name, ...]
    plate: Plate
    plates: tuple[Plate, ...]
    reverse: bool
    states: Array
    tables: Array
    last: Array


class Elimination:
    """log of the sum of exp(sum of all tables) over all choices, and how it came about.

    Args:
        starts: the outer choices from which chains start, or which of their values (`tabulate`).
        size_of: number of values of a choice.
        lanes_of: sizes of a choice's lanes.

    Attributes:
        total: the result.
        trail: what was summed out, in order.

    Raises:
        Conflict: lanes of a choice cannot be kept apart, or a table would be too large.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        starts: Mapping[Source, Source | int],
        size_of: Callable[[Source], int],
        lanes_of: Callable[[Source], tuple[int, ...]],
    ):
        self.plates = _Plates()
        self.lanes: dict[Name, int] = {}
        self.lengths: dict[Plate, int] = {}
        self.sizes: dict[Name, int] = {}
        self.starts: dict[Name, Name] = {}
        self.first: dict[Name, int] = {}
        for table in tables:
            _check_apart(table, lanes_of)
        named = [self._named(t, size_of, lanes_of) for t in tables]
        for source, start in starts.items():
            past = _canonical(source, (None,) * len(lanes_of(source)))[0]
            assert isinstance(past, Before)
            if isinstance(start, int):
                self.first[past.base] = start
                continue
            outer = _canonical(start, (None,) * len(lanes_of(start)))[0]
            if past.base not in self.lanes or outer not in self.lanes:
                continue
            self.starts[past.base] = outer
            steps = lane_axes(Last(past.base, past.lane, past.reverse), self.lanes[outer])
            for pair in zip(steps, lane_axes(outer, self.lanes[outer]), strict=True):
                self.plates.join(pair)
        self.total: Array = jnp.zeros(())
        self.trail: list[Summed | Recursion] = []
        self.factors: list[Factor] = []
        for table, lanes in zip(tables, named, strict=True):
            self._add(self._factor(table, lanes))
        self._run()

    def _named(
        self,
        table: Table,
        size_of: Callable[[Source], int],
        lanes_of: Callable[[Source], tuple[int, ...]],
    ) -> dict[Name, Alignment]:
        """The table's choices by canonical name; joins the plates of lanes that it aligns."""
        lanes = dict(_canonical(a, table.lanes[a]) for a in table.axes)
        if len(lanes) != len(table.axes):
            raise Conflict(table.axes[0], "a value depends on it in two ways")
        for source, (name, alignment) in zip(table.axes, lanes.items(), strict=True):
            self.lanes[name], self.sizes[name] = len(alignment), size_of(source)
            if isinstance(name, Before | Last):
                more = isinstance(name, Last)
                self.lanes.setdefault(name.base, len(alignment) + more)
                self.sizes.setdefault(name.base, size_of(source))
        along: dict[int, list[Plate]] = {}
        for name, alignment in lanes.items():
            for plate, entry in zip(lane_axes(name, len(alignment)), alignment, strict=True):
                if entry is not None:
                    along.setdefault(entry.axis, []).append(plate)
        for plates in along.values():
            self.plates.join(plates)
        for source in table.axes:
            name, sizes = _canonical(source, lanes_of(source))
            self.lengths.update(zip(lane_axes(name, len(sizes)), sizes, strict=True))
        return lanes

    def _length(self, plate: Plate) -> int:
        """Along a plate; a table in which nothing varies along it may have length 1 there."""
        root = self.plates.root(plate)
        return max(n for p, n in self.lengths.items() if self.plates.root(p) == root)

    def _in_full(self, array: Array, axes: Sequence[Name], plates: Sequence[Plate]) -> Array:
        """`array[*axes, *plates]` with all entries along the plates."""
        lead = array.shape[: len(axes)]
        return jnp.broadcast_to(array, (*lead, *map(self._length, plates)))

    def _factor(self, table: Table, lanes: Mapping[Name, Alignment]) -> Factor:
        names, lead = tuple(lanes), len(table.axes)
        plates: dict[int, Plate] = {}
        for name, alignment in lanes.items():
            for plate, entry in zip(lane_axes(name, len(alignment)), alignment, strict=True):
                if entry is not None:
                    plates[entry.axis] = self.plates.root(plate)
        if len(set(plates.values())) < len(plates):
            raise Conflict(table.axes[0], "a value combines its lanes crosswise")
        dims = range(table.array.ndim - lead)
        array = jnp.sum(table.array, tuple(lead + d for d in dims if d not in plates))
        return Factor(array, names, tuple(plates[d] for d in dims if d in plates))

    def _plates_of(self, name: Name) -> set[Plate]:
        return {self.plates.root(p) for p in lane_axes(name, self.lanes[name])}

    def _add(self, factor: Factor) -> None:
        """Add a table, with its entries along plates that no choice in it is in added up."""
        inside = {p for a in factor.axes for p in self._plates_of(a)}
        gone = [i for i, p in enumerate(factor.plates) if p not in inside]
        lead = len(factor.axes)
        array = self._in_full(factor.array, factor.axes, factor.plates) if gone else factor.array
        array = jnp.sum(array, tuple(lead + i for i in gone))
        kept = tuple(p for p in factor.plates if p in inside)
        if factor.axes:
            self.factors.append(Factor(array, factor.axes, kept))
        else:
            self.total = self.total + array

    # ------------------------------------------------------------------------- elimination

    def _run(self) -> None:
        while self.factors:
            options = [*self._choices(), *self._chains()]
            if not options:
                first = next(a for f in self.factors for a in f.axes)
                raise Conflict(_source(first), "it is linked with others in different plates")
            entries, act = min(options, key=lambda option: option[0])
            if entries > MAX_ENTRIES:
                first = next(a for f in self.factors for a in f.axes)
                raise Conflict(_source(first), f"its table would have {entries} entries")
            act()

    def _around(self, names: set[Name]) -> tuple[list[Factor], list[Name], list[Plate]]:
        """The tables with any of these choices, and all their choices and plates."""
        factors = [f for f in self.factors if not names.isdisjoint(f.axes)]
        axes = list(dict.fromkeys(a for f in factors for a in f.axes))
        plates = list(dict.fromkeys(p for f in factors for p in f.plates))
        return factors, axes, plates

    def _entries(self, factors: Sequence[Factor], axes: Sequence[Name]) -> int:
        plates = {p for f in factors for p in f.plates}
        return math.prod(self.sizes[a] for a in axes) * math.prod(map(self._length, plates))

    def _choices(self) -> Iterable[tuple[int, Callable[[], None]]]:
        """Choices that can be summed out now: (size of the table, what to do)."""
        linked = {a.base for f in self.factors for a in f.axes if isinstance(a, Before | Last)}
        used = {self.starts[b] for b in linked if b in self.starts}
        waiting = {*linked, *used}
        for name in dict.fromkeys(a for f in self.factors for a in f.axes):
            if isinstance(name, Before) or name in waiting:
                continue
            if isinstance(name, Last) and self._has_steps(name.base):
                continue
            factors, axes, plates = self._around({name})
            if set(plates) <= self._plates_of(name):
                yield (
                    self._entries(factors, axes),
                    functools.partial(self._sum_out, name, factors, axes, plates),
                )

    def _has_steps(self, base: Source) -> bool:
        return any(
            a == base or (isinstance(a, Before) and a.base == base)
            for f in self.factors
            for a in f.axes
        )

    def _sum_out(
        self, name: Name, factors: list[Factor], axes: list[Name], plates: list[Plate]
    ) -> None:
        self.factors = [f for f in self.factors if f not in factors]
        total = functools.reduce(jnp.add, [f.laid(axes, plates) for f in factors])
        total = self._in_full(total, axes, plates)
        self.trail.append(Summed(name, total, tuple(axes), tuple(plates)))
        rest = tuple(a for a in axes if a != name)
        self._add(Factor(log_sum_exp(total, axes.index(name)), rest, tuple(plates)))

    def _chains(self) -> Iterable[tuple[int, Callable[[], None]]]:
        """Chains that can be summed out now."""
        links: dict[Plate, dict[Source, bool]] = {}
        for name in (a for f in self.factors for a in f.axes):
            if isinstance(name, Before | Last):
                plate = self.plates.root((name.base, name.lane))
                links.setdefault(plate, {})[name.base] = name.reverse
        for plate, bases in links.items():
            if not any(self._has_steps(b) for b in bases):
                continue
            befores = [a for f in self.factors for a in f.axes if isinstance(a, Before)]
            names = {*bases, *(b for b in befores if b.base in bases)}
            factors, axes, plates = self._around(names)
            others = [a for a in axes if a not in names]
            inside = set.intersection(*map(self._plates_of, bases))
            apart = all(plate not in self._plates_of(a) for a in others)
            if set(plates) <= inside and apart and len(set(bases.values())) == 1:
                entries = self._entries(factors, axes)
                run = functools.partial(self._recur, plate, bases, factors, others, plates)
                yield entries, run

    def _recur(
        self,
        plate: Plate,
        bases: Mapping[Source, bool],
        factors: list[Factor],
        others: list[Name],
        plates: list[Plate],
    ) -> None:
        """The forward recursion along a plate."""
        self.factors = [f for f in self.factors if f not in factors]
        reverse = next(iter(bases.values()))
        lane = {b: next(i for i in range(self.lanes[b]) if self.plates.root((b, i)) == plate)
                for b in bases}  # fmt: skip
        before = {b: Before(b, lane[b], reverse) for b in bases}
        self.sizes.update((before[b], self.sizes[b]) for b in bases)
        rest = [p for p in plates if p != plate]
        first, given = self._first(bases, before, others, rest)
        lead = len(given)
        remembered = tuple(range(lead, lead + len(bases)))
        dtype = jnp.result_type(*(f.array for f in factors))

        def total(factors: Sequence[Factor], axes: list[Name]) -> Array:
            """`[plate, *axes, *rest]`; of length 1 along the plate if all steps are the same."""
            laid = [f.laid(axes, [plate, *rest]) for f in factors]
            nothing = jnp.zeros((1,) * (len(axes) + 1 + len(rest)), dtype)
            array = functools.reduce(jnp.add, laid, nothing)
            lanes = (array.shape[len(axes)], *map(self._length, rest))
            array = jnp.broadcast_to(array, (*(self.sizes[a] for a in axes), *lanes))
            return jnp.moveaxis(array, len(axes), 0)

        # What a step does not remember for is added once its past is summed out.
        linked = [f for f in factors if not set(before.values()).isdisjoint(f.axes)]
        links = total(linked, [*given, *before.values(), *bases])
        own = total([f for f in factors if f not in linked], [*given, *bases])
        scanned = [None if table.shape[0] == 1 else table for table in (links, own)]

        def step(state: Array, slices: list[Array | None]) -> tuple[Array, Array]:
            every = zip((links, own), slices, strict=True)
            link, more = (table[0] if one is None else one for table, one in every)
            state_and_past = jnp.expand_dims(state, tuple(i + len(bases) for i in remembered))
            return log_sum_exp(state_and_past + link, remembered) + more, state

        first = jnp.broadcast_to(first, own.shape[1:]).astype(dtype)
        length = self._length(plate)
        last, states = lax.scan(step, first, scanned, length=length, reverse=reverse)
        steps = jnp.broadcast_to(links, (length, *links.shape[1:]))
        ends = tuple(Last(b, lane[b], reverse) for b in bases)
        starts = tuple(self.starts.get(b) for b in bases)
        names = tuple(bases), starts, ends, tuple(given)
        self.trail.append(Recursion(*names, plate, tuple(rest), reverse, states, steps, last))
        wanted = {a for f in self.factors for a in f.axes}
        gone = tuple(lead + i for i, end in enumerate(ends) if end not in wanted)
        if gone:
            last = log_sum_exp(last, gone)
        left = tuple(end for end in ends if end in wanted)
        self._add(Factor(last, (*given, *left), tuple(rest)))

    def _first(
        self,
        bases: Iterable[Source],
        before: Mapping[Source, Before],
        others: list[Name],
        rest: list[Plate],
    ) -> tuple[Array, list[Name]]:
        """`[*given, *before, *rest]`: log-weights of what the first step remembers."""
        starts = {self.starts[b]: before[b] for b in bases if b in self.starts}
        factors, axes, plates = self._around(set(starts))
        if not set(plates) <= set(rest):
            raise Conflict(_source(next(iter(starts))), "it is linked with others in other plates")
        self.factors = [f for f in self.factors if f not in factors]
        given = [*others, *(a for a in axes if a not in starts and a not in others)]
        names = [*given, *before.values()]
        total = jnp.zeros((1,) * (len(names) + len(rest)))
        for factor in factors:
            renamed = tuple(starts.get(a, a) for a in factor.axes)
            total = total + Factor(factor.array, renamed, factor.plates).laid(names, rest)
        for b, name in before.items():
            if b not in self.starts:
                # A known start: an entry of the tables, or any, if they are the same for all.
                first = self.first.get(b, 0)
                known = jnp.where(jnp.arange(self.sizes[b]) == first, 0.0, -jnp.inf)
                at = names.index(name)
                total = total + known.reshape(
                    (1,) * at + (-1,) + (1,) * (len(names) + len(rest) - at - 1)
                )
        return total, given


def _source(name: Name) -> Source:
    return name.base if isinstance(name, Before | Last) else name


def _check_apart(table: Table, lanes_of: Callable[[Source], tuple[int, ...]]) -> None:
    for source in table.axes:
        sizes = lanes_of(source)
        for size, entry in zip(sizes, table.lanes[source], strict=True):
            if size > 1 and (entry is None or entry.order is not Order.EXACT):
                raise Conflict(source, "a value combines its lanes")
