"""What the objectives share: checked guides, and how an objective carries its data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from genjax.core import GFI
from jaxtyping import Array

from ppl.compiler.objective import Objective
from ppl.lang import density, sim
from ppl.lang.check_guide import check_guide, check_observed
from ppl.lang.observed import Choices, merge_observed
from ppl.vi.guides.mean_field import mean_field

Args = tuple[Any, ...]

Guide = GFI | Callable[..., GFI] | None
"""A program; or a function that makes one, `(model, observed=, args=) -> program`; or `None`."""


def checked(
    model: GFI, guide: Guide, observed: Choices, args: Args, guide_args: Args | None
) -> GFI:
    """The guide, checked against the model, or made for it; the data are checked too."""
    if isinstance(guide, GFI):
        check_guide(model, guide, observed, args, guide_args)
        return guide
    check_observed(model, observed, args)
    own = {} if guide_args is None or guide is None else {"guide_args": guide_args}
    return (mean_field if guide is None else guide)(model, observed=observed, args=args, **own)


def with_data(
    fun: Callable[..., Array],
    name: str,
    model: GFI,
    guide: GFI,
    observed: Choices,
    args: Args,
    guide_args: Args | None,
) -> Objective:
    """The objective, with the programs' arguments and the observations as its data."""
    if guide_args is None:
        return Objective(fun, name, (observed, args), guide, args, model)
    return Objective(fun, name, (observed, args, guide_args), guide, guide_args, model)


def log_joint_and_guide(
    model: GFI, guide: GFI, observed: Choices, args: Args, guide_args: Args | None
) -> tuple[Choices, Array, Array]:
    """One draw z of the guide, log p(z, y), and log q(z)."""
    z, log_q = sim(guide)(*(args if guide_args is None else guide_args))
    return z, density(model)(merge_observed(z, observed), *args), log_q


def particles_of(fun: Callable[[], Any], particles: int) -> Any:
    """`fun()` that many times, independently; results with a leading axis."""
    return jax.vmap(lambda _: fun())(jnp.arange(particles))


def log_weights(
    model: GFI, guide: GFI, observed: Choices, args: Args, guide_args: Args | None, particles: int
) -> Array:
    """log p(z, y) - log q(z) of independent draws of the guide, `[particles]`."""

    def one() -> Array:
        _, log_p, log_q = log_joint_and_guide(model, guide, observed, args, guide_args)
        return log_p - log_q

    return particles_of(one, particles)


def at_least(name: str, what: str, least: int, value: int) -> None:
    """Raise a `ValueError` if an option is too small."""
    if value < least:
        raise ValueError(f"{name}: {what} must be at least {least}, not {value}")
