"""The mean cost over the earlier steps of an optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from ppl.compiler.baselines.base import Baseline, Charged, register_baseline


@register_baseline
@dataclass(frozen=True)
class RunningMean(Baseline):
    """The cost's exponentially weighted mean over the earlier steps; 0 in the first.

    Args:
        decay: weight of the past, per step.
    """

    decay: float = 0.9
    name: ClassVar[str] = "running_mean"

    def init(self) -> tuple[Array, Array]:
        """(weighted sum, sum of the weights)."""
        return jnp.zeros(()), jnp.zeros(())

    def value(self, charged: Charged) -> Array:
        charged.observe(jnp.mean(charged.cost))
        total, weight = charged.state
        mean = jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1), 0)
        return mean.astype(charged.cost.dtype)

    def update(self, state: tuple[Array, Array], observed: Array) -> tuple[Array, Array]:
        total, weight = state
        new = 1 - self.decay
        return self.decay * total + new * observed, self.decay * weight + new
