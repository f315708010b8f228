"""What strategies for choices with finitely many values share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ppl.compiler.alternates import Alternates
from ppl.compiler.strategies.base import Choice
from ppl.compiler.strategies.enumerate import support_size, support_values
from ppl.lang.family import Params
from ppl.lang.staged import Eqn


def finite_refusal(eqn: Eqn, name: str) -> str | None:
    """Why a strategy over all values cannot be had, or `None`."""
    if support_size(eqn) is None:
        return f"{name} needs a finite support; {eqn.params['family'].name}'s has no list"
    return None


def log_probabilities(choice: Choice, params: Params) -> Array:
    """`[values, *lanes]`, of all values of each lane."""
    shape, values = tuple(choice.eqn.params["shape"]), support_values(choice.eqn)
    event = values.shape[1:]

    def one(value: Array) -> Array:
        everywhere = jnp.broadcast_to(value, (*shape, *event))
        return jnp.broadcast_to(choice.family.log_density(everywhere, **params), shape)

    return jax.vmap(one)(jnp.asarray(values))


def value_at(choice: Choice, index: Array) -> Array:
    """The values `[*shape, *event]` with numbers `[*shape]` in the support's list."""
    return jnp.asarray(support_values(choice.eqn))[index]


def index_of(choice: Choice, value: Array) -> Array:
    """The number in the support's list of each lane's value."""
    values = np.asarray(support_values(choice.eqn))
    event = values.ndim - 1
    lead = (len(values), *(1,) * (value.ndim - event), *values.shape[1:])
    return jnp.argmax(jnp.all(value == values.reshape(lead), tuple(range(-event, 0))), 0)


def alternates_of(choice: Choice, indices: Array, charges: Array, actual: Array) -> Alternates:
    """Alternates from a list of values that the one drawn is among.

    Args:
        indices: `[count, *lanes]`, numbers in the support's list.
        charges: `[count, *lanes]`.
        actual: `[*lanes]`, where in the list of `indices` the value drawn stands.
    """
    count = len(indices)
    others = (actual + jnp.arange(1, count).reshape(-1, *(1,) * actual.ndim)) % count
    pick = lambda x, at: jnp.take_along_axis(x, at, 0)
    return Alternates(
        value_at(choice, pick(indices, others)),
        pick(charges, others),
        pick(charges, actual[None])[0],
    )
