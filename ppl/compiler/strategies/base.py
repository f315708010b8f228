"""What a strategy is, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ppl.compiler.alternates import (
    Alternates,
    actual_world,
    place,
    worlds_first,
    worlds_of,
)
from ppl.compiler.influence import WORLDS, Source
from ppl.compiler.tables import Val, batched, broadcasting, log_densities
from ppl.compiler.worlds import Request, Slots
from ppl.errors import StrategyError, suggestion
from ppl.lang.distribution import add_strategy_method
from ppl.lang.family import Family, Params
from ppl.lang.primitives import draw, draw_with_log_density
from ppl.lang.staged import Eqn

Kind = Literal["path", "score", "enum", "worlds"]


class Strategy(Protocol):
    """How the gradient gets past a random choice.

    Attributes:
        name: as users write it.
        kind: what the analysis must know: `"path"` (the draw itself carries the derivative),
            `"score"` (the draw is cut, costs are charged with its log-probability), `"enum"`
            (the value gets an axis over its support), `"worlds"` (the value also takes others, in
            worlds beside the actual one; see `Alternatives`).
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


class Alternatives(Strategy, Protocol):
    """A strategy of kind `"worlds"`: costs are compared at several values of the choice."""

    def request(self, eqn: Eqn, moving: Sequence[str]) -> Request:
        """The worlds that it asks for, if the parameters `moving` train."""
        ...


@dataclass(frozen=True, eq=False)
class View:
    """What a choice of kind `"worlds"` sees of them.

    Attributes:
        size: how many worlds there are.
        slots: those that the choice owns.
        step: the number of the current step, among those kept apart.
        pick: makes the key for picking one of the choice's alternates, the same in all steps.
        moving: names of the parameters that train.
        scored: numbers of the worlds in which the charge is the log-probability.
    """

    size: int
    slots: Slots
    step: Any
    pick: Callable[[], jax.Array]
    moving: Sequence[str]
    scored: np.ndarray


@dataclass(frozen=True, eq=False)
class Choice:
    """A random choice being lowered.

    Attributes:
        source: the choice, as the analysis names it.
        params: its parameters' values.
        new_key: makes its key (not called where nothing is drawn), or, if its strategy draws once,
            maybe `Ready` noise in place of it.
        joint: whether all combinations of its lanes share one enumerated axis.
        logp: call with the log-probability `[*axes, *lanes]` that costs are charged with.
        probabilities: call with an enumerated choice's probabilities `[*axes, *lanes]`.
        own_log_density: call with the log-density of the value at itself `[*axes, *lanes]`, if it
            is known; the program's own request for it (`sim` makes one) then costs nothing.
        sampler: draws; as `primitives.draw`.
        view: of a choice of kind `"worlds"`, the worlds that it owns.
        learned: what its control variate learned so far, or `None`.
        data: the objective's arguments.
        aside: call with a scalar 0 whose derivative, of mean zero, is to be added to the gradient.
    """

    eqn: Eqn
    source: Source
    params: list[Val]
    new_key: Callable[[], Any]
    joint: bool
    logp: Callable[[Val], None]
    probabilities: Callable[[Val], None]
    own_log_density: Callable[[Val], None]
    sampler: Callable[..., Array] = draw
    view: View | None = None
    learned: Any = None
    data: tuple[Any, ...] = ()
    aside: Callable[[Array], None] = lambda zero: None

    @property
    def family(self) -> Family:
        return self.eqn.params["family"]

    def draw(self) -> Val:
        """A draw, with common random numbers across enumerated values of the parameters."""
        key = self.new_key()
        static = self.eqn.params
        return self._as_in_the_actual_world(
            batched(lambda *ps: [self.sampler(key, list(ps), **static)], self.params)[0]
        )

    def _as_in_the_actual_world(self, drawn: Val) -> Val:
        """Lanes whose parameters do not differ from the actual world's take the value drawn there.

        Common random numbers see to that but for rounding; and where tests replace the draws, this
        does.
        """
        names, shape = self.eqn.params["names"], self.eqn.params["shape"]
        ranks = [self.family.parameters[n] for n in names]
        differ = [(p, r) for p, r in zip(self.params, ranks, strict=True) if WORLDS in p.axes]
        if not differ:
            return drawn

        def take(x: Array, *ps: Array) -> list[Array]:
            same = jnp.ones((), bool)
            for p, (_, rank) in zip(ps, differ, strict=True):
                equal = jnp.all(p == p[0], tuple(range(-rank, 0)))
                missing = (1,) * (1 + len(shape) - equal.ndim)
                same &= equal.reshape(len(p), *missing, *equal.shape[1:])
            event = (1,) * (x.ndim - 1 - len(shape))
            same = jnp.broadcast_to(same, (len(x), *shape)).reshape(len(x), *shape, *event)
            return [jnp.where(same, x[0], x)]

        worlds = [worlds_first(v) for v in (drawn, *(p for p, _ in differ))]
        out = batched(take, worlds)[0]
        return Val(out.array, (*out.axes, WORLDS))

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

    def sample(self, key: jax.Array, params: Params) -> Array:
        """An ordinary draw `[*lanes, *event]`."""
        return self.sampler(key, list(params.values()), **self.eqn.params)

    def draw_alternatives(
        self,
        sample: Callable[[jax.Array, Params], Array],
        alternates: Callable[[jax.Array, Array, Params], Alternates],
    ) -> Val:
        """A draw in all worlds, with alternate values in those that the choice owns.

        Args:
            sample: from a key and parameters to a draw `[*lanes, *event]`.
            alternates: from the same key, the draw and its parameters to alternate values.
        """
        view, names, key = self.view, self.eqn.params["names"], self.new_key()
        assert view is not None

        def params(arrays: Sequence[Array]) -> Params:
            return {n: jnp.asarray(x) for n, x in zip(names, arrays, strict=True)}

        def draw_all(*arrays: Array) -> list[Array]:
            return [lax.stop_gradient(sample(key, params(arrays)))]

        def build(worlds: Array, *arrays: Array) -> tuple[Array, Array]:
            if not view.slots.alternates:
                return worlds, jnp.zeros((view.size, *view.slots.shape))
            found = alternates(key, worlds[0], params(arrays))
            return place(worlds, found, view.slots, view.step, view.pick)

        drawn = self._as_in_the_actual_world(batched(draw_all, self.params)[0])
        drawn = worlds_of(drawn, view.size)
        here = [actual_world(p) for p in self.params]
        out, charges = (Val(v.array, (*v.axes, WORLDS)) for v in batched(build, [drawn, *here]))
        self.logp(self.scored(charges, out))
        return out

    def scored(self, charges: Val, value: Val) -> Val:
        """The charges, which are log-probabilities where another choice's worlds are followed."""
        assert self.view is not None
        if not len(where := self.view.scored):
            return charges
        plain = Val(charges.array, charges.axes[:-1])
        logp = worlds_of(self.log_density(value), self.view.size)
        out = batched(lambda c, l: [c.at[where].set(l[where])], [plain, logp])[0]
        return Val(out.array, (*out.axes, WORLDS))

    def log_density(self, value: Val) -> Val:
        """Log-density per lane at `value`."""
        static = {k: self.eqn.params[k] for k in ("family", "names")}
        return log_densities([value, *self.params], {**static, "event_ndims": self._event_ndims})

    def probability(self, value: Val) -> Val:
        """Probability per lane of `value`."""
        probability, names = self.family.probability, self.eqn.params["names"]
        if probability is None:
            log_density = self.log_density(value)
            self.own_log_density(log_density)
            return Val(jnp.exp(log_density.array), log_density.axes)
        ranks = [self._event_ndims, *(self.family.parameters[n] for n in names)]
        return broadcasting(
            lambda x, *ps: probability(x, **dict(zip(names, map(jnp.asarray, ps), strict=True))),
            [value, *self.params],
            ranks,
        )

    @property
    def _event_ndims(self) -> int:
        return len(self.eqn.outs[0].aval.shape) - len(self.eqn.params["shape"])


def follows_path(strategy: Strategy) -> bool:
    """Whether a choice's value moves with the choice's parameters."""
    return strategy.kind == "path" or getattr(strategy, "follows_path", False)


def draws_once(strategy: Strategy) -> bool:
    """Whether all that is random in a choice is one draw of it as it is."""
    return getattr(strategy, "draws_once", False)


def relaxes(strategy: Strategy) -> bool:
    """Whether a discrete choice becomes a float, which may lie between the values that it has."""
    return getattr(strategy, "relaxes", False)


strategies: dict[str, Strategy] = {}
"""All strategies by name, with their default options."""


def register[T](strategy: type[T]) -> type[T]:
    """Add a strategy class to the table, and its name to distributions (class decorator)."""
    name: str = strategy.name  # type: ignore[attr-defined]
    strategies[name] = strategy()  # type: ignore[assignment]
    add_strategy_method(name, strategy.__doc__)
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
        usual = [n for n in able if n in ("reparam", "enum", "score")]
        uses = " or ".join(f"{family.name}.{n}(...)" for n in usual)
        more = [n for n in able if n not in usual]
        others = f"; also {', '.join(more)}" if more else ""
        raise StrategyError(
            f"{family.name} has no {strategy.name!r} strategy",
            address=address,
            where=eqn.where,
            because=because,
            fix=f"{uses}, or strategies={{'{address}': '{usual[0]}'}}{others}" if usual else None,
        )
    return strategy
