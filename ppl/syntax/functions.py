"""The deterministic functions of the text language: their types.

`elaborate` gives them to JAX, the reference interpreter to NumPy, both by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ppl.syntax.types import INF, NONNEGATIVE, POSITIVE, REAL, UNIT, Interval


@dataclass(frozen=True)
class Elementwise:
    """A function of each entry: where the entries must lie, and where the results do.

    `smooth`: without jumps, so that a reparameterised value may go through it.
    """

    image: Callable[[Interval], Interval]
    domain: Interval = REAL
    smooth: bool = True


def _monotone(f: Callable[[float], float]) -> Callable[[Interval], Interval]:
    def image(i: Interval) -> Interval:
        return Interval(_safe(f, i.low), _safe(f, i.high), i.open_low)

    return image


def _safe(f: Callable[[float], float], x: float) -> float:
    try:
        return f(x)
    except OverflowError:
        return INF
    except ValueError:
        return -INF


def _square(i: Interval) -> Interval:
    ends = (i.low * i.low, i.high * i.high)
    if i.low <= 0 <= i.high:
        return Interval(0.0, max(ends), i.is_positive)
    return Interval(min(ends), max(ends))


def _abs(i: Interval) -> Interval:
    low = 0.0 if i.low <= 0 <= i.high else min(abs(i.low), abs(i.high))
    return Interval(low, max(abs(i.low), abs(i.high)), i.is_positive)


def _to(interval: Interval) -> Callable[[Interval], Interval]:
    return lambda _: interval


def _exp(i: Interval) -> Interval:
    return Interval(_safe(math.exp, i.low), _safe(math.exp, i.high), i.low == -INF)


_SYMMETRIC = Interval(-1.0, 1.0)

ELEMENTWISE: dict[str, Elementwise] = {
    "exp": Elementwise(_exp),
    "expm1": Elementwise(_monotone(math.expm1)),
    "log": Elementwise(_monotone(math.log), NONNEGATIVE),
    "log1p": Elementwise(_monotone(math.log1p), Interval(-1.0)),
    "sqrt": Elementwise(_monotone(math.sqrt), NONNEGATIVE),
    "square": Elementwise(_square),
    "abs": Elementwise(_abs),
    "tanh": Elementwise(_to(_SYMMETRIC)),
    "sigmoid": Elementwise(_to(UNIT)),
    "logit": Elementwise(_to(REAL), UNIT),
    "softplus": Elementwise(_to(POSITIVE)),
    "relu": Elementwise(lambda i: Interval(max(i.low, 0.0), max(i.high, 0.0), i.is_positive)),
    "sin": Elementwise(_to(_SYMMETRIC)),
    "cos": Elementwise(_to(_SYMMETRIC)),
    "log_gamma": Elementwise(_to(REAL), POSITIVE),
    "floor": Elementwise(_to(REAL), smooth=False),
    "stop_gradient": Elementwise(lambda i: i),
    "assume_continuous": Elementwise(lambda i: i),
}
"""Functions of one argument, entry by entry."""

PAIRWISE = {
    "minimum": lambda a, b: Interval(min(a.low, b.low), min(a.high, b.high)),
    "maximum": lambda a, b: Interval(
        max(a.low, b.low), max(a.high, b.high), a.is_positive or b.is_positive
    ),
}
"""Functions of two arguments, entry by entry."""


def _sum_of(i: Interval) -> Interval:
    low = 0.0 if i.low >= 0 else -INF
    return Interval(low, 0.0 if i.high <= 0 else INF, i.is_positive)


REDUCTIONS: dict[str, Callable[[Interval], Interval]] = {
    "sum": _sum_of,
    "prod": lambda i: POSITIVE if i.is_positive else UNIT if i.within(UNIT) else REAL,
    "mean": lambda i: i,
    "max": lambda i: i,
    "min": lambda i: i,
    "logsumexp": _to(REAL),
    "log_mean_exp": _to(REAL),
    "any": lambda i: i,
    "all": lambda i: i,
}
"""Functions from an array to a number, or along one `axis`."""

AXIS = {"softmax": "simplex", "log_softmax": None, "cumsum": None}
"""Functions along the last axis, and the structure of their result."""

MAKERS = {
    "zeros": Interval(0.0, 0.0),
    "ones": Interval(1.0, 1.0),
    "eye": UNIT,
    "arange": NONNEGATIVE,
}
"""Functions from sizes to an array."""

OTHER = {
    "len": "the number of entries along the first axis",
    "fill": "fill(value, sizes...): an array of equal entries",
    "one_hot": "one_hot(index, size)",
    "dot": "the inner product of two vectors",
    "transpose": "the transposed matrix",
    "diagonal": "the diagonal of a matrix",
    "cholesky": "the lower Cholesky factor of a positive definite matrix",
    "real": "a whole number or truth value as a real number",
    "concat": "vectors one after the other",
}
IN_OBJECTIVES = {
    "sim": "sim(program(...)) -> (choices, log q)",
    "density": "density(program(...), choices) -> log p",
    "E": "E(value): an expectation",
    "elbo": "elbo(model(...), guide(...), {observed})",
    "iwelbo": "iwelbo(model(...), guide(...), {observed}, particles = K)",
}
PROGRAMS = {
    "marginal": "marginal(program(...), keep = {names}, by = METHOD)",
    "normalize": "normalize(program(...), by = METHOD)",
    "mixture": "mixture(weights, distribution)",
}
METHODS = {
    "enumeration": 0,
    "importance": 2,
    "sir": 2,
}
"""How to integrate, and the number of arguments: a proposal and a number of particles."""

FUNCTIONS = frozenset(ELEMENTWISE) | set(PAIRWISE) | set(REDUCTIONS) | set(AXIS)
FUNCTIONS |= set(MAKERS) | set(OTHER)
