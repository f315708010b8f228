"""Objective programs: what to maximise, as an ordinary function that may make choices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from genjax.core import GFI

from ppl.lang.expectation import Expectation


@dataclass(frozen=True, eq=False)
class Objective:
    """A function of data whose expectation is to be maximised.

    Attributes:
        fun: the function; it may call `sim`, `density`, `E`, `param`, and draw.
        name: as shown to users.
        data: arguments that are used when none are given.
        guide: the program to sample from after a fit, if there is one.
        guide_args: its arguments.
        model: the program that the guide is for, if there is one; then the data are
            `(observed, args)`, or `(observed, args, guide_args)`.
    """

    fun: Callable[..., Any]
    name: str
    data: tuple[Any, ...] = ()
    guide: Any = None
    guide_args: tuple[Any, ...] = field(default=())
    model: Any = None

    def __call__(self, *data: Any) -> Any:
        result = self.fun(*data)
        return result.value if isinstance(result, Expectation) else result


def objective(fun: Callable[..., Any]) -> Objective:
    """Mark a function of data as an objective program (decorator); it is maximised.

    >>> @objective
    ... def bound(xs, ys):
    ...     z, log_q = sim(guide)(xs)
    ...     return density(model)(z | {"y": ys}, xs) - log_q
    """
    return Objective(fun, getattr(fun, "__name__", "objective"))


def as_objective(objective: Any) -> Objective:
    """An `Objective` from a function or an `Objective`.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(objective, Objective):
        return objective
    if isinstance(objective, GFI) or not callable(objective):
        raise TypeError(
            f"expected an objective program (a function of data that returns a number), found a "
            f"{type(objective).__name__}; vi.elbo(model, guide, observed=...) makes one"
        )
    return Objective(objective, getattr(objective, "__name__", "objective"))
