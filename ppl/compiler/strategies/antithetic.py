"""Antithetic pairs and groups: ARM, DisARM, ARMS.

A choice among K values is made from K - 1 bits, the sticks: the k-th says whether it is the k-th
value, if it is none before. All bits of all lanes are drawn again from uniform numbers that are
negatively correlated with the first ones, so one or a few worlds do, however lanes combine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl.compiler.alternates import Alternates
from ppl.compiler.strategies.base import Choice, Kind, register
from ppl.compiler.strategies.finite import finite_refusal, log_probabilities, value_at
from ppl.compiler.tables import Val
from ppl.compiler.worlds import Request
from ppl.errors import StrategyError
from ppl.lang.family import Params
from ppl.lang.staged import Eqn


@register
@dataclass(frozen=True)
class Arms:
    """ARMS (Dimitriev and Zhou, arXiv 2105.14141): `samples` antithetic draws of all lanes.

    The draws are exchangeable, with uniform numbers from a Dirichlet copula; the gradient is the
    leave-one-out one over them, divided by 1 minus the correlation of two bits. For choices among
    more than two values: by stick breaking (Dong, Mnih and Tucker, arXiv 2106.08056). Unbiased;
    `samples - 1` worlds, however lanes combine, for each step of a loop that remembers the choice.
    """

    samples: int = 4
    name: ClassVar[str] = "arms"
    baseline: ClassVar[str] = "none"
    kind: ClassVar[Kind] = "worlds"

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 2:
            raise StrategyError(
                f"arms compares two or more draws, not {self.samples}", fix="Arms(samples=4)"
            )

    def refusal(self, eqn: Eqn) -> str | None:
        return finite_refusal(eqn, self.name)

    def request(self, eqn: Eqn, moving: Sequence[str]) -> Request:
        return Request(self.samples - 1 if moving else 0, together=True)

    def lower(self, choice: Choice) -> Val:
        return _lower(choice, self)

    def uniforms(self, key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
        """`[samples, *shape]`: any two are as far apart as can be (Dirichlet copula)."""
        n = self.samples
        gaps = jax.random.exponential(key, (n, *shape), dtype)
        return (1 - gaps / jnp.sum(gaps, 0)) ** (n - 1)

    def weights(self, uniforms: Array, bits: Array, p: Array) -> Array:
        """What the cost of each draw is multiplied by: the derivative of the bits' law in p."""
        n = self.samples
        rare = jnp.minimum(p, 1 - p)
        both = jnp.maximum(2 * rare ** (1 / (n - 1)) - 1, 0) ** (n - 1)
        apart = rare - both  # p (1 - p) (1 - correlation) = P(first bit differs from second) / 2
        centred = bits - jnp.mean(bits, 0)
        return jnp.where(apart > 0, centred / (jnp.where(apart > 0, apart, 1) * (n - 1)), 0)


@register
@dataclass(frozen=True)
class DisArm:
    """DisARM (Dong, Mnih and Tucker, arXiv 2006.10680): one antithetic draw of all lanes.

    ARM with the uniform numbers integrated out; ARMS with two draws. Unbiased; one world, however
    lanes combine, for each step of a loop that remembers the choice.
    """

    name: ClassVar[str] = "disarm"
    baseline: ClassVar[str] = "none"
    kind: ClassVar[Kind] = "worlds"

    def refusal(self, eqn: Eqn) -> str | None:
        return finite_refusal(eqn, self.name)

    def request(self, eqn: Eqn, moving: Sequence[str]) -> Request:
        return Request(1 if moving else 0, together=True)

    def lower(self, choice: Choice) -> Val:
        return _lower(choice, Arms(samples=2))


@register
@dataclass(frozen=True)
class Arm:
    """ARM (Yin and Zhou, arXiv 1807.11143): augment, reinforce, merge.

    The difference of the costs at a draw and its mirror image, times the uniform number behind.
    Unbiased, with more variance than DisARM; one world, however lanes combine, for each step of a
    loop that remembers the choice.
    """

    name: ClassVar[str] = "arm"
    baseline: ClassVar[str] = "none"
    kind: ClassVar[Kind] = "worlds"

    def refusal(self, eqn: Eqn) -> str | None:
        return finite_refusal(eqn, self.name)

    def request(self, eqn: Eqn, moving: Sequence[str]) -> Request:
        return Request(1 if moving else 0, together=True)

    def lower(self, choice: Choice) -> Val:
        return _lower(choice, self)

    def uniforms(self, key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
        u = jax.random.uniform(key, shape, dtype)
        return jnp.stack([u, 1 - u])

    def weights(self, uniforms: Array, bits: Array, p: Array) -> Array:
        # In the logit of p the weight is 1/2 - u; a rare bit is one whose u is small.
        side = jnp.where(p > 0.5, -1, 1)
        inside = (p > 0) & (p < 1)
        variance = jnp.where(inside, p * (1 - p), 1)
        return jnp.where(inside, side * (0.5 - uniforms) / variance, 0)


class _Coupling(Protocol):
    """Draws of a bit that are not independent, and a derivative from them."""

    def uniforms(self, key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array: ...

    def weights(self, uniforms: Array, bits: Array, p: Array) -> Array: ...


def _lower(choice: Choice, coupling: _Coupling) -> Val:
    def draws(key: jax.Array, p: Array) -> tuple[Array, Array]:
        """Uniform numbers and bits, `[draws, sticks, *lanes]`."""
        uniforms = coupling.uniforms(key, p.shape, p.dtype)
        # The rarer outcome is the one with small numbers: those repel each other most.
        bits = jnp.where(p > 0.5, uniforms >= 1 - p, uniforms < p)
        return uniforms, bits

    def sample(key: jax.Array, params: Params) -> Array:
        return value_at(choice, _index(draws(key, _sticks(choice, params))[1][0]))

    def alternates(key: jax.Array, actual: Array, params: Params) -> Alternates:
        sticks = _sticks(choice, params)
        fixed = lax.stop_gradient(sticks)
        uniforms, bits = draws(key, fixed)
        weights = coupling.weights(uniforms, bits.astype(fixed.dtype), fixed)
        charges = jnp.sum(weights * sticks, 1)
        return Alternates(value_at(choice, _index(bits[1:], 1)), charges[1:], charges[0])

    return choice.draw_alternatives(sample, alternates)


def _sticks(choice: Choice, params: Params) -> Array:
    """`[values - 1, *lanes]`: the probability of each value, if it is none before."""
    p = jnp.exp(log_probabilities(choice, params))
    rest = lax.cumsum(p, 0, reverse=True)
    possible = rest > 0
    return jnp.where(possible, p / jnp.where(possible, rest, 1), 0)[:-1]


def _index(bits: Array, axis: int = 0) -> Array:
    """The number of the first bit that is set along an axis, or their count if none is."""
    none = jnp.all(~bits, axis)
    return jnp.where(none, bits.shape[axis], jnp.argmax(bits, axis))
