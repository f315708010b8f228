"""The choices that a guide is made for, and a model's continuous ones as one flat vector."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from genjax.core import GFI
from jaxtyping import Array, Float

from ppl.errors import AddressError, UnsupportedError, suggestion
from ppl.lang.observed import Choices, PartlyObserved, flat_choices
from ppl.lang.trace_type import ChoiceType, trace_type


def latents(model: GFI, observed: Choices, args: tuple[Any, ...]) -> dict[str, ChoiceType]:
    """The choices of a model that are not observed, or only in part, by full address."""
    data = flat_choices(observed)
    fixed = {a for a, v in data.items() if not isinstance(v, PartlyObserved)}
    return {a: c for a, c in trace_type(model, *args).items() if a not in fixed}


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries from full addresses, `layer/z`."""
    tree: dict[str, Any] = {}
    for address, value in flat.items():
        *path, last = address.split("/")
        node = tree
        for name in path:
            node = node.setdefault(name, {})
        node[last] = value
    return tree


def is_continuous(choice: ChoiceType) -> bool:
    """Whether a choice can be moved to unconstrained reals."""
    support = choice.support
    return choice.kind == "float" and support is not None and support.bijector is not None


@dataclass(frozen=True)
class Part:
    """A continuous choice's place in a flat vector.

    Attributes:
        start, size: of its entries in the vector.
        shape: of its unconstrained value.
    """

    address: str
    choice: ChoiceType
    start: int
    size: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Continuous choices as one vector of unconstrained reals.

    Attributes:
        parts: of the vector, in order.
    """

    parts: tuple[Part, ...]

    @staticmethod
    def of(choices: Mapping[str, ChoiceType]) -> Layout:
        """The layout of these choices.

        Raises:
            UnsupportedError: a choice is not continuous, or its support is unknown.
        """
        parts: list[Part] = []
        start = 0
        for address, choice in choices.items():
            if not is_continuous(choice):
                raise UnsupportedError(
                    "only a continuous choice can be part of a joint guide",
                    address=address,
                    where=choice.where,
                    because=f"{choice.distribution} has the support {choice.support or 'unknown'}",
                    fix="leave it out of the guide's blocks: it gets a factor of its own",
                )
            if choice.support.bounds is not None and None in choice.support.bounds:
                raise UnsupportedError(
                    "there is no guide for a support that depends on other choices",
                    address=address,
                    where=choice.where,
                    because=f"the support of {choice.distribution} is {choice.support}, and its "
                    "bounds are not known before the run",
                    fix="draw it on a fixed support and map the draw (upper * uniform(0.0, 1.0)), "
                    "or write a guide",
                )
            rank = choice.support.event_ndims
            lanes, event = _split(choice.shape, rank)
            inner = choice.support.bijector().inverse_event_shape(event) if rank else ()
            shape = (*lanes, *inner)
            parts.append(Part(address, choice, start, math.prod(shape), shape))
            start += parts[-1].size
        return Layout(tuple(parts))

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(part.size for part in self.parts)

    def split(self, flat: Float[Array, "*batch size"]) -> dict[str, Array]:
        """The unconstrained value of each choice."""
        batch = flat.shape[:-1]
        return {
            p.address: flat[..., p.start : p.start + p.size].reshape(*batch, *p.shape)
            for p in self.parts
        }

    def constrain(self, flat: Float[Array, " size"]) -> tuple[dict[str, Array], Float[Array, ""]]:
        """The choices by full address, and the log-determinant of their derivative."""
        values: dict[str, Array] = {}
        log_det = jnp.zeros((), flat.dtype)
        for part in self.parts:
            x = self.split(flat)[part.address]
            bijector = part.choice.support.bijector()
            rank = len(part.shape) - (len(part.choice.shape) - part.choice.support.event_ndims)
            values[part.address] = bijector.forward(x)
            log_det += jnp.sum(bijector.forward_log_det_jacobian(x, event_ndims=rank))
        return values, log_det

    def unconstrain(self, values: Mapping[str, Any]) -> Float[Array, " size"]:
        """The inverse of `constrain`."""
        flat = [
            jnp.ravel(p.choice.support.bijector().inverse(jnp.asarray(values[p.address])))
            for p in self.parts
        ]
        return jnp.concatenate(flat) if flat else jnp.zeros(0)


def _split(shape: tuple[int, ...], rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(lanes, event) of a shape whose last `rank` axes are the event's."""
    return shape[: len(shape) - rank], shape[len(shape) - rank :]


def check_addresses(addresses: Iterable[str], known: Mapping[str, Any], what: str) -> None:
    """Refuse an address that is no latent choice.

    Raises:
        AddressError: names it, and the closest one.
    """
    for address in addresses:
        if address not in known:
            raise AddressError(
                f"{what}: there is no latent choice {address!r}",
                because=suggestion(address, known),
            )
