"""REBAR: the score function, with a relaxed copy of the program as control variate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl.compiler.alternates import worlds_of
from ppl.compiler.influence import WORLDS
from ppl.compiler.strategies.base import Choice, Kind, register
from ppl.compiler.strategies.finite import finite_refusal, log_probabilities
from ppl.compiler.tables import Val, batched
from ppl.compiler.worlds import Request
from ppl.errors import StrategyError
from ppl.lang.staged import Eqn


@register
@dataclass(frozen=True)
class Rebar:
    r"""REBAR (Tucker et al., arXiv 1703.07370).

    A choice is the largest of Gumbel variables z, and its relaxation is softmax(z / temperature).
    Two worlds hold the relaxed program: in one it is made from z, and followed along its path; in
    the other from z given the choices made, and both followed and scored. Both estimate the same
    gradient, so their difference, times `scale`, is a control variate of the score function; the
    noise is shared, so that they are correlated. All relaxed choices with the same options share
    the two worlds, however lanes and steps combine. Unbiased for any temperature and scale.

    The program must be smooth in the relaxed value: use it as a number, not to index or branch.

    Args:
        temperature: > 0; the smaller, the closer the relaxed costs are to the actual one, and the
            larger their derivatives.
        scale: what the control variate is multiplied by.
    """

    temperature: float = 0.5
    scale: float = 1.0
    name: ClassVar[str] = "rebar"
    baseline: ClassVar[str] = "none"
    kind: ClassVar[Kind] = "worlds"
    relaxes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.scale)):
            raise StrategyError(
                f"REBAR needs a positive temperature and a finite scale, not {self.temperature} "
                f"and {self.scale}",
                fix="Rebar(temperature=0.5, scale=1.0)",
            )

    def refusal(self, eqn: Eqn) -> str | None:
        family = eqn.params["family"]
        if family.relaxation is None:
            instead = "; one_hot_categorical's do" if family.name == "categorical" else ""
            return f"values between those of {family.name} have no meaning{instead}"
        return finite_refusal(eqn, "REBAR")

    def request(self, eqn: Eqn, moving: Sequence[str]) -> Request:
        return Request(2, together=True, shares=(self.scale, -self.scale), group=self)

    def lower(self, choice: Choice) -> Val:
        view, names, key = choice.view, choice.eqn.params["names"], choice.new_key()
        assert view is not None and choice.family.relaxation is not None
        mix = choice.family.relaxation.mix

        def draw(*arrays: Array) -> list[Array]:
            """The value, its relaxation, that given the value, and the value's log-probability."""
            params = {n: jnp.asarray(x) for n, x in zip(names, arrays, strict=True)}
            log_p = log_probabilities(choice, params)
            z = log_p + jax.random.gumbel(key, log_p.shape, log_p.dtype)
            hard = jax.nn.one_hot(jnp.argmax(z, 0), len(z), axis=0, dtype=z.dtype)
            logp = jnp.sum(jnp.where(hard == 1, log_p, 0), 0)
            relax = lambda z: mix(jax.nn.softmax(z / self.temperature, 0))
            return [mix(hard), relax(z), relax(_given(log_p, z, hard)), logp]

        value, *relaxations, logp = batched(draw, choice.params)
        value = worlds_of(value, view.size)
        own = range(view.slots.start, view.slots.stop)
        for world, relaxed in zip(own, relaxations, strict=True):
            put = lambda x, y, w=world: [x.at[w].set(y[w])]
            value = batched(put, [value, worlds_of(relaxed, view.size)])[0]
        scored = jnp.array([0, own[1], *view.scored])
        keep = lambda x: [jnp.zeros_like(x).at[scored].set(x[scored])]
        charges = batched(keep, [worlds_of(logp, view.size)])[0]
        choice.logp(Val(charges.array, (*charges.axes, WORLDS)))
        return Val(value.array, (*value.axes, WORLDS))


def _given(log_p: Array, z: Array, hard: Array) -> Array:
    """The Gumbel variables as functions of the parameters, given which of them is the largest.

    The noise is that which `z` itself came from, so the result equals `z`; only its derivative is
    another (Tucker et al., appendix; Maddison et al. 2014 for the conditional law).
    """
    largest = jnp.sum(jnp.where(hard == 1, z, 0), 0)  # a standard Gumbel variable
    p, fixed = jnp.exp(log_p), lax.stop_gradient(jnp.exp(log_p))
    # exp(-z) = exp(-largest) + E / p, with E exponential: memoryless above the smallest.
    possible = (hard == 0) & (p > 0)
    gap = jnp.exp(-jnp.where(possible, z, largest)) - jnp.exp(-largest)
    beyond = lax.stop_gradient(jnp.maximum(gap, 0)) * fixed
    rest = jnp.exp(-lax.stop_gradient(largest)) + beyond / jnp.where(possible, p, 1)
    return jnp.where(possible, -jnp.log(rest), jnp.where(hard == 1, lax.stop_gradient(z), z))
