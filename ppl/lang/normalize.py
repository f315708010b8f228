"""`normalize`: a normalised program from an unnormalised one."""

from __future__ import annotations

import dataclasses
from typing import Any

import genjax
import jax.numpy as jnp
from genjax.core import GFI, Tr, get_choices
from jaxtyping import Array

from ppl.errors import UnsupportedError
from ppl.lang.gfi import Combinators, takes_value
from ppl.lang.inference.base import Inference, Target
from ppl.lang.interop import as_program
from ppl.lang.mask import Mask, masked_by
from ppl.lang.observed import flat_choices, given_values, merge_updated
from ppl.lang.scope import current_address


def normalize(program: GFI, *, by: Inference) -> Normalized:
    """A program that draws the choices of an unnormalised one, approximately from its posterior.

    Its law is the inference algorithm's: for `sir(proposal, k)`, what is picked among k draws of
    the proposal by their weights, which tends to the posterior as k grows. `density` returns the
    log of an unbiased estimate of the density *of that law*, `sim` the log of an s with
    E[1/s | x] = 1 / density. With `by=enumeration()` law and densities are exact.

    Args:
        program: a generative function with observations (`condition(model, data)`) or factors.
        by: the inference algorithm: `sir(...)`, `smc(...)`, `enumeration()`, or your own.

    >>> posterior = normalize(condition(model, {"y": y}), by=sir(guide, 10))  # doctest: +SKIP

    Source: Becker et al. (PLDI 2024, arXiv 2406.15742).
    """
    program = as_program(program)
    if not isinstance(by, Inference):
        raise TypeError(
            f"normalize: by is an inference algorithm such as sir(...), not a {type(by).__name__}"
        )
    return Normalized(program, genjax.const(by), None)


@genjax.Pytree.dataclass
class Normalized(Combinators, GFI):
    """An unnormalised program, normalised by an inference algorithm; made by `normalize`."""

    program: GFI
    by: genjax.Const[Inference]
    density_mask: Mask | None

    def simulate(self, *args: Any, **kwargs: Any) -> Tr:
        x, log_s = self.by.value.sample(self._target(args, kwargs))
        return self._trace(x, log_s, args, kwargs)

    def generate(self, x: Any, *args: Any, **kwargs: Any) -> tuple[Tr, Array]:
        if not flat_choices(x):
            return self.simulate(*args, **kwargs), jnp.array(0.0)
        values, redrawn = given_values(x)
        if redrawn not in (0, len(flat_choices(values))):
            raise UnsupportedError(
                "some choices of a normalised program cannot be given alone",
                address=current_address(),
                because="their density without the others is not known",
                fix="give all of its choices, or none; or observe them: "
                "normalize(condition(program, observed), by=...)",
            )
        log_d, _ = self.assess(values, *args, **kwargs)
        tr = self._trace(values, log_d, args, kwargs)
        return tr, jnp.zeros_like(log_d) if redrawn else log_d

    def assess(self, x: Any, *args: Any, **kwargs: Any) -> tuple[Array, Any]:
        log_d = self._counted(self.by.value.log_density(self._target(args, kwargs), x))
        return log_d, self._masked.assess(x, *args, **kwargs)[1]

    def update(self, tr: Tr, x_: Any, *args: Any, **kwargs: Any) -> tuple[Tr, Array, Any]:
        old = get_choices(tr)
        x = merge_updated(old, x_)
        log_d, _ = self.assess(x, *args, **kwargs)
        return self._trace(x, log_d, args, kwargs), log_d + tr.get_score(), old

    def regenerate(self, tr: Tr, s: Any, *args: Any, **kwargs: Any) -> tuple[Tr, Array, Any]:
        old = get_choices(tr)
        if () in s:
            return self.simulate(*args, **kwargs), jnp.array(0.0), old
        if isinstance(old, dict) and any(a in s for a in old):
            raise UnsupportedError(
                "some choices of a normalised program cannot be regenerated alone",
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

    @property
    def takes_value(self) -> bool:
        return takes_value(self.program)

    def masked_by(self, mask: Mask) -> Normalized:
        return dataclasses.replace(self, density_mask=mask & self.density_mask)

    def _target(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Target:
        return Target(self._masked, args, kwargs)

    @property
    def _masked(self) -> GFI:
        return masked_by(self.program, self.density_mask)

    def _counted(self, log_density: Array) -> Array:
        """The log-density where it counts. (What is inside is masked too, so it is finite.)"""
        mask = self.density_mask
        return log_density if mask is None else jnp.where(mask.counted, log_density, 0)

    def _trace(
        self, x: Any, log_density: Array, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tr:
        retval = self._masked.assess(x, *args, **kwargs)[1]
        return Tr(self, (args, kwargs), x, retval, -self._counted(log_density))
