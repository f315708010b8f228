"""What a strategy is, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import jax
from jaxtyping import Array

from ppl.compiler.influence import Source
from ppl.compiler.tables import Val, batched
from ppl.errors import StrategyError, suggestion
from ppl.lang.family import Family
from ppl.lang.primitives import draw, draw_with_log_density, log_density_values
from ppl.lang.staged import Eqn

Kind = Literal["path", "score", "enum"]


class Strategy(Protocol):
    """How the gradient gets past a random choice.

    Attributes:
        name: as users write it.
        kind: what the analysis must know: `"path"` (the draw itself carries the derivative),
            `"score"` (the draw is cut, costs are charged with its log-probability), `"enum"`
            (the value gets an axis over its support).
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]

    @property
    def baseline(self) -> str:
        """What is subtracted from costs before they are charged (of kind `"score"`)."""
        ...

    def refusal(self, eqn: Eqn) -> str | None:
        """Why this choice cannot have the strategy, or `None` if it can."""
        ...

    def lower(self, choice: Choice) -> Val:
        """The value of the choice."""
        ...


@dataclass(frozen=True, eq=False)
class Choice:
    """A random choice being lowered.

    Attributes:
        source: the choice, as the analysis names it.
        params: its parameters' values.
        new_key: makes its key (not called where nothing is drawn).
        joint: whether all combinations of its lanes share one enumerated axis.
        logp: call with the log-probability `[*axes, *lanes]` that costs are charged with.
        probabilities: call with an enumerated choice's probabilities `[*axes, *lanes]`.
        own_log_density: call with the log-density of the value at itself `[*axes, *lanes]`, if it
            is known; the program's own request for it (`sim` makes one) then costs nothing.
        learned: what its control variate learned so far, or `None`.
        data: the objective's arguments.
        aside: call with a scalar 0 whose derivative, of mean zero, is to be added to the gradient.
    """

    eqn: Eqn
    source: Source
    params: list[Val]
    new_key: Callable[[], jax.Array]
    joint: bool
    logp: Callable[[Val], None]
    probabilities: Callable[[Val], None]
    own_log_density: Callable[[Val], None]
    learned: Any = None
    data: tuple[Any, ...] = ()
    aside: Callable[[Array], None] = lambda zero: None

    @property
    def family(self) -> Family:
        return self.eqn.params["family"]

    def draw(self) -> Val:
        """A draw, with common random numbers across enumerated values of the parameters."""
        key = self.new_key()
        return batched(lambda *ps: [draw(key, list(ps), **self.eqn.params)], self.params)[0]

    def draw_path(self) -> Val:
        """A draw as a function of its parameters; its log-density is published, if it is known."""
        if self.family.sample_with_log_density is None:
            return self.draw()
        key = self.new_key()
        value, log_density = batched(
            lambda *ps: draw_with_log_density(key, list(ps), **self.eqn.params), self.params
        )
        self.own_log_density(log_density)
        return value

    def log_density(self, value: Val) -> Val:
        """Log-density per lane at `value`."""
        static = {k: self.eqn.params[k] for k in ("family", "names")}
        rank = len(self.eqn.outs[0].aval.shape) - len(self.eqn.params["shape"])

        def evaluate(x: Array, *ps: Array) -> list[Array]:
            return [log_density_values(x, *ps, event_ndims=rank, **static)]

        return batched(evaluate, [value, *self.params])[0]


strategies: dict[str, Strategy] = {}
"""All strategies by name, with their default options."""


def register[T](strategy: type[T]) -> type[T]:
    """Add a strategy class to the table (class decorator)."""
    strategies[strategy.name] = strategy()  # type: ignore[attr-defined]
    return strategy


def resolve(strategy: Any, eqn: Eqn) -> Strategy:
    """A strategy given by name or as an object, checked against a choice.

    Raises:
        StrategyError: there is no such strategy, or the choice cannot have it.
    """
    address, family = eqn.params["address"], eqn.params["family"]
    if isinstance(strategy, str):
        if strategy not in strategies:
            raise StrategyError(
                f"there is no strategy {strategy!r}",
                address=address,
                where=eqn.where,
                because=suggestion(strategy, strategies),
                fix=f"use one of {sorted(strategies)}",
            )
        strategy = strategies[strategy]
    if not callable(getattr(strategy, "refusal", None)):
        raise StrategyError(
            f"{strategy!r} is no strategy",
            address=address,
            where=eqn.where,
            fix=f"use a strategy object, or one of {sorted(strategies)}",
        )
    if because := strategy.refusal(eqn):
        able = sorted(n for n, s in strategies.items() if s.refusal(eqn) is None)
        uses = " or ".join(f"{family.name}.{n}(...)" for n in able)
        raise StrategyError(
            f"{family.name} has no {strategy.name!r} strategy",
            address=address,
            where=eqn.where,
            because=because,
            fix=f"{uses}, or strategies={{'{address}': '{able[0]}'}}" if able else None,
        )
    return strategy
