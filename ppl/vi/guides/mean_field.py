"""Mean-field guides, made from a model's trace type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import genjax
import jax.numpy as jnp
import numpy as np
from genjax.core import GFI
from jaxtyping import Array

from ppl.errors import UnsupportedError
from ppl.lang import flip, gen, param
from ppl.lang.distributions import categorical
from ppl.lang.distributions.pushforward import pushforward_normal
from ppl.lang.observed import Choices, PartlyObserved, flat_choices
from ppl.lang.program import Program
from ppl.lang.supports import positive, unit_interval
from ppl.lang.trace_type import ChoiceType
from ppl.vi.guides._latents import Layout, is_continuous, latents, nest
from ppl.vi.guides._start import starting_points

SCALE = 0.1
"""Start value of the standard deviations, in unconstrained space."""


@genjax.Pytree.dataclass(has_implicitly_inherited_fields=True)
class MadeGuide(Program):
    """A program with start values for its parameters."""

    starter: genjax.Const[Callable[[Array], dict[str, Any]]] = genjax.const(lambda key: {})

    def start(self, key: Array) -> dict[str, Any]:
        """Start values of the parameters."""
        return self.starter.value(key)


def with_start(program: Program, start: Callable[[Array], dict[str, Any]]) -> MadeGuide:
    """A program that says where a fit of it starts: `key -> name -> value`."""
    return MadeGuide(program.source, program.name, program.density_mask, genjax.const(start))


def mean_field(model: GFI, *, observed: Choices = None, args: tuple[Any, ...] = ()) -> GFI:
    """A guide with an independent factor for each unobserved choice of a model.

    A continuous choice gets a normal in unconstrained space (parameters `ADDRESS.loc` and
    `ADDRESS.scale`), pushed onto the choice's support; a boolean one a `flip`, one with finitely
    many values a `categorical`. A fit starts at the best of several points (see `_start.py`).

    Raises:
        UnsupportedError: a choice is discrete without a finite support, or its support is unknown.
    """
    latent = latents(model, observed, args)
    data = flat_choices(observed)
    masks = {a: v.mask for a, v in data.items() if isinstance(v, PartlyObserved)}
    program = factors(latent, masks, "mean_field")
    points = starting_points(model, latent, observed, args)
    return with_start(program, lambda key: start_factors(latent, points(key)))


def factors(latent: Mapping[str, ChoiceType], masks: Mapping[str, Any], name: str) -> Program:
    """A program with an independent factor for each choice, whatever its arguments.

    Args:
        masks: where choices are observed in part: there a factor does not count.
    """
    return program_of(nest(factor_leaves(latent, masks)), name)


def factor_leaves(
    latent: Mapping[str, ChoiceType], masks: Mapping[str, Any]
) -> dict[str, Callable[..., Any]]:
    """The factors by address, for `program_of`."""
    for address, choice in latent.items():
        _check(address, choice)

    def leaf(address: str, choice: ChoiceType) -> Callable[..., Any]:
        def choose(*args: Any) -> Any:
            del args
            made, params = _factor(address, choice)
            if address in masks:
                made = made.mask(~jnp.asarray(masks[address]))
            return made(*params)

        return choose

    return {a: leaf(a, c) for a, c in latent.items()}


def program_of(tree: Mapping[str, Any], name: str) -> Program:
    """A program from nested dictionaries of functions that return what to choose from."""

    def guide(*args: Any) -> None:
        for address, node in tree.items():
            if isinstance(node, Mapping):
                program_of(node, address)(*args) @ address
            else:
                node(*args) @ address

    guide.__name__ = guide.__qualname__ = name
    return gen(guide)


def start_factors(latent: Mapping[str, ChoiceType], points: Mapping[str, Array]) -> dict[str, Any]:
    """Start values of the factors' parameters about points in unconstrained space."""
    return {f"{a}.loc": points[a] for a, c in latent.items() if is_continuous(c)}


def _check(address: str, choice: ChoiceType) -> None:
    if is_continuous(choice) or choice.kind == "bool" or finite_size(choice) is not None:
        return
    raise UnsupportedError(
        "there is no mean-field factor for this choice",
        address=address,
        where=choice.where,
        because=f"{choice.distribution} has the support {choice.support or 'unknown'}",
        fix="write a guide for it and pass it: vi.elbo(model, guide, ...)",
    )


def _factor(address: str, choice: ChoiceType) -> tuple[Any, tuple[Array, ...]]:
    """The factor of one choice: a distribution and its parameters."""
    if is_continuous(choice):
        (part,) = Layout.of({address: choice}).parts
        loc = param(f"{address}.loc", jnp.zeros(part.shape))
        scale = param(f"{address}.scale", jnp.full(part.shape, SCALE), support=positive)
        return pushforward(choice), (loc, scale)
    if choice.kind == "bool":
        p = param(f"{address}.p", jnp.full(choice.shape, 0.5), support=unit_interval)
        return flip, (p,)
    shape = (*choice.shape, finite_size(choice))
    return categorical, (param(f"{address}.logits", jnp.zeros(shape)),)


def pushforward(choice: ChoiceType) -> Any:
    """The normal in unconstrained space, pushed onto the support of a choice."""
    support = choice.support
    assert support is not None
    return pushforward_normal(support, choice.shape[len(choice.shape) - support.event_ndims :])


def finite_size(choice: ChoiceType) -> int | None:
    """Number of values of a choice among 0, 1, ..., or `None`."""
    bounds = choice.support.bounds if choice.support is not None else None
    if choice.kind != "int" or bounds is None or bounds[1] is None:
        return None
    upper = np.max(bounds[1])
    return int(upper) + 1 if np.isfinite(upper) else None
