"""Mean-field guides, made from a model's trace type."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from genjax.core import GFI

from ppl.errors import UnsupportedError
from ppl.lang import flip, gen, param
from ppl.lang.distributions import categorical
from ppl.lang.distributions.pushforward import pushforward_normal
from ppl.lang.observed import Choices, flat_choices
from ppl.lang.supports import positive, unit_interval
from ppl.lang.trace_type import ChoiceType, trace_type


def mean_field(model: GFI, *, observed: Choices = None, args: tuple[Any, ...] = ()) -> GFI:
    """A guide with an independent factor for each unobserved choice of a model.

    A continuous choice gets a normal in unconstrained space (parameters `ADDRESS.loc` and
    `ADDRESS.scale`), pushed onto the choice's support; a boolean one a `flip`, one with finitely
    many values a `categorical`.

    Raises:
        UnsupportedError: a choice is discrete without a finite support, or its support is unknown.
    """
    fixed = flat_choices(observed)
    tree: dict[str, Any] = {}
    for address, choice in trace_type(model, *args).items():
        if address in fixed:
            continue
        *path, last = address.split("/")
        node = tree
        for name in path:
            node = node.setdefault(name, {})
        node[last] = (address, choice)
    return _program(tree, "mean_field")


def _program(tree: dict[str, Any], name: str) -> GFI:
    """A program whose choices have the structure of `tree`, whatever its arguments."""

    def guide(*args: Any) -> None:
        del args
        for address, node in tree.items():
            if isinstance(node, dict):
                _program(node, address)() @ address
            else:
                _factor(*node) @ address

    guide.__name__ = guide.__qualname__ = name
    return gen(guide)


def _factor(address: str, choice: ChoiceType) -> Any:
    """The factor of one choice."""
    support = choice.support
    if support is not None and support.bijector is not None and choice.kind == "float":
        rank = support.event_ndims
        lanes = choice.shape[: len(choice.shape) - rank]
        event = choice.shape[len(choice.shape) - rank :]
        inner = support.bijector().inverse_event_shape(event) if rank else ()
        shape = (*lanes, *inner)
        loc = param(f"{address}.loc", jnp.zeros(shape))
        scale = param(f"{address}.scale", jnp.full(shape, 0.1), support=positive)
        return pushforward_normal(support, event)(loc, scale)
    if choice.kind == "bool":
        return flip(param(f"{address}.p", jnp.full(choice.shape, 0.5), support=unit_interval))
    size = _finite_size(choice)
    if size is not None:
        return categorical(param(f"{address}.logits", jnp.zeros((*choice.shape, size))))
    raise UnsupportedError(
        "there is no mean-field factor for this choice",
        address=address,
        where=choice.where,
        because=f"{choice.distribution} has the support {support or 'unknown'}",
        fix="write a guide for it and pass it: vi.elbo(model, guide, ...)",
    )


def _finite_size(choice: ChoiceType) -> int | None:
    """Number of values of a choice among 0, 1, ..., or `None`."""
    bounds = choice.support.bounds if choice.support is not None else None
    if choice.kind != "int" or bounds is None or bounds[1] is None:
        return None
    upper = jnp.max(jnp.asarray(bounds[1]))
    return int(upper) + 1 if jnp.isfinite(upper) else None
