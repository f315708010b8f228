"""Alternate values of a choice, put into the worlds that it owns (`worlds`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ppl.compiler.influence import WORLDS
from ppl.compiler.tables import Val, spread
from ppl.compiler.worlds import Slots


@dataclass(frozen=True, eq=False)
class Alternates:
    """Alternate values of a choice, and what the costs are charged with there.

    Attributes:
        values: `[alternates, *lanes, *event]`.
        charges: `[alternates, *lanes]`; only their derivatives count.
        actual: `[*lanes]`, the charge for the value drawn.
        sizes: `[alternates, *lanes]`, how much alternates matter, for picking one of them; each
            has then minus its own charge as its part of `actual`.
    """

    values: Array
    charges: Array
    actual: Array | float = 0.0
    sizes: Array | float = 1.0


def worlds_first(val: Val) -> Val:
    """The value with its worlds as an ordinary first axis of its array."""
    axes = tuple(a for a in val.axes if a is not WORLDS)
    return Val(spread(val, (*axes, WORLDS)), axes)


def worlds_of(val: Val, size: int) -> Val:
    """The value in all worlds, as an ordinary first axis of its array."""
    first = worlds_first(val)
    array, at = first.array, len(first.axes)
    shape = (*array.shape[:at], size, *array.shape[at + 1 :])
    return Val(jnp.broadcast_to(array, shape), first.axes)


def actual_world(val: Val) -> Val:
    """The value in world 0."""
    if WORLDS not in val.axes:
        return val
    at = val.axes.index(WORLDS)
    return Val(
        lax.index_in_dim(val.array, 0, at, keepdims=False), (*val.axes[:at], *val.axes[at + 1 :])
    )


def place(
    worlds: Array, alternates: Alternates, slots: Slots, step: Any, key: Callable[[], jax.Array]
) -> tuple[Array, Array]:
    """Put alternate values into the worlds of a choice.

    Args:
        worlds: `[worlds, *lanes, *event]`, the choice's value in all worlds if it took none.
        step: the number of the current step among those kept apart.
        key: makes the key for picking an alternate; the same in all steps.

    Returns:
        the values in all worlds, and the charges `[worlds, *lanes]`.
    """
    taken = slots.taken()
    copies = len(taken) // slots.alternates
    values = jnp.tile(alternates.values, (copies, *(1,) * (worlds.ndim - 1)))
    charges = jnp.where(taken, jnp.tile(alternates.charges, (copies, *(1,) * len(slots.shape))), 0)
    actual = jnp.broadcast_to(alternates.actual, slots.shape)
    first = slots.start + (0 if slots.prune else step * slots.per_step)
    if slots.prune:
        picked = _pick(taken, alternates, slots, step, key())
        # Of the actual value's charges, those belong to an alternate that balance it.
        actual = jnp.sum(-picked * charges, 0)
        charges = jnp.sum(picked * charges, 0, keepdims=True)
        at = jnp.argmax(picked, 0)[None]
        event = (1,) * (worlds.ndim - taken.ndim)
        values = jnp.take_along_axis(values, at.reshape(*at.shape, *event), 0)
        taken = jnp.any(picked > 0, 0, keepdims=True)
    event = (1,) * (worlds.ndim - taken.ndim)
    # With pruning, the steps after the one that was picked follow from it.
    values = jnp.where(taken.reshape(*taken.shape, *event), values, worlds[slots.start])
    table = jnp.zeros((len(worlds), *slots.shape), charges.dtype).at[0].set(actual)
    put = lambda whole, part: lax.dynamic_update_slice_in_dim(
        whole, part.astype(whole.dtype), first, 0
    )
    return put(worlds, values), put(table, charges)


def _pick(
    taken: np.ndarray, alternates: Alternates, slots: Slots, step: Any, key: jax.Array
) -> Array:
    """`[per_step, *lanes]`: 0, or for alternates that were picked, one over their probability.

    Of alternates whose lanes are kept apart one is picked, in proportion to their sizes, and in
    one step; other lanes pick independently.
    """
    step_key, key = jax.random.split(key)
    copies = len(taken) // slots.alternates
    sizes = jnp.tile(lax.stop_gradient(alternates.sizes), (copies, *(1,) * len(slots.shape)))
    together = tuple(i + 1 for i in slots.axes)
    sizes = jnp.sum(jnp.where(taken, jnp.abs(sizes), 0), together, keepdims=True)
    total = jnp.sum(sizes, 0)
    chance = sizes / jnp.where(total > 0, total, 1)
    chosen = jnp.argmax(jnp.log(chance) + jax.random.gumbel(key, chance.shape, chance.dtype), 0)
    mine = (jnp.arange(len(taken)).reshape(-1, *(1,) * chosen.ndim) == chosen) & (chance > 0)
    if slots.loops:
        mine &= step == jax.random.randint(step_key, (), 0, slots.steps)
    inverse = jnp.where(mine, slots.steps / jnp.where(mine, chance, 1), 0)
    return jnp.where(taken, inverse, 0)
