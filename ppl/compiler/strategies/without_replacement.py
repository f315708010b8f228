"""Sampling without replacement: several different values of one lane are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl.compiler.alternates import Alternates
from ppl.compiler.strategies.base import Choice, Kind, register
from ppl.compiler.strategies.enumerate import support_size
from ppl.compiler.strategies.finite import (
    alternates_of,
    finite_refusal,
    index_of,
    log_probabilities,
    value_at,
)
from ppl.compiler.tables import Val
from ppl.compiler.worlds import Request
from ppl.errors import StrategyError
from ppl.lang.family import Params
from ppl.lang.keys import key_beside
from ppl.lang.staged import Eqn

MAX_SET = 8
"""The unordered-set estimator goes through all subsets of the set."""


@dataclass(frozen=True)
class _Several:
    """`samples` different values of a lane: the drawn one and `samples - 1` worlds for others."""

    samples: int = 3
    name: ClassVar[str]
    baseline: ClassVar[str] = "none"
    kind: ClassVar[Kind] = "worlds"

    def refusal(self, eqn: Eqn) -> str | None:
        return finite_refusal(eqn, self.name)

    def request(self, eqn: Eqn, moving: Sequence[str]) -> Request:
        return Request(_size(eqn, self.samples) - 1 if moving else 0, together=False)


@register
@dataclass(frozen=True)
class UnorderedSet(_Several):
    """The unordered-set estimator (Kool, van Hoof and Welling, arXiv 2002.06043), with baseline.

    `samples` different values of a lane are drawn without replacement (the first of them is an
    ordinary draw); the cost of each is weighted by the probability that it would come first, given
    the set. The baseline of each value is the same estimate from the other values. Unbiased.
    `samples - 1` worlds, for each lane and step that a cost combines with others.
    """

    name: ClassVar[str] = "unordered_set"

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or not 2 <= self.samples <= MAX_SET:
            raise StrategyError(
                f"an unordered set has 2 to {MAX_SET} values, not {self.samples}",
                fix="UnorderedSet(samples=3)",
            )

    def lower(self, choice: Choice) -> Val:
        size = _size(choice.eqn, self.samples)

        def perturbed(key: jax.Array, log_p: Array) -> Array:
            return log_p + jax.random.gumbel(key, log_p.shape, log_p.dtype)

        def sample(key: jax.Array, params: Params) -> Array:
            ranks = perturbed(key, log_probabilities(choice, params))
            return value_at(choice, jnp.argmax(ranks, 0))

        def alternates(key: jax.Array, actual: Array, params: Params) -> Alternates:
            log_p = log_probabilities(choice, params)
            indices = _top(perturbed(key, log_p), size)
            p, rest = _split(jnp.exp(log_p), indices)
            charges = _unordered_charges(p, rest)
            first = jnp.zeros(indices.shape[1:], indices.dtype)
            return alternates_of(choice, indices, charges, first)

        return choice.draw_alternatives(sample, alternates)


@register
@dataclass(frozen=True)
class SumAndSample(_Several):
    """Sum and sample (Liu et al., arXiv 1810.04777): the likeliest values and one of the others.

    The gradient is summed over the `samples - 1` most probable values of a lane, and estimated
    from one draw among the rest, relative to the mean of the sum. Unbiased. `samples - 1` worlds,
    for each lane and step that a cost combines with others.
    """

    name: ClassVar[str] = "sum_and_sample"

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 2:
            raise StrategyError(
                f"sum_and_sample compares two or more values, not {self.samples}",
                fix="SumAndSample(samples=3)",
            )

    def lower(self, choice: Choice) -> Val:
        size = _size(choice.eqn, self.samples)

        def alternates(key: jax.Array, actual: Array, params: Params) -> Alternates:
            log_p = log_probabilities(choice, params)
            top = _top(log_p, size - 1)
            drawn = index_of(choice, actual)
            among = jnp.any(top == drawn, 0)
            other = _draw_other(key_beside(key, "another"), log_p, top)
            indices = jnp.concatenate([top, jnp.where(among, other, drawn)[None]])
            p, _ = _split(jnp.exp(log_p), indices)
            actual_at = jnp.argmax(indices == drawn, 0)
            return alternates_of(choice, indices, _sampled_charges(p), actual_at)

        return choice.draw_alternatives(choice.sample, alternates)


def _size(eqn: Eqn, samples: int) -> int:
    size = support_size(eqn)
    assert size is not None
    return min(samples, size)


def _top(ranks: Array, size: int) -> Array:
    """`[size, *lanes]`: the values that rank highest, the highest first."""
    return jnp.moveaxis(lax.top_k(jnp.moveaxis(ranks, 0, -1), size)[1], -1, 0)


def _split(p: Array, indices: Array) -> tuple[Array, Array]:
    """The probabilities of some values, `[size, *lanes]`, and the sum of all others."""
    numbers = jnp.arange(len(p)).reshape(-1, *(1,) * (p.ndim - 1))
    inside = jnp.any(numbers[:, None] == indices, 1)
    return jnp.take_along_axis(p, indices, 0), jnp.sum(jnp.where(inside, 0, p), 0)


def _draw_other(key: jax.Array, log_p: Array, top: Array) -> Array:
    numbers = jnp.arange(len(log_p)).reshape(-1, *(1,) * (log_p.ndim - 1))
    inside = jnp.any(numbers[:, None] == top, 1)
    ranks = log_p + jax.random.gumbel(key, log_p.shape, log_p.dtype)
    # Where all others are impossible, one of those: its weight is 0.
    return jnp.argmax(
        jnp.where(inside, -jnp.inf, jnp.maximum(ranks, jnp.finfo(ranks.dtype).min)), 0
    )


def _ratio(a: Array, b: Array) -> Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def _sampled_charges(p: Array) -> Array:
    """Of sum and sample: the last value stands for all that are not among the others."""
    fixed = lax.stop_gradient(p)
    top = jnp.sum(fixed[:-1], 0)
    slopes = jnp.concatenate([p[:-1], (_ratio(1 - top, fixed[-1]) * p[-1])[None]])
    level = _ratio(fixed[:-1], top) * jnp.sum(slopes, 0)  # the others' mean is the baseline
    return slopes - jnp.concatenate([level, jnp.zeros_like(level[:1])])


def _unordered_charges(p: Array, rest: Array) -> Array:
    """Of the unordered set: what the cost of each value of the set is multiplied by.

    Args:
        p: `[size, *lanes]`, probabilities of the set's values.
        rest: `[*lanes]`, of all values that are not in the set.
    """
    fixed, size = lax.stop_gradient(p), len(p)
    drawn = _subset_probabilities(fixed, lax.stop_gradient(rest))
    every = frozenset(range(size))
    charges = [jnp.zeros_like(p[0]) for _ in range(size)]
    for s in range(size):
        slope = _ratio(drawn(every - {s}), drawn(every)) * p[s]
        charges[s] = charges[s] + slope
        for other in range(size):
            second = 1.0 if other == s else _ratio(drawn(every - {s, other}), drawn(every - {s}))
            charges[other] = charges[other] - slope * fixed[other] * second
    return jnp.stack(charges)


def _subset_probabilities(p: Array, rest: Array) -> Callable[[frozenset[int]], Array]:
    """Probability that draws without replacement from a subset and the rest are the subset."""
    table: dict[frozenset[int], Array] = {frozenset(): jnp.ones_like(rest)}
    for size in range(1, len(p) + 1):
        for chosen in map(frozenset, combinations(range(len(p)), size)):
            mass = rest + sum(p[i] for i in chosen)
            first = sum(p[i] * table[chosen - {i}] for i in chosen)
            table[chosen] = _ratio(jnp.asarray(first), jnp.asarray(mass))
    return table.__getitem__
