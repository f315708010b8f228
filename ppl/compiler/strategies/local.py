"""Local expectation: a cost at all values of one lane, given the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ppl.compiler.alternates import Alternates
from ppl.compiler.strategies.base import Choice, Kind, register
from ppl.compiler.strategies.enumerate import support_size
from ppl.compiler.strategies.finite import (
    alternates_of,
    finite_refusal,
    index_of,
    log_probabilities,
)
from ppl.compiler.tables import Val
from ppl.compiler.worlds import Request
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

    def refusal(self, eqn: Eqn) -> str | None:
        return finite_refusal(eqn, "local expectation")

    def request(self, eqn: Eqn, moving: Sequence[str]) -> Request:
        return Request(others(eqn) if moving else 0, together=False)

    def lower(self, choice: Choice) -> Val:
        return choice.draw_alternatives(choice.sample, lambda *args: all_others(choice, *args))


def others(eqn: Eqn) -> int:
    """How many values there are beside the one drawn."""
    size = support_size(eqn)
    assert size is not None
    return size - 1


def all_others(choice: Choice, key: jax.Array, actual: Array, params: Params) -> Alternates:
    """All values but the one drawn, charged with their probabilities."""
    charges = jnp.exp(log_probabilities(choice, params))
    indices = jnp.arange(len(charges)).reshape(-1, *(1,) * (charges.ndim - 1))
    return alternates_of(
        choice, jnp.broadcast_to(indices, charges.shape), charges, index_of(choice, actual)
    )
