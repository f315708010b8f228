"""Point estimates: maximum a posteriori, or maximum likelihood under a flat prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from genjax.core import GFI
from jaxtyping import Array

from ppl.lang import delta as point
from ppl.lang import param
from ppl.lang.observed import Choices, PartlyObserved, flat_choices
from ppl.lang.trace_type import ChoiceType
from ppl.vi.guides._latents import Layout, is_continuous, latents, nest
from ppl.vi.guides._start import starting_points
from ppl.vi.guides.mean_field import (
    MadeGuide,
    factor_leaves,
    program_of,
    start_factors,
    with_start,
)


def delta(model: GFI, *, observed: Choices = None, args: tuple[Any, ...] = ()) -> MadeGuide:
    """A guide that puts every continuous choice at one point, its parameter `ADDRESS.value`.

    With `vi.elbo` the point is the posterior's mode, as a density over the choices themselves
    (not over unconstrained space). Discrete choices have factors of their own, and are summed out
    if they can be. The value of the objective is no bound.

    Raises:
        UnsupportedError: a choice is discrete without a finite support, or its support is unknown.
    """
    latent = latents(model, observed, args)
    data = flat_choices(observed)
    masks = {a: v.mask for a, v in data.items() if isinstance(v, PartlyObserved)}
    points = {a: c for a, c in latent.items() if is_continuous(c) and a not in masks}
    others = {a: c for a, c in latent.items() if a not in points}
    layout = Layout.of(points)
    start = starting_points(model, latent, observed, args)

    def values(key: Array) -> dict[str, Any]:
        found = start(key)
        flat = [jnp.ravel(found[part.address]) for part in layout.parts]
        chosen = layout.constrain(jnp.concatenate(flat))[0] if flat else {}
        return {f"{a}.value": v for a, v in chosen.items()} | start_factors(others, found)

    leaves = factor_leaves(others, masks) | {a: _point(a, c) for a, c in points.items()}
    return with_start(program_of(nest(leaves), "delta"), values)


def _point(address: str, choice: ChoiceType) -> Callable[..., Any]:
    support = choice.support
    assert support is not None
    rank = support.event_ndims
    example = support.example(choice.shape[len(choice.shape) - rank :])

    def choose(*args: Any) -> Any:
        del args
        init = jnp.broadcast_to(example, choice.shape)
        return point(param(f"{address}.value", init, support=support))

    return choose
