"""`mask`: count the log-density of a program only where a flag is true."""

from __future__ import annotations

from typing import Any

import genjax
import jax.numpy as jnp
from genjax.core import GFI, Tr, get_choices, handler_stack
from jax import lax
from jaxtyping import Array, ArrayLike

from ppl.errors import ShapeError, UnsupportedError
from ppl.lang.distribution import Distribution
from ppl.lang.gfi import Combinators, name_of
from ppl.lang.interop import as_program
from ppl.lang.observed import PartlyObserved, Retained
from ppl.lang.scope import current_address


def mask(program: GFI, flag: ArrayLike) -> Any:
    """The program with its log-density counted only where `flag` is true.

    Choices are drawn as usual. Where the flag is false, a choice adds exactly 0 to the log-density
    and its value is not looked at, so that NaN in missing data reaches neither the log-density nor
    any gradient. It is for missing data and for sequences of different lengths:
    `normal.mask(present)(loc, 1.0) @ "y"`.

    Args:
        program: a generative function.
        flag: a boolean; for a distribution also an array of booleans, one per lane.

    Raises (when run):
        ShapeError: the flag does not broadcast to the lanes of the distribution.
    """
    flag = jnp.asarray(flag).astype(bool)
    program = as_program(program)
    if flag.ndim and not isinstance(program, genjax.Distribution):
        raise ShapeError(
            "mask: the flag of a program must be a single boolean",
            address=current_address(name_of(program)),
            because=f"its shape is {flag.shape}, and a program has no lanes to pair it with",
            fix="mask inside of the plate, one flag per lane; or mask a distribution",
        )
    return masked_by(program, Mask(flag))


@genjax.Pytree.dataclass
class Mask(genjax.Pytree):
    """Where a log-density counts.

    Attributes:
        counted: booleans: the log-density counts where true.
        active: a boolean, false in a branch that is not taken: there the program sees, instead of
            the values given (which belong to another branch), values in its supports.
            `None` for always.
    """

    counted: Array
    active: Array | None = None

    def __and__(self, other: Mask | None) -> Mask:
        if other is None:
            return self
        if self.active is None or other.active is None:
            active = other.active if self.active is None else self.active
        else:
            active = self.active & other.active
        return Mask(self.counted & other.counted, active)


def masked_by(program: GFI, mask: Mask | None) -> Any:
    """The program under a mask, which every choice in it obeys.

    The mask goes down to the distributions, and each log-density is masked where it is computed:
    a `where` around the sum would let NaN through to the gradient.
    """
    if mask is None:
        return program
    if isinstance(program, MaskedDistribution):
        return MaskedDistribution.of(program.distribution, program.density_mask & mask)
    if isinstance(program, genjax.Distribution):
        return MaskedDistribution.of(program, mask)
    if isinstance(program, Combinators):
        return program.masked_by(mask)
    raise UnsupportedError(
        f"mask and branches cannot follow a generative function of type {type(program).__name__}",
        address=current_address(name_of(program)),
        because="its choices are not visible to them",
        fix="write it with gen, or register a conversion with ppl.lang.interop.converts",
    )


@genjax.Pytree.dataclass(has_implicitly_inherited_fields=True)
class MaskedDistribution(Combinators, genjax.Distribution):
    """A distribution under a mask."""

    distribution: genjax.Distribution
    density_mask: Mask

    @staticmethod
    def of(distribution: genjax.Distribution, mask: Mask) -> MaskedDistribution:
        unused: Any = genjax.const(None)  # GenJAX's fields, which the methods below replace
        return MaskedDistribution(unused, unused, distribution.name, distribution, mask)

    @property
    def takes_value(self) -> bool:
        return True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.T(*args, **kwargs) if handler_stack else self.sample(*args, **kwargs)

    def sample(self, *args: ArrayLike, **kwargs: ArrayLike) -> Array:
        return self.distribution.sample(*args, **kwargs)

    def logpdf(self, x: ArrayLike, *args: ArrayLike, **kwargs: ArrayLike) -> Array:
        return jnp.sum(self.log_prob(x, *args, **kwargs))

    def log_prob(self, x: ArrayLike, *args: ArrayLike, **kwargs: ArrayLike) -> Array:
        """Log-density of `x`, one number per lane; 0 in the lanes that do not count."""
        x = self._safe(x, self.density_mask.counted, args, kwargs)
        if isinstance(self.distribution, Distribution):
            lanes = self.distribution.log_prob(x, *args, **kwargs)
        else:
            lanes = self.distribution.logpdf(x, *args, **kwargs)
        self._check(jnp.shape(lanes))
        return jnp.where(self.density_mask.counted, lanes, 0)

    def simulate(self, *args: Any, **kwargs: Any) -> Tr:
        x = self.sample(*args, **kwargs)  # in the support, also in a branch not taken
        return Tr(self, (args, kwargs), x, x, -self.logpdf(x, *args, **kwargs))

    def generate(self, x: Any, *args: Any, **kwargs: Any) -> tuple[Tr, Array]:
        if x is None:
            return self.simulate(*args, **kwargs), jnp.array(0.0)
        if isinstance(x, Retained):
            tr, log_density = self.generate(x.value, *args, **kwargs)
            return tr, jnp.zeros_like(log_density)
        if isinstance(x, PartlyObserved):
            full = x.complete(lambda: self.sample(*args, **kwargs))
            lanes = self.log_prob(full, *args, **kwargs)
            weight = jnp.sum(jnp.where(x.observed_lanes(lanes.ndim), lanes, 0))
            return self._trace(full, args, kwargs), weight
        logp, _ = self.assess(x, *args, **kwargs)
        return self._trace(x, args, kwargs), logp

    def assess(self, x: Any, *args: Any, **kwargs: Any) -> tuple[Array, Array]:
        self._check_shape(x, args, kwargs)
        return self.logpdf(x, *args, **kwargs), self._seen(x, args, kwargs)

    def update(self, tr: Tr, x_: Any, *args: Any, **kwargs: Any) -> tuple[Tr, Array, Any]:
        old = get_choices(tr)
        if x_ is not None:
            self._check_shape(x_, args, kwargs)
        new = self._trace(old if x_ is None else x_, args, kwargs)
        return new, tr.get_score() - new.get_score(), old

    def regenerate(self, tr: Tr, s: Any, *args: Any, **kwargs: Any) -> tuple[Tr, Array, Any]:
        old = get_choices(tr)
        if () in s:
            return self.simulate(*args, **kwargs), jnp.array(0.0), old
        new = self._trace(old, args, kwargs)
        return new, tr.get_score() - new.get_score(), None

    def _trace(self, x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tr:
        seen = self._seen(x, args, kwargs)
        return Tr(self, (args, kwargs), x, seen, -self.logpdf(x, *args, **kwargs))

    def _seen(self, x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value as the rest of the program sees it."""
        active = self.density_mask.active
        return x if active is None else self._safe(x, active, args, kwargs)

    def _safe(self, x: Any, keep: Array, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`x` where `keep` is true, else some element of the support."""
        if not isinstance(self.distribution, Distribution):
            return x  # nothing is known of its support
        family = self.distribution.family.value
        params = family.bind(args, kwargs)
        event = tuple(family.event_shape({n: p.shape for n, p in params.items()}))
        x = jnp.asarray(x)
        self._check(x.shape[: x.ndim - len(event)])
        example = lax.stop_gradient(family.support_of(params).example(event)).astype(x.dtype)
        return jnp.where(jnp.reshape(keep, keep.shape + (1,) * len(event)), x, example)

    def _check_shape(self, x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if isinstance(self.distribution, Distribution):
            self.distribution.check_shape(x, *args, **kwargs)

    def _check(self, lanes: tuple[int, ...]) -> None:
        flags = self.density_mask.counted.shape
        fits = len(flags) <= len(lanes) and all(
            f in (1, n) for f, n in zip(flags[::-1], lanes[::-1], strict=False)
        )
        if not fits:
            raise ShapeError(
                "mask: the flag does not broadcast to the lanes of the distribution",
                address=current_address(name_of(self)),
                because=f"the flag's shape is {flags}, the lanes are {lanes}",
                fix="give one boolean, or one per lane (per vector, for a vector distribution)",
            )
