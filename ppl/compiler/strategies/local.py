"""Local expectation: a cost at all values of one lane, given the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ppl.compiler.strategies.base import Choice, Kind, register
from ppl.compiler.strategies.enumerate import support_size, support_values
from ppl.compiler.tables import Val
from ppl.compiler.worlds import Alternates
from ppl.lang.family import Params
from ppl.lang.staged import Eqn


@register
@dataclass(frozen=True)
class Local:
    """Local expectation gradients (Titsias and Lázaro-Gredilla 2015): enumeration lane by lane.

    The choice is drawn; the gradient is the sum over all values v of `f(v, rest) d p(v)`, for each
    lane given the others. Unbiased, without variance from the lane itself. One world for each
    value but one, and for each lane and step that a cost combines with others: `(K - 1) N`, where
    enumeration would need `K^N`.
    """

    name: ClassVar[str] = "local"
    baseline: ClassVar[str] = "none"
    kind: ClassVar[Kind] = "worlds"
    together: ClassVar[bool] = False

    def refusal(self, eqn: Eqn) -> str | None:
        if support_size(eqn) is None:
            return (
                f"local expectation needs a finite support; {eqn.params['family'].name}'s has "
                "no list"
            )
        return None

    def count(self, eqn: Eqn, moving: Sequence[str]) -> int:
        size = support_size(eqn)
        assert size is not None
        return size - 1 if moving else 0

    def lower(self, choice: Choice) -> Val:
        return choice.draw_alternatives(choice.sample, lambda *args: all_others(choice, *args))


def all_others(choice: Choice, key: jax.Array, actual: Array, params: Params) -> Alternates:
    """All values but the one drawn, charged with their probabilities."""
    family, values = choice.family, support_values(choice.eqn)
    size, event = len(values), values.ndim - 1
    same = actual == values.reshape(size, *(1,) * (actual.ndim - event), *values.shape[1:])
    index = jnp.argmax(jnp.all(same, tuple(range(-event, 0))), 0)
    step = jnp.arange(1, size).reshape(-1, *(1,) * index.ndim)
    others = jnp.asarray(values)[(index + step) % size]
    probability = lambda x: jnp.exp(family.log_density(x, **params))
    return Alternates(others, jax.vmap(probability)(others), probability(actual))
