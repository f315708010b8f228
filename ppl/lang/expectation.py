"""`E`: expectations as values, with the arithmetic that keeps estimates unbiased."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from ppl.errors import ExpectationError

_numbers = itertools.count()


class Expectation:
    """An expected value, known through an unbiased estimate; made by `E`.

    Expectations may be added, subtracted, scaled by numbers, and multiplied if their draws are
    independent. Anything else would bias the estimate, and raises.
    """

    __array_ufunc__ = None  # a NumPy array on the left leaves the operation to us

    def __init__(self, value: Array, draws: frozenset[int]):
        self.value, self.draws = value, draws

    def __add__(self, other: Expectation | ArrayLike) -> Expectation:
        return _linear(self, other, jnp.add)

    def __radd__(self, other: ArrayLike) -> Expectation:
        return _linear(self, other, jnp.add)

    def __sub__(self, other: Expectation | ArrayLike) -> Expectation:
        return _linear(self, other, jnp.subtract)

    def __rsub__(self, other: ArrayLike) -> Expectation:
        return _linear(-self, other, jnp.add)

    def __neg__(self) -> Expectation:
        return Expectation(-self.value, self.draws)

    def __mul__(self, other: Expectation | ArrayLike) -> Expectation:
        if isinstance(other, Expectation) and self.draws & other.draws:
            raise ExpectationError(
                "an expectation was multiplied by one that shares its draws",
                because="E[x]**2 is not E[x**2]: the estimate would be biased by the variance",
                fix="estimate each factor with draws of its own: E(f) * E(f)",
            )
        return _linear(self, other, jnp.multiply)

    __rmul__ = __mul__

    def __truediv__(self, other: ArrayLike) -> Expectation:
        if isinstance(other, Expectation):
            _refuse("division by an expectation")
        return Expectation(self.value / other, self.draws)

    def __rtruediv__(self, other: Any) -> Any:
        return _refuse("division by an expectation")

    def __pow__(self, other: Any) -> Any:
        return _refuse("a power of an expectation")

    @property
    def dtype(self) -> Any:
        # JAX asks for it to turn an argument into an array. (With `__jax_array__` instead, an
        # array on the left, `x * E(f)`, would never get to `__rmul__`.)
        return _refuse("a non-linear function of an expectation (log, exp, where, ...)")

    def __float__(self) -> float:
        return _refuse("conversion of an expectation to a number")

    def __bool__(self) -> bool:
        return _refuse("a branch on an expectation")

    def __lt__(self, other: Any) -> Any:
        return _refuse("a comparison of expectations")

    __le__ = __gt__ = __ge__ = __lt__


def _refuse(what: str) -> Any:
    raise ExpectationError(
        f"{what} would bias the estimate",
        because="only an estimate of the expectation is known, and the mean of a non-linear "
        "function of an estimate is not the function of the mean",
        fix="take the function inside, E(lambda: f(...)); for log-expectations use a bound of "
        "log-mean-exp over samples (vi.iwelbo), which says what it estimates",
    )


def _linear(a: Expectation, b: Expectation | ArrayLike, op: Callable) -> Expectation:
    if isinstance(b, Expectation):
        return Expectation(op(a.value, b.value), a.draws | b.draws)
    return Expectation(op(a.value, b), a.draws)


def E(fun: Callable[[], ArrayLike | Expectation]) -> Expectation:
    """The expectation of what `fun` returns, over the choices that it makes.

    `fun` may itself return an expectation, over further choices. Each call of `E` draws anew, so
    `E(f) * E(f)` is an unbiased estimate of E[f] squared.

    >>> total = 2.0 * E(lambda: 3.0) - 1.0
    >>> float(total.value)
    5.0
    """
    result, draws = fun(), frozenset({next(_numbers)})
    if isinstance(result, Expectation):  # E[E[x]] = E[x]
        return Expectation(result.value, draws | result.draws)
    return Expectation(jnp.asarray(result), draws)
