"""What all our generative functions share, beside GenJAX's interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import genjax
import jax
from genjax.core import GFI, get_choices

from ppl.errors import UnsupportedError
from ppl.lang.inline import Inline


class Combinators:
    """Methods of every program: `.repeat(n)`, `.vmap(...)`, `.mask(flag)`, `.cond(other)`.

    A subclass that is not a program says what it is through `takes_value` and `masked_by`.
    """

    def vmap(
        self: Any,
        in_axes: int | tuple[int | None, ...] | Sequence[Any] | None = 0,
        axis_size: int | None = None,
        axis_name: str | None = None,
        spmd_axis_name: str | None = None,
    ) -> Any:
        """This program once per lane: see `plate`."""
        from ppl.lang.plate import plate

        del axis_name, spmd_axis_name  # GenJAX's interface; collectives do not cross choices
        return plate(self, size=axis_size, in_axes=in_axes)

    def repeat(self: Any, n: int) -> Any:
        """`n` independent runs with the same arguments."""
        from ppl.lang.plate import plate

        return plate(self, size=n, in_axes=None)

    def mask(self: Any, flag: Any) -> Any:
        """Count the log-density only where `flag` is true: see `mask`."""
        from ppl.lang.mask import mask

        return mask(self, flag)

    def cond(self: Any, other: Any) -> Any:
        """`self.cond(other)(flag, *args)`: this program where `flag`, else `other`."""
        from ppl.lang.branch import cond

        return cond(self, other)

    @property
    def takes_value(self) -> bool:
        """Whether the choice at its address is a value, and not a dictionary of choices."""
        return False

    def masked_by(self, mask: Any) -> Any:
        """This program with its log-density counted only where `mask` says (see `Mask`)."""
        raise UnsupportedError(f"{name_of(self)!r} cannot be masked")


def takes_value(gen_fn: GFI) -> bool:
    """Whether a generative function's choices are one value, as a distribution's are."""
    if isinstance(gen_fn, Combinators):
        return gen_fn.takes_value
    return not isinstance(gen_fn, genjax.Fn)


def name_of(gen_fn: Any) -> str:
    """What a program is called in addresses and messages: its own name, or its inner one's."""
    name = getattr(gen_fn, "name", None)
    if name := getattr(name, "value", name):
        return str(name)
    inner = getattr(gen_fn, "program", None)
    return type(gen_fn).__name__.lower() if inner is None else name_of(inner)


def choice_shapes(gen_fn: GFI, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The choices of one run as a tree of `jax.ShapeDtypeStruct`s; nothing is drawn."""
    return jax.eval_shape(lambda: get_choices(gen_fn.simulate(*args, **kwargs)))


def no_empty(choices: Any) -> Any:
    """Nested choices without the entries of programs that make no choice (`factor`).

    Those of programs that run `inline` stand among their caller's.
    """
    if not isinstance(choices, dict):
        return choices
    inner: dict[str, Any] = {}
    for address, value in choices.items():
        value = no_empty(value)
        inner |= (value or {}) if isinstance(address, Inline) else {address: value}
    return {address: value for address, value in inner.items() if not _is_empty(value)}


def _is_empty(value: Any) -> bool:
    return isinstance(value, dict) and not value
