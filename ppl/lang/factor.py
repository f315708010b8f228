"""`factor`: an unnormalised term in a program's density."""

from __future__ import annotations

import dataclasses
from typing import Any

import genjax
import jax.numpy as jnp
from genjax.core import GFI, Tr
from jaxtyping import Array, ArrayLike

from ppl.errors import AddressError
from ppl.lang.gfi import Combinators
from ppl.lang.mask import Mask
from ppl.lang.scope import current_address


@genjax.Pytree.dataclass
class Factor(Combinators, GFI):
    """Adds `log_weight` to the log-density, and makes no choice."""

    density_mask: Mask | None = None

    @property
    def name(self) -> str:
        return "factor"

    def simulate(self, log_weight: ArrayLike) -> Tr:
        return Tr(self, ((log_weight,), {}), {}, None, -self._log_density(log_weight))

    def generate(self, x: Any, log_weight: ArrayLike) -> tuple[Tr, Array]:
        self._check(x)
        tr = self.simulate(log_weight)
        return tr, -tr.get_score()  # counts in full also if nothing is given: nothing is drawn

    def assess(self, x: Any, log_weight: ArrayLike) -> tuple[Array, None]:
        self._check(x)
        return self._log_density(log_weight), None

    def update(self, tr: Tr, x_: Any, log_weight: ArrayLike) -> tuple[Tr, Array, Any]:
        self._check(x_)
        new = self.simulate(log_weight)
        return new, tr.get_score() - new.get_score(), {}

    def regenerate(self, tr: Tr, s: Any, log_weight: ArrayLike) -> tuple[Tr, Array, Any]:
        return self.update(tr, None, log_weight)

    def merge(self, x: Any, x_: Any, check: Array | None = None) -> tuple[Any, Any]:
        return {}, None

    def filter(self, x: Any, selection: Any) -> tuple[Any, Any]:
        return None, None

    def masked_by(self, mask: Mask) -> Factor:
        return dataclasses.replace(self, density_mask=mask & self.density_mask)

    def _log_density(self, log_weight: ArrayLike) -> Array:
        log_weight = jnp.asarray(log_weight)
        if self.density_mask is not None:
            log_weight = jnp.where(self.density_mask.counted, log_weight, 0)
        return jnp.sum(log_weight)

    def _check(self, x: Any) -> None:
        if not (x is None or (isinstance(x, dict) and not x)):
            raise AddressError(
                "a value was given for a factor, which makes no choice",
                address=current_address("factor"),
                fix="remove the value; the log-weight is the factor's argument",
            )


factor = Factor()
"""`factor(log_weight) @ "name"`: multiply the program's density by `exp(log_weight)`.

The program's density is then not normalised. The factor makes no choice: its address does not
appear among the program's choices, and none is to be given for it. An array of log-weights counts
with its sum.
"""
