"""Types: what the checker knows of a value without running anything.

A number's type says its kind, the interval it lies in, its shape, and for vectors and matrices
with a structure (`simplex`, ...) which. Sizes are integers or sums of unknown whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

INF = math.inf


@dataclass(frozen=True, slots=True)
class Size:
    """A whole number known up to unknowns: `constant + sum of coefficient * product of names`."""

    constant: int = 0
    terms: tuple[tuple[tuple[str, ...], int], ...] = ()

    @staticmethod
    def of(symbol: str) -> Size:
        return Size(0, (((symbol,), 1),))

    def __add__(self, other: Size) -> Size:
        return _size([*self._all(), *other._all()])

    def __neg__(self) -> Size:
        return _size((names, -c) for names, c in self._all())

    def __sub__(self, other: Size) -> Size:
        return self + -other

    def __mul__(self, other: Size) -> Size:
        pairs = [(a, b) for a in self._all() for b in other._all()]
        return _size((tuple(sorted(m + n)), c * d) for (m, c), (n, d) in pairs)

    def _all(self) -> list[tuple[tuple[str, ...], int]]:
        return [((), self.constant), *self.terms]

    @property
    def symbol(self) -> str | None:
        """The name, if the size is just one unknown."""
        if self.constant == 0 and len(self.terms) == 1:
            names, c = self.terms[0]
            return names[0] if len(names) == 1 and c == 1 else None
        return None

    @property
    def known(self) -> int | None:
        return None if self.terms else self.constant

    def symbols(self) -> set[str]:
        return {n for names, _ in self.terms for n in names}

    def put(self, values: Mapping[str, Size]) -> Size:
        """With unknowns replaced."""
        total = Size(self.constant)
        for names, c in self.terms:
            product = Size(c)
            for n in names:
                product = product * values.get(n, Size.of(n))
            total = total + product
        return total

    def __str__(self) -> str:
        parts = [
            ("" if c == 1 else "-" if c == -1 else f"{c}*") + "*".join(names)
            for names, c in self.terms
        ]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts).replace("+ -", "- ")


def _size(terms: Iterable[tuple[tuple[str, ...], int]]) -> Size:
    total: dict[tuple[str, ...], int] = {}
    for names, c in terms:
        total[names] = total.get(names, 0) + c
    constant = total.pop((), 0)
    return Size(constant, tuple(sorted((n, c) for n, c in total.items() if c)))


Shape = tuple[Size, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a number lies; `open_low`: the lower end is not reached."""

    low: float = -INF
    high: float = INF
    open_low: bool = False

    def within(self, outer: Interval) -> bool:
        above = self.low > outer.low or (
            self.low == outer.low and (self.open_low or not outer.open_low or self.low == -INF)
        )
        return above and self.high <= outer.high

    def __or__(self, other: Interval) -> Interval:
        low = min(self.low, other.low)
        lowest = [i for i in (self, other) if i.low == low]
        return Interval(low, max(self.high, other.high), all(i.open_low for i in lowest))

    def __add__(self, other: Interval) -> Interval:
        return Interval(
            self.low + other.low, self.high + other.high, self.open_low or other.open_low
        )

    def __neg__(self) -> Interval:
        return Interval(-self.high, -self.low)

    def __mul__(self, other: Interval) -> Interval:
        ends = [_times(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(min(ends), max(ends), self.is_positive and other.is_positive)

    def __truediv__(self, other: Interval) -> Interval:
        if not other.is_positive:
            return REAL
        low = 0.0 if other.high == INF else 1 / other.high
        return self * Interval(low, INF if other.low == 0 else 1 / other.low, True)

    @property
    def is_positive(self) -> bool:
        return self.within(POSITIVE)

    def __str__(self) -> str:
        named = {(-INF, INF): "real", (0.0, 1.0): "unit_interval"}
        if (self.low, self.high) == (0, INF):
            return "positive" if self.open_low else "nonnegative"
        return named.get((self.low, self.high), f"interval({self.low:g}, {self.high:g})")


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


REAL = Interval()
POSITIVE = Interval(0.0, INF, True)
NONNEGATIVE = Interval(0.0, INF)
UNIT = Interval(0.0, 1.0)
NUMBERS = {"real": REAL, "positive": POSITIVE, "nonnegative": NONNEGATIVE, "unit_interval": UNIT}

EVENTS = {
    "simplex": (1, UNIT),
    "ordered": (1, REAL),
    "positive_definite": (2, REAL),
    "lower_cholesky": (2, REAL),
    "correlation_cholesky": (2, Interval(-1.0, 1.0)),
}
"""Structured vectors and matrices: rank, and where their entries lie."""

STRUCTURES = {**EVENTS, "identity": (2, UNIT)}
"""Those, and what is not declared but known: the identity matrix is of several kinds."""


@dataclass(frozen=True)
class Type:
    """The type of a value."""


@dataclass(frozen=True)
class Unknown(Type):
    """Nothing is known, because of an error that was reported."""

    def __str__(self) -> str:
        return "unknown"


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Num(Type):
    """A number or an array.

    Attributes:
        kind: `real`, `int` or `bool`.
        within: where each entry lies.
        event: the structure along the last axes (see `EVENTS`), or `None`.
        size: the value, where it may serve as a size.
        noise: the reparameterised choices that it is computed from.
        random: whether it depends on draws in an objective.
    """

    kind: str = "real"
    within: Interval = REAL
    shape: Shape = ()
    event: str | None = None
    size: Size | None = None
    noise: frozenset[str] = frozenset()
    random: bool = False

    def __str__(self) -> str:
        base = self.event or (str(self.within) if self.kind == "real" else self.kind)
        return base + (f"[{', '.join(map(str, self.shape))}]" if self.shape else "")

    def lifted(self, *sizes: Size) -> Num:
        """An array of such values."""
        return replace(self, shape=(*sizes, *self.shape), size=None)

    def entry(self, axes: int = 1) -> Num:
        """What is left after indexing the first axes."""
        rest = self.shape[axes:]
        whole = self.event is not None and len(rest) >= STRUCTURES[self.event][0]
        return replace(self, shape=rest, event=self.event if whole else None, size=None)

    def plain(self, **changes: Any) -> Num:
        """Without what holds for this very value only."""
        return replace(self, **{"event": None, "size": None, **changes})


@dataclass(frozen=True)
class Rec(Type):
    """A record; also what a program's choices are: address -> type."""

    fields: Mapping[str, Type]

    def __str__(self) -> str:
        return "{" + ", ".join(f"{n}: {t}" for n, t in self.fields.items()) + "}"


@dataclass(frozen=True)
class Tup(Type):
    items: tuple[Type, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))})"


@dataclass(frozen=True)
class Dist(Type):
    """A distribution; `value` is the type of a draw."""

    name: str
    value: Num
    reparam: bool
    enum: bool

    def __str__(self) -> str:
        return f"a distribution on {self.value}"


@dataclass(frozen=True)
class Prog(Type):
    """A program with its arguments: its choices and its result."""

    name: str
    choices: Rec
    result: Type | None

    def __str__(self) -> str:
        return f"the program {self.name}"


@dataclass(frozen=True)
class Expect(Type):
    """An expectation, known by an estimate; `draws` tell independent ones apart."""

    draws: frozenset[int] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return "an expectation"


def shapes_in(t: Type) -> Iterator[Shape]:
    match t:
        case Num(shape=shape):
            yield shape
        case Rec(fields=fields):
            for f in fields.values():
                yield from shapes_in(f)
        case Tup(items=items):
            for i in items:
                yield from shapes_in(i)
        case Dist(value=value):
            yield from shapes_in(value)


def map_nums(t: Any, change: Any) -> Any:
    """A type with each number type in it changed."""
    match t:
        case Num():
            return change(t)
        case Rec(fields=fields):
            return Rec({n: map_nums(f, change) for n, f in fields.items()})
        case Tup(items=items):
            return Tup(tuple(map_nums(i, change) for i in items))
        case Dist(value=value):
            return replace(t, value=change(value))
        case Prog():
            result = None if t.result is None else map_nums(t.result, change)
            return replace(t, choices=map_nums(t.choices, change), result=result)
    return t


def put_sizes(t: Any, values: Mapping[str, Size]) -> Any:
    """A type with unknown sizes replaced."""

    def change(n: Num) -> Num:
        size = None if n.size is None else n.size.put(values)
        return replace(n, shape=tuple(s.put(values) for s in n.shape), size=size)

    return map_nums(t, change)


def join(a: Num, b: Num) -> Num:
    """The smallest type of both, shapes apart."""
    kinds = ("bool", "int", "real")
    return Num(
        max(a.kind, b.kind, key=kinds.index),
        a.within | b.within,
        a.shape,
        a.event if a.event == b.event else None,
        None,
        a.noise | b.noise,
        a.random or b.random,
    )


def broadcast(a: Shape, b: Shape) -> Shape | None:
    """The shape of an elementwise operation, `None` if the shapes do not fit."""
    if len(a) < len(b):
        a, b = b, a
    out = list(a)
    for i, size in enumerate(reversed(b), 1):
        if out[-i] == Size(1):
            out[-i] = size
        elif size not in (Size(1), out[-i]):
            return None
    return tuple(out)
