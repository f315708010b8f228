"""Enumeration: sum over all values of a choice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppl import _compat
from ppl.compiler.influence import Source
from ppl.compiler.strategies.base import Choice, Kind, register
from ppl.compiler.tables import Val
from ppl.lang.staged import Eqn, Lit


def support_size(eqn: Eqn) -> int | None:
    """How many values one lane of a choice can take, or `None` if there is no finite list."""
    values = support_values(eqn)
    return None if values is None else values.shape[0]


def joint_size(eqn: Eqn) -> int:
    """How many values all lanes of a choice can take together."""
    return support_size(eqn) ** math.prod(eqn.params["shape"])


def support_values(eqn: Eqn) -> Any:
    """The values that one lane of a choice can take, `[size, *event]`, or `None`."""
    family, names = eqn.params["family"], eqn.params["names"]
    if family.enumerate is None:
        return None
    known = {
        n: a.val
        if isinstance(a, Lit) and _compat.is_concrete(a.val)
        else jax.ShapeDtypeStruct(a.aval.shape, a.aval.dtype)
        for n, a in zip(names, eqn.ins, strict=True)
    }
    with jax.ensure_compile_time_eval():
        values = family.enumerate(known)
    return None if values is None else np.asarray(values)


def support_table(eqn: Eqn, joint: bool) -> np.ndarray:
    """All values of a choice, `[values, *lanes, *event]`.

    As a constant: a loop sees from it that its state is the same table in each step.

    Args:
        joint: list all combinations of the lanes' values; else all lanes take a value at once.
    """
    shape, values = tuple(eqn.params["shape"]), support_values(eqn)
    event = values.shape[1:]
    if joint:
        lanes = math.prod(shape)
        grid = np.indices((len(values),) * lanes).reshape(lanes, -1)  # [lanes, combinations]
        table = values[grid.T].reshape(-1, *shape, *event)
    else:
        lead = (len(values), *(1,) * len(shape), *event)
        table = np.broadcast_to(values.reshape(lead), (len(values), *shape, *event))
    return table


def starts_in_table(
    table: np.ndarray, init: Val, start: Source | None, state: Source, first: dict[Source, int]
) -> bool:
    """Whether what a loop's state starts from is in a choice's table, so that the state is that
    table from the first step on.

    Args:
        init: what the state starts from.
        start: the outer choice that this is, if any: its table must be the same one.
        first: which entry a state starts from, where it is known; added to.
    """
    if not isinstance(init.array, np.ndarray) or (start is None) != (not init.axes):
        return False
    if start is not None:
        return init.axes == (start,) and np.array_equal(table, init.array)
    entries = [k for k, entry in enumerate(table) if np.array_equal(entry, init.array)]
    return bool(entries) and first.setdefault(state, entries[0]) in entries


@register
@dataclass(frozen=True)
class Enumerate:
    """Sum over the support: exact, no variance from this choice.

    The value gets an axis over its support; all lanes take the same value at once, and each
    cost is contracted with the probabilities of just the choices that it depends on.
    """

    name: ClassVar[str] = "enum"
    baseline: ClassVar[str] = "none"
    kind: ClassVar[Kind] = "enum"

    def refusal(self, eqn: Eqn) -> str | None:
        if support_size(eqn) is None:
            return f"enumeration needs a finite support; {eqn.params['family'].name}'s has no list"
        return None

    def lower(self, choice: Choice) -> Val:
        shape = tuple(choice.eqn.params["shape"])
        value = Val(support_table(choice.eqn, choice.joint), (choice.source,))
        probability = choice.probability(value)
        if choice.joint:
            axes = tuple(range(-len(shape), 0))
            together = jnp.prod(probability.array, axes) if shape else probability.array
            probability = Val(together, probability.axes)
        choice.probabilities(probability)
        return value
