"""The mean cost of the other samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from ppl.compiler.baselines.base import Baseline, Charged, register_baseline


@register_baseline
@dataclass(frozen=True)
class LeaveOneOut(Baseline):
    """The mean cost of the other samples (Kool, van Hoof and Welling 2019, "Buy 4 REINFORCE
    samples, get a baseline for free!"); with one sample there are no others, and it is 0."""

    name: ClassVar[str] = "leave_one_out"

    def value(self, charged: Charged) -> Array:
        if charged.num_samples == 1:
            return jnp.zeros((), charged.cost.dtype)
        return charged.mean_of_others(charged.cost)
