"""`normalize`: a normalised program from an unnormalised one."""

from __future__ import annotations

from typing import Any, ClassVar

import genjax
import jax.numpy as jnp
from genjax.core import GFI, Tr
from jaxtyping import Array

from ppl.errors import UnsupportedError
from ppl.lang.gfi import takes_value
from ppl.lang.inference.base import Inference, Target
from ppl.lang.inferred import Inferred
from ppl.lang.interop import as_program
from ppl.lang.mask import Mask
from ppl.lang.observed import flat_choices, given_values
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
class Normalized(Inferred):
    """An unnormalised program, normalised by an inference algorithm; made by `normalize`."""

    kind: ClassVar[str] = "normalised program"
    program: GFI
    by: genjax.Const[Inference]
    density_mask: Mask | None

    def simulate(self, *args: Any, **kwargs: Any) -> Tr:
        x, log_s = self.by.value.sample(self._target(args, kwargs))
        return self._with_density(x, log_s, args, kwargs)

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
        tr = self._with_density(values, log_d, args, kwargs)
        return tr, jnp.zeros_like(log_d) if redrawn else log_d

    def assess(self, x: Any, *args: Any, **kwargs: Any) -> tuple[Array, Any]:
        log_d = self._counted(self.by.value.log_density(self._target(args, kwargs), x))
        return log_d, self._masked.assess(x, *args, **kwargs)[1]

    @property
    def takes_value(self) -> bool:
        return takes_value(self.program)

    def _target(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Target:
        return Target(self._masked, args, kwargs)

    def _with_density(self, x: Any, log_density: Array, args: Any, kwargs: Any) -> Tr:
        retval = self._masked.assess(x, *args, **kwargs)[1]
        return Tr(self, (args, kwargs), x, retval, -self._counted(log_density))
