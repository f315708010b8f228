"""`marginal`: a program over some of another program's choices, the others integrated out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import genjax
import jax.numpy as jnp
from genjax.core import GFI, Tr
from jaxtyping import Array

from ppl.errors import AddressError, suggestion
from ppl.lang.gfi import choice_shapes
from ppl.lang.inference.base import Inference, Target
from ppl.lang.inferred import Inferred
from ppl.lang.interop import as_program
from ppl.lang.mask import Mask
from ppl.lang.observed import (
    Choices,
    flat_choices,
    given_values,
    merge_updated,
    without_observed,
)
from ppl.lang.scope import current_address, scope


def marginal(program: GFI, *, keep: str | Iterable[str], by: Inference) -> Marginal:
    """The program with only the choices `keep`; all others are integrated out.

    The log-densities are estimates: `density` returns the log of an unbiased estimate of the
    marginal density p(x), `sim` the log of an s with E[1/s | x] = 1/p(x). So an objective that uses
    a model's `density` and a guide's `sim`, as the ELBO does, stays a lower bound. With
    `by=enumeration()` both are exact. Its result is its choices.

    Args:
        program: a normalised generative function: what it draws must have its density. (An
            unnormalised one, with observations or factors, may be used for `density` only.)
        keep: full addresses of choices, `"x"` or `"layer/z"`, or of whole programs inside.
        by: the inference algorithm for the choices that go, given those that stay:
            `importance(...)`, `enumeration()`, `smc(...)`, or your own.

    Raises:
        AddressError (when run): an address of `keep` is not the program's.

    >>> ring = marginal(guide, keep=["x", "y"], by=importance(reverse, 5))  # doctest: +SKIP

    Source: Becker et al. (PLDI 2024, arXiv 2406.15742); Sobolev and Vetrov (arXiv 1909.13062).
    """
    addresses = (keep,) if isinstance(keep, str) else tuple(keep)
    if not isinstance(by, Inference):
        raise TypeError(
            "marginal: by is an inference algorithm such as importance(...), not a "
            f"{type(by).__name__}"
        )
    return Marginal(as_program(program), genjax.const(addresses), genjax.const(by), None)


@genjax.Pytree.dataclass
class Marginal(Inferred):
    """A program with some of its choices integrated out; made by `marginal`."""

    kind: ClassVar[str] = "marginal"
    program: GFI
    keep: genjax.Const[tuple[str, ...]]
    by: genjax.Const[Inference]
    density_mask: Mask | None

    def simulate(self, *args: Any, **kwargs: Any) -> Tr:
        return self._trace(self._masked.simulate(*args, **kwargs), args, kwargs)

    def generate(self, x: Any, *args: Any, **kwargs: Any) -> tuple[Tr, Array]:
        values, redrawn = given_values(x)
        if self._is_complete(values, args, kwargs):
            log_d, _ = self.assess(values, *args, **kwargs)
            tr = self._with_density(values, log_d, args, kwargs)
            if redrawn == len(flat_choices(values)):
                return tr, jnp.zeros_like(log_d)
            if not redrawn:
                return tr, log_d
        # Properly weighted for all choices of the program, and so for those that are kept.
        tr, weight = self._masked.generate(x, *args, **kwargs)
        return self._trace(tr, args, kwargs), weight

    def assess(self, x: Any, *args: Any, **kwargs: Any) -> tuple[Array, Any]:
        self._check(x, args, kwargs)
        with scope(self.by.value.name):
            log_d = self.by.value.log_evidence(self._target(x, args, kwargs))
        return self._counted(log_d), x

    def _target(self, kept: Choices, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Target:
        """The density of the other choices, given those that are kept."""
        return Target(self._masked, args, kwargs, kept)

    def _trace(self, tr: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tr:
        """From a trace of the program: the kept choices, with the estimate of their density."""
        choices = tr.get_choices()
        kept, rest = split_choices(choices, self.keep.value)
        if not flat_choices(rest):  # nothing is integrated out
            return Tr(self, (args, kwargs), kept, kept, tr.get_score())
        with scope(self.by.value.name):
            log_q = self.by.value.log_density(self._target(kept, args, kwargs), rest)
        log_s = self._counted(-tr.get_score() - log_q)
        return Tr(self, (args, kwargs), kept, kept, -log_s)

    def _with_density(self, x: Any, log_density: Array, args: Any, kwargs: Any) -> Tr:
        return Tr(self, (args, kwargs), x, x, -log_density)

    def _is_complete(self, x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether all kept choices are given."""
        if not flat_choices(x) and self.keep.value:
            return False
        return not set(self._addresses(args, kwargs)) - set(flat_choices(x))

    def _addresses(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return flat_choices(
            split_choices(choice_shapes(self.program, args, kwargs), self.keep.value)[0]
        )

    def _check(self, x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise an `AddressError` unless exactly the kept choices are given."""
        if not isinstance(x, dict):
            raise AddressError(
                "the choices of a marginal are a dictionary from address to value",
                address=current_address(),
                because=f"found a {type(x).__name__}",
            )
        known, given = self._addresses(args, kwargs), flat_choices(x)
        if unknown := sorted(set(given) - set(known)):
            raise AddressError(
                f"the marginal has no choice {unknown[0]!r}",
                address="/".join(filter(None, [current_address(), unknown[0]])),
                because=suggestion(unknown[0], known),
                fix="remove the value, or keep the choice: marginal(program, keep=[...])",
            )
        if missing := sorted(set(known) - set(given)):
            raise AddressError(
                f"no value was given for the choice {missing[0]!r}",
                address="/".join(filter(None, [current_address(), missing[0]])),
                because=suggestion(missing[0], given),
                fix="add it to the choices, e.g. as an observation or a choice of the guide",
            )


def split_choices(choices: Choices, keep: Iterable[str]) -> tuple[Choices, Choices]:
    """Nested choices at the addresses `keep`, and the others.

    Raises:
        AddressError: there is no such address.

    >>> split_choices({"a": 1.0, "b": {"c": 2.0, "d": 3.0}}, ["b/c"])
    ({'b': {'c': 2.0}}, {'a': 1.0, 'b': {'d': 3.0}})
    """
    kept: Choices = {}
    for address in keep:
        value = choices
        for part in address.split("/"):
            if not isinstance(value, dict) or part not in value:
                raise AddressError(
                    f"{address!r} is no choice of the program",
                    address=current_address(),
                    because=suggestion(address, flat_choices(choices)),
                    fix="give full addresses: ['x', 'layer/z']",
                )
            value = value[part]
        for part in reversed(address.split("/")):
            value = {part: value}
        kept = merge_updated(kept, value)
    return kept, without_observed(choices, kept)
