"""Distributions: GenJAX `Distribution`s whose draws and log-densities bind our primitives.

`normal(0.0, 1.0) @ "x"` makes a choice in a program, `normal.sample(0.0, 1.0)` one without an
address, `normal.logpdf(x, 0.0, 1.0)` evaluates. `normal.reparam`, `flip.enum`, ... are the same
distributions with a gradient strategy; without one the planner picks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import genjax
import jax.numpy as jnp
from genjax.core import handler_stack
from jaxtyping import Array, ArrayLike

from ppl.errors import ShapeError
from ppl.lang.family import Family
from ppl.lang.gfi import Combinators
from ppl.lang.observed import PartlyObserved, Retained
from ppl.lang.primitives import bind_log_density, bind_site
from ppl.lang.scope import current_address


@genjax.Pytree.dataclass(has_implicitly_inherited_fields=True)
class Distribution(Combinators, genjax.Distribution):
    """A distribution of the language.

    `sample` and `logpdf` take the parameters by position or by name. The batch axes of the
    parameters are independent lanes; `logpdf` is the joint log-density, a scalar.
    """

    family: genjax.Const[Family]
    strategy: genjax.Const[Any]

    def __repr__(self) -> str:
        name, strategy = self.family.value.name, self.strategy.value
        return name if strategy is None else f"{name}.via({strategy!r})"

    def sample(self, *args: ArrayLike, **kwargs: ArrayLike) -> Array:
        """Draw a value (needs `seed` or a compiled objective around it)."""
        family = self.family.value
        return bind_site(
            family,
            family.bind(args, kwargs),
            strategy=self.strategy.value,
            address=current_address(family.name),
        )

    def logpdf(self, x: ArrayLike, *args: ArrayLike, **kwargs: ArrayLike) -> Array:
        """Joint log-density of `x` over all its lanes, a scalar.

        Raises:
            ShapeError: the parameters do not broadcast to the shape of `x`.
        """
        return jnp.sum(self.log_prob(x, *args, **kwargs))

    def log_prob(self, x: ArrayLike, *args: ArrayLike, **kwargs: ArrayLike) -> Array:
        """Log-density of `x`, one number per lane."""
        family, address = self.family.value, current_address(self.family.value.name)
        params = family.bind(args, kwargs)
        shapes = {n: p.shape for n, p in params.items()}
        event, batch = tuple(family.event_shape(shapes)), family.batch_shape(shapes)
        x = jnp.asarray(x)
        fits = x.shape[x.ndim - len(event) :] == event and x.ndim >= len(event) + len(batch)
        lanes = x.shape[: x.ndim - len(event)]
        if not (fits and _broadcasts_to(batch, lanes)):
            raise ShapeError(
                f"{family.name}: a value has the wrong shape",
                address=address,
                because=f"expected {(*batch, *event)}, found {x.shape}",
                fix="give a value of the expected shape (reshape or index the data)",
            )
        return bind_log_density(family, x, params, address=address)

    def assess(self, x: ArrayLike, *args: ArrayLike, **kwargs: ArrayLike) -> tuple[Array, Array]:
        """The joint log-density of `x`, and `x`.

        Raises:
            ShapeError: `x` has not exactly the shape that a draw has.
        """
        self.check_shape(x, *args, **kwargs)
        x = jnp.asarray(x)
        return self.logpdf(x, *args, **kwargs), x

    def check_shape(self, x: ArrayLike, *args: ArrayLike, **kwargs: ArrayLike) -> None:
        """Raise a `ShapeError` unless `x` has exactly the shape that a draw has."""
        family = self.family.value
        params = family.bind(args, kwargs)
        shapes = {n: p.shape for n, p in params.items()}
        expected = (*family.batch_shape(shapes), *family.event_shape(shapes))
        if jnp.shape(x) != tuple(expected):
            raise ShapeError(
                f"{family.name}: a value has the wrong shape",
                address=current_address(family.name),
                because=f"expected {tuple(expected)}, found {jnp.shape(x)}",
                fix="give a value of the shape that the program draws there",
            )

    def generate(self, x: Any, *args: Any, **kwargs: Any) -> tuple[Any, Array]:
        """As in GenJAX; `x` may also be `masked(values, mask)`, whose other entries are drawn."""
        if isinstance(x, Retained):
            tr, log_density = self.generate(x.value, *args, **kwargs)
            return tr, jnp.zeros_like(log_density)
        if not isinstance(x, PartlyObserved):
            return super().generate(x, *args, **kwargs)
        full = x.complete(lambda: self.sample(*args, **kwargs))
        lanes = self.log_prob(full, *args, **kwargs)
        weight = jnp.sum(jnp.where(x.observed_lanes(lanes.ndim), lanes, 0))
        return genjax.core.Tr(self, (args, kwargs), full, full, -jnp.sum(lanes)), weight

    def update(self, tr: Any, x_: Any, *args: Any, **kwargs: Any) -> tuple[Any, Array, Any]:
        """As in GenJAX, with the shape of a new value checked."""
        if x_ is not None:
            self.check_shape(x_, *args, **kwargs)
        return super().update(tr, x_, *args, **kwargs)

    @property
    def takes_value(self) -> bool:
        return True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if handler_stack:
            return genjax.core.Thunk(self, args, kwargs)
        return self.sample(*args, **kwargs)

    def via(self, strategy: Any) -> Distribution:
        """The same distribution with a gradient strategy, by name or as a strategy object."""
        return make_distribution(self.family.value, strategy)

    if TYPE_CHECKING:  # `reparam`, `score`, `enum`, ...: see `add_strategy_method`

        def __getattr__(self, name: str) -> Distribution: ...


def add_strategy_method(name: str, doc: str | None) -> None:
    """Let `normal.NAME(0.0, 1.0)` stand for `normal.via("NAME")(0.0, 1.0)`."""
    setattr(Distribution, name, property(lambda self: self.via(name), doc=doc))


def _broadcasts_to(batch: tuple[int, ...], lanes: tuple[int, ...]) -> bool:
    tail = lanes[len(lanes) - len(batch) :] if batch else ()
    return all(b in (1, n) for b, n in zip(batch, tail, strict=True))


def make_distribution(family: Family, strategy: Any = None) -> Distribution:
    """The distribution of a family."""
    unused: Any = genjax.const(None)  # GenJAX's fields, which our methods replace
    return Distribution(
        _sample=unused,
        _logpdf=unused,
        name=genjax.const(family.name),
        family=genjax.const(family),
        strategy=genjax.const(strategy),
    )
