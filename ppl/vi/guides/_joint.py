"""Guides that draw several choices at once: laws on flat vectors, moved to the choices' supports.

A `Law` is a distribution of a vector of unconstrained reals, with trainable parameters. A
`JointGuide` draws one vector for each of its blocks of choices, cuts it up, maps the parts onto
the supports, and accounts for the maps' derivatives in its density. What is in no block has a
factor of its own, as in a mean-field guide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import genjax
import jax.numpy as jnp
from genjax.core import GFI, Tr
from jaxtyping import Array, Float

from ppl.errors import AddressError, UnsupportedError
from ppl.lang.gfi import Combinators
from ppl.lang.observed import Choices, PartlyObserved, flat_choices
from ppl.lang.scope import current_address, scope
from ppl.lang.trace_type import ChoiceType
from ppl.vi.guides._latents import Layout, latents, nest
from ppl.vi.guides._start import starting_points
from ppl.vi.guides.mean_field import factors, start_factors


class Law(Protocol):
    """A trainable distribution of a flat vector."""

    def draw(self, name: str, size: int) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        """A draw and its log-density; parameters are named `name.PARAMETER`."""
        ...

    def log_density(self, name: str, flat: Float[Array, " size"]) -> Float[Array, ""]:
        """The log-density of a vector."""
        ...

    def start(self, name: str, loc: Float[Array, " size"]) -> dict[str, Any]:
        """Start values of parameters, for a law about `loc`."""
        ...


class SiteLaw:
    """A law that is one distribution of the language: a subclass says which, in `site`."""

    def site(self, name: str, size: int) -> tuple[Any, tuple[Array, ...]]:
        """The distribution and its parameters."""
        raise NotImplementedError

    def draw(self, name: str, size: int) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        distribution, params = self.site(name, size)
        flat = distribution.sample(*params)
        return flat, distribution.logpdf(flat, *params)

    def log_density(self, name: str, flat: Float[Array, " size"]) -> Float[Array, ""]:
        distribution, params = self.site(name, flat.shape[-1])
        return distribution.logpdf(flat, *params)

    def start(self, name: str, loc: Float[Array, " size"]) -> dict[str, Any]:
        return {f"{name}.loc": loc}


@dataclass(frozen=True)
class Block:
    """Choices that are drawn together."""

    name: str
    layout: Layout
    law: Law


@genjax.Pytree.dataclass
class JointGuide(Combinators, GFI):
    """A guide of blocks of choices, and factors for the rest; its arguments are ignored."""

    title: genjax.Const[str]
    blocks: genjax.Const[tuple[Block, ...]]
    rest: GFI
    starter: genjax.Const[Callable[[Any], dict[str, Any]]]

    @property
    def name(self) -> str:
        return self.title.value

    def start(self, key: Array) -> dict[str, Any]:
        """Start values of the parameters."""
        return self.starter.value(key)

    def simulate(self, *args: Any, **kwargs: Any) -> Tr:
        flat: dict[str, Any] = {}
        log_q = jnp.zeros(())
        for block in self.blocks.value:
            with scope(block.name):
                vector, log_density = block.law.draw(block.name, block.layout.size)
                values, log_det = block.layout.constrain(vector)
            flat |= values
            log_q += log_density - log_det
        rest = self.rest.simulate()
        choices = _merged(nest(flat), rest.get_choices())
        return Tr(self, (args, kwargs), choices, None, rest.get_score() - log_q)

    def assess(self, x: Choices, *args: Any, **kwargs: Any) -> tuple[Array, None]:
        flat = flat_choices(x)
        log_q = jnp.zeros(())
        for block in self.blocks.value:
            addresses = [part.address for part in block.layout.parts]
            if missing := [a for a in addresses if a not in flat]:
                raise AddressError(
                    "no value was given for a choice of the guide", address=missing[0]
                )
            own = {a: flat.pop(a) for a in addresses}
            with scope(block.name):
                vector = block.layout.unconstrain(own)
                log_det = block.layout.constrain(vector)[1]
                log_q += block.law.log_density(block.name, vector) - log_det
        return log_q + self.rest.assess(nest(flat))[0], None

    def generate(self, x: Choices, *args: Any, **kwargs: Any) -> tuple[Tr, Array]:
        if x is None or not flat_choices(x):
            return self.simulate(*args, **kwargs), jnp.zeros(())
        return self._given(x, args, kwargs)

    def update(self, tr: Tr, x_: Choices, *args: Any, **kwargs: Any) -> tuple[Tr, Array, Any]:
        old = flat_choices(tr.get_choices())
        new = {} if x_ is None else flat_choices(x_)
        after, log_q = self._given(nest({**old, **new}), args, kwargs)
        return after, log_q + tr.get_score(), nest({a: old[a] for a in new})

    def regenerate(self, tr: Tr, s: Any, *args: Any, **kwargs: Any) -> tuple[Tr, Array, Any]:
        selected = [_selected(s, address) for address in flat_choices(tr.get_choices())]
        if all(selected):
            return self.simulate(*args, **kwargs), jnp.zeros(()), tr.get_choices()
        if not any(selected):
            new, log_q = self._given(tr.get_choices(), args, kwargs)
            return new, log_q + tr.get_score(), None
        raise UnsupportedError(
            "a part of a joint guide cannot be drawn anew",
            address=current_address(self.name),
            because="its choices are drawn together, and their conditional laws are not known",
            fix="draw all of them, or use vi.mean_field",
        )

    def merge(self, x: Choices, x_: Choices, check: Array | None = None) -> tuple[Any, Any]:
        flat, new = flat_choices(x), flat_choices(x_)
        if check is not None:
            new = {a: jnp.where(check, flat[a], v) if a in flat else v for a, v in new.items()}
        return nest({**flat, **new}), nest({a: flat[a] for a in new if a in flat})

    def filter(self, x: Choices, selection: Any) -> tuple[Any, Any]:
        inside = {a: v for a, v in flat_choices(x).items() if _selected(selection, a)}
        outside = {a: v for a, v in flat_choices(x).items() if a not in inside}
        return nest(inside) or None, nest(outside) or None

    def _given(self, x: Choices, args: Any, kwargs: Any) -> tuple[Tr, Array]:
        log_q, _ = self.assess(x, *args, **kwargs)
        return Tr(self, (args, kwargs), x, None, -log_q), log_q


def joint_guide(
    model: GFI,
    title: str,
    blocks: Callable[[dict[str, ChoiceType]], Mapping[str, tuple[list[str], Law]]],
    observed: Choices,
    args: tuple[Any, ...],
) -> JointGuide:
    """A guide over the unobserved choices of a model.

    Args:
        title: the guide's name.
        blocks: from the choices that may be in a block to name -> (addresses, law).
    """
    data = flat_choices(observed)
    masks = {a: v.mask for a, v in data.items() if isinstance(v, PartlyObserved)}
    latent = latents(model, observed, args)
    chosen = blocks({a: c for a, c in latent.items() if a not in masks})
    made = tuple(
        Block(name, Layout.of({a: latent[a] for a in addresses}), law)
        for name, (addresses, law) in chosen.items()
        if addresses
    )
    taken = {part.address for block in made for part in block.layout.parts}
    others = {a: c for a, c in latent.items() if a not in taken}
    points = starting_points(model, latent, observed, args)

    def start(key: Array) -> dict[str, Any]:
        values = points(key)
        params = start_factors(others, values)
        for block in made:
            loc = jnp.concatenate([jnp.ravel(values[p.address]) for p in block.layout.parts])
            params |= block.law.start(block.name, loc)
        return params

    rest = factors(others, masks, "rest")
    return JointGuide(genjax.const(title), genjax.const(made), rest, genjax.const(start))


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return nest({**flat_choices(first), **flat_choices(second)})


def _selected(selection: Any, address: str) -> bool:
    for part in address.split("/"):
        selection = selection.match(part)[1]
    return () in selection
