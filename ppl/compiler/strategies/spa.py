"""Smoothed perturbation analysis: an integer moves to the next one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl.compiler.alternates import Alternates
from ppl.compiler.strategies.base import Choice, Kind, register
from ppl.compiler.strategies.enumerate import support_size
from ppl.compiler.strategies.finite import index_of, log_probabilities, value_at
from ppl.compiler.tables import Val
from ppl.compiler.worlds import Request
from ppl.errors import StrategyError
from ppl.lang.family import Params
from ppl.lang.staged import Eqn


@register
@dataclass(frozen=True)
class Spa:
    """Smoothed perturbation analysis, the stochastic derivative of StochasticAD.jl (Arya et al.,
    arXiv 2210.08572; Gong and Ho 1987).

    As a parameter moves, a draw made by inverting its distribution function jumps to the next
    value in the support's list, at a known rate; the costs before and after are compared. The
    neighbour is close, so the difference is small where costs vary slowly, at one alternate
    however many values there are. Unbiased. One world, for each lane and step that a cost combines
    with others; with `prune`, one world in all.

    Args:
        prune: pick one of those lanes, in proportion to its rate, and one of those steps: less
            work, more variance.
    """

    prune: bool = False
    name: ClassVar[str] = "spa"
    baseline: ClassVar[str] = "none"
    kind: ClassVar[Kind] = "worlds"

    def refusal(self, eqn: Eqn) -> str | None:
        family = eqn.params["family"]
        if family.shifts or support_size(eqn) is not None:
            return None
        return f"{family.name} is no choice of integers with a rate of shifts (Family.shifts)"

    def request(self, eqn: Eqn, moving: Sequence[str]) -> Request:
        shifts = eqn.params["family"].shifts
        missing = [n for n in moving if n not in shifts]
        if missing and support_size(eqn) is None:
            address = eqn.params["address"]
            raise StrategyError(
                f"{eqn.params['family'].name} declares no rate of shifts in {', '.join(missing)}",
                address=address,
                where=eqn.where,
                because=f"there are rates for {', '.join(sorted(shifts))} only, and the program's "
                f"parameters move {', '.join(missing)} too",
                fix=f"strategies={{'{address}': 'mvd'}} or 'score'",
            )
        return Request(1 if moving else 0, together=False, prune=self.prune)

    def lower(self, choice: Choice) -> Val:
        by_rates = all(n in choice.family.shifts for n in choice.view.moving)
        rule = _shift if by_rates else _next_in_list
        return choice.draw_alternatives(choice.sample, lambda *args: rule(choice, *args))


def _shift(choice: Choice, key: jax.Array, actual: Array, params: Params) -> Alternates:
    shape = tuple(choice.eqn.params["shape"])
    fixed = {n: lax.stop_gradient(p) for n, p in params.items()}
    rates = {n: choice.family.shifts[n](actual, **fixed) for n in choice.view.moving}
    spread = lambda parts: sum((jnp.broadcast_to(x, shape) for x in parts), jnp.zeros(shape))
    charge = spread(r * params[n] for n, r in rates.items())
    size = spread(jnp.abs(r) for r in rates.values())
    inside = jnp.where(size > 0, actual + 1, actual)  # the rate is 0 at the largest value
    return Alternates(inside[None], charge[None], -charge, size[None])


def _next_in_list(choice: Choice, key: jax.Array, actual: Array, params: Params) -> Alternates:
    p = jnp.exp(log_probabilities(choice, params))
    index = index_of(choice, actual)
    at = lambda x: jnp.take_along_axis(x, index[None], 0)[0]
    chance = lax.stop_gradient(at(p))
    # Minus the derivative of the CDF, of the fewer terms: all of them sum to nothing.
    above = lax.cumsum(p, 0, reverse=True) - p
    charge = at(above) / jnp.where(chance > 0, chance, 1)
    beyond = jnp.minimum(index + 1, len(p) - 1)
    return Alternates(
        value_at(choice, beyond)[None], charge[None], -charge, jnp.ones_like(charge)[None]
    )
