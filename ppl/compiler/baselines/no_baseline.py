"""No baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from ppl.compiler.baselines.base import Baseline, Charged, register_baseline


@register_baseline
@dataclass(frozen=True)
class NoBaseline(Baseline):
    """Costs are charged as they are."""

    name: ClassVar[str] = "none"

    def value(self, charged: Charged) -> Array:
        return jnp.zeros((), charged.cost.dtype)
