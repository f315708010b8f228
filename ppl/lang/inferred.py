"""What `marginal` and `normalize` share: a density that an inference algorithm estimates."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import genjax
import jax.numpy as jnp
from genjax.core import GFI, Tr, get_choices
from jaxtyping import Array

from ppl.errors import UnsupportedError
from ppl.lang.gfi import Combinators
from ppl.lang.inference.base import Inference
from ppl.lang.mask import Mask, masked_by
from ppl.lang.observed import merge_updated
from ppl.lang.scope import current_address


class Inferred(Combinators, GFI):
    """A program with a density that `by` estimates; the classes below it are its two kinds."""

    kind: ClassVar[str]
    program: GFI
    by: genjax.Const[Inference]
    density_mask: Mask | None

    def update(self, tr: Tr, x_: Any, *args: Any, **kwargs: Any) -> tuple[Tr, Array, Any]:
        old = get_choices(tr)
        x = merge_updated(old, x_)
        log_d, _ = self.assess(x, *args, **kwargs)
        return self._with_density(x, log_d, args, kwargs), log_d + tr.get_score(), old

    def regenerate(self, tr: Tr, s: Any, *args: Any, **kwargs: Any) -> tuple[Tr, Array, Any]:
        old = get_choices(tr)
        if () in s:
            fresh: Any = self.simulate(*args, **kwargs)
            return fresh, jnp.array(0.0), old
        if isinstance(old, dict) and any(a in s for a in old):
            raise UnsupportedError(
                f"some choices of a {self.kind} cannot be regenerated alone",
                address=current_address(),
                because="their conditional distribution given the others is not known",
                fix="select all of its choices, or none; or move them by update",
            )
        new, weight, _ = self.update(tr, None, *args, **kwargs)
        return new, weight, None

    def merge(self, x: Any, x_: Any, check: Array | None = None) -> tuple[Any, Any]:
        return self.program.merge(x, x_, check)

    def filter(self, x: Any, selection: Any) -> tuple[Any, Any]:
        return self.program.filter(x, selection)

    def masked_by(self, mask: Mask) -> Self:
        own: Any = self  # a dataclass, as its kinds are
        return dataclasses.replace(own, density_mask=mask & self.density_mask)

    def _with_density(self, x: Any, log_density: Array, args: Any, kwargs: Any) -> Tr:
        """A trace of these choices."""
        raise NotImplementedError

    @property
    def _masked(self) -> GFI:
        return masked_by(self.program, self.density_mask)

    def _counted(self, log_density: Array) -> Array:
        """The log-density where it counts. (What is inside is masked too, so it is finite.)"""
        mask = self.density_mask
        return log_density if mask is None else jnp.where(mask.counted, log_density, 0)
