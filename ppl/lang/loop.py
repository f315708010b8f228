"""`scan`: a program repeated step after step, with a state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import genjax
import jax
import jax.numpy as jnp
from genjax.core import GFI, Tr
from jax import lax
from jaxtyping import Array

from ppl.errors import ShapeError
from ppl.lang.gfi import Combinators, name_of
from ppl.lang.interop import as_program, converts
from ppl.lang.mask import Mask, masked_by
from ppl.lang.plate import check_leading_axis, lane_parts
from ppl.lang.scope import current_address


def scan(step: GFI, length: int | None = None) -> Loop:
    """Run `step(carry, x) -> (carry, out)` over `xs`, as `jax.lax.scan` runs a function.

    `scan(step)(init, xs) @ "states"` returns the last carry and the stacked outs. The choices are
    those of the step with a leading axis of steps, at the same addresses. Arguments by name are
    the same in all steps.

    Args:
        step: a generative function of a carry and one entry of `xs`, which returns a pair.
        length: number of steps; may be left out where `xs` tells it. With it `xs` may be left out.

    Raises (when run):
        ShapeError: the number of steps is unknown, `xs` or the choices disagree about it, or the
            step does not return a pair.

    >>> scan(step, length=10)(initial_state) @ "states"  # doctest: +SKIP
    """
    return Loop(as_program(step), genjax.const(length))


@genjax.Pytree.dataclass
class Loop(Combinators, GFI):
    """A program repeated; made by `scan`."""

    program: GFI
    length: genjax.Const[int | None]

    def simulate(self, init: Any, xs: Any = None, **kwargs: Any) -> Tr:
        def step(carry, x):
            tr = self.program.simulate(carry, x, **kwargs)
            return *self._pair(tr.get_retval()), lane_parts(tr)

        carry, (outs, parts) = self._steps(step, init, xs)
        return self._trace(carry, outs, parts, (init, xs), kwargs)

    def generate(self, x: Any, init: Any, xs: Any = None, **kwargs: Any) -> tuple[Tr, Array]:
        def step(carry, x, given):
            tr, weight = self.program.generate(given, carry, x, **kwargs)
            return *self._pair(tr.get_retval()), (lane_parts(tr), weight)

        carry, (outs, (parts, weights)) = self._steps(step, init, xs, x)
        return self._trace(carry, outs, parts, (init, xs), kwargs), jnp.sum(weights)

    def assess(self, x: Any, init: Any, xs: Any = None, **kwargs: Any) -> tuple[Array, Any]:
        def step(carry, x, given):
            log_density, retval = self.program.assess(given, carry, x, **kwargs)
            return *self._pair(retval), log_density

        carry, (outs, log_density) = self._steps(step, init, xs, x)
        return jnp.sum(log_density), (carry, outs)

    def update(
        self, tr: Tr, x_: Any, init: Any, xs: Any = None, **kwargs: Any
    ) -> tuple[Tr, Array, Any]:
        def step(carry, x, old, given):
            new, weight, discard = self.program.update(old, given, carry, x, **kwargs)
            return *self._pair(new.get_retval()), (lane_parts(new), weight, discard)

        carry, (outs, rest) = self._steps(step, init, xs, tr._choices, x_)
        parts, weights, discard = rest
        return self._trace(carry, outs, parts, (init, xs), kwargs), jnp.sum(weights), discard

    def regenerate(
        self, tr: Tr, s: Any, init: Any, xs: Any = None, **kwargs: Any
    ) -> tuple[Tr, Array, Any]:
        def step(carry, x, old):
            new, weight, discard = self.program.regenerate(old, s, carry, x, **kwargs)
            return *self._pair(new.get_retval()), (lane_parts(new), weight, discard)

        carry, (outs, (parts, weights, discard)) = self._steps(step, init, xs, tr._choices)
        return self._trace(carry, outs, parts, (init, xs), kwargs), jnp.sum(weights), discard

    def merge(self, x: Any, x_: Any, check: Array | None = None) -> tuple[Any, Any]:
        return self.program.merge(x, x_, check)

    def filter(self, x: Any, selection: Any) -> tuple[Any, Any]:
        return self.program.filter(x, selection)

    def masked_by(self, mask: Mask) -> Loop:
        return dataclasses.replace(self, program=masked_by(self.program, mask))

    def _trace(self, carry: Any, outs: Any, parts: Any, args: Any, kwargs: Any) -> Tr:
        traces, _, scores = parts
        return Tr(self, (args, kwargs), traces, (carry, outs), jnp.sum(scores))

    def _steps(self, step: Callable[..., Any], init: Any, xs: Any, *scanned: Any) -> Any:
        """`lax.scan` of `step(carry, x, *scanned) -> (carry, out, more)`."""
        length = self._num_steps(xs)
        for x in scanned:
            check_leading_axis(x, length, "scan")

        def body(carry, slices):
            carry, out, more = step(carry, *slices)
            return carry, (out, more)

        return lax.scan(body, init, (xs, *scanned), length=length)

    def _num_steps(self, xs: Any) -> int:
        sizes = {} if self.length.value is None else {"length": self.length.value}
        for path, leaf in jax.tree_util.tree_leaves_with_path(xs):
            shape = jnp.shape(leaf)
            name = f"xs{jax.tree_util.keystr(path)}"
            if not shape:
                raise ShapeError(
                    f"scan: {name} is a single number, and has no steps",
                    address=current_address(name_of(self)),
                    fix="pass what is the same in all steps by name: scan(step)(init, xs, c=c)",
                )
            sizes[name] = shape[0]
        if not sizes:
            raise ShapeError(
                "scan: the number of steps is unknown",
                address=current_address(name_of(self)),
                because="there are no xs and no length was given",
                fix="scan(step, length=n)(init)",
            )
        if len(set(sizes.values())) > 1:
            raise ShapeError(
                "scan: the numbers of steps disagree",
                address=current_address(name_of(self)),
                because=", ".join(f"{name} says {n}" for name, n in sizes.items()),
                fix="give xs whose leading axes all have the same length",
            )
        return next(iter(sizes.values()))

    def _pair(self, retval: Any) -> tuple[Any, Any]:
        if not (isinstance(retval, tuple) and len(retval) == 2):
            raise ShapeError(
                "scan: the step must return a pair (carry, out)",
                address=current_address(name_of(self)),
                because=f"it returned a {type(retval).__name__}",
                fix="return carry, out   (out may be None)",
            )
        return retval


@converts(genjax.Scan)
def _from_genjax(loop: genjax.Scan) -> Loop:
    return scan(loop.callee, length=loop.length.value)
