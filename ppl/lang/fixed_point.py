"""`fixed_point`: the solution of z = step(z), with derivatives by the implicit function theorem.

If z = f(z, theta), then dz = (df/dz) dz + (df/dtheta) dtheta: dz is the fixed point of a linear map
with the Jacobian of f, and its transpose gives reverse mode. Both systems are solved by the
same iteration as the fixed point itself, which converges for them at the rate at which it converged
there. No iterates are kept.

It needs nothing but JAX (`custom_linear_solve`) and Equinox. Optimistix's `fixed_point`, which the
tests compare with, has no acceleration, and its derivative builds and factorises the whole Jacobian
unless it is given another solver.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from ppl.errors import ShapeError
from ppl.lang.continuous import assume_continuous
from ppl.lang.iteration import Acceleration, FixedPoint, Plain, iterate
from ppl.lang.lanes import lane_by_lane
from ppl.lang.require import require


class _Rule(eqx.Module):
    """How a fixed point is looked for; static."""

    tol: float | None = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    acceleration: Acceleration = eqx.field(static=True)
    strict: bool = eqx.field(static=True)

    def solve(self, step: Callable[[PyTree], PyTree], start: PyTree, floor: float) -> FixedPoint:
        tol = self.tol
        if tol is None:
            dtype = jnp.result_type(*jax.tree.leaves(start)) if jax.tree.leaves(start) else float
            tol = 100 * float(jnp.finfo(dtype).eps)
        return iterate(
            step,
            start,
            tol=tol,
            floor=floor,
            max_steps=self.max_steps,
            acceleration=self.acceleration,
        )


def fixed_point(
    step: Callable[[PyTree], PyTree],
    start: PyTree,
    *,
    tol: float | None = None,
    max_steps: int = 1_000,
    acceleration: Acceleration | None = None,
    strict: bool = True,
) -> FixedPoint:
    """The solution z of z = step(z), found by iteration, differentiable in all that `step` sees.

    `step` may close over parameters, draws and data; derivatives with respect to them (forward,
    reverse, and higher) are those of the solution, by the implicit function theorem, whatever the
    start and the number of steps. There is none with respect to the start. Under `vmap` (in a
    plate) each lane stops by itself. It may stand anywhere in programs and objectives; random
    choices and declarations of parameters have to stand outside of `step`.

    Args:
        step: from z to z: arrays of reals in any tree, to the same tree, shapes and dtypes.
            It should be a contraction, near the solution at least, and differentiable; like a
            custom derivative it is exempt from the smoothness check.
        start: where the iteration begins.
        tol: converged if |step(z) - z| <= tol (1 + |step(z)|), with the largest entries as norms;
            the linear systems of the derivatives to `tol` relative to their solution. The error of
            z is larger, by the factor 1 / (1 - rate) of a contraction. By default 100 units of
            rounding, 1.2e-5 for float32 and 2.2e-14 for float64.
        max_steps: evaluations of `step`, at most.
        acceleration: `Plain()` if `None`, or `Anderson()`.
        strict: where an iteration has not converged within `max_steps`, its result is NaN, and
            `vi.fit` stops and says so; a derivative that has not converged is NaN as well. If
            false, the last iterates are taken as they are: then look at `converged`.

    Raises:
        ShapeError: `step` does not return the structure, shapes and dtypes of the start.
        ValueError: `tol` or `max_steps` is not positive.
        UnsupportedError (when compiled): a random choice or a parameter stands inside of `step`.

    Source: Christianson (1994), Reverse accumulation and attractive fixed points, Optimization
    Methods and Software 3(4).

    >>> import jax
    >>> root = lambda a: fixed_point(lambda z: 0.5 * (z + a / z), 1.0).value
    >>> [round(float(x), 4) for x in jax.value_and_grad(root)(2.0)]  # 1 / (2 sqrt(2))
    [1.4142, 0.3536]
    """
    if not (max_steps >= 1 and (tol is None or tol > 0)):
        raise ValueError(
            f"fixed_point: tol must be above 0 and max_steps at least 1, not {tol} and {max_steps}"
        )
    start = jax.tree.map(_real, start)
    _check_structure(step, start)
    rule = _Rule(tol, max_steps, Plain() if acceleration is None else acceleration, strict)
    step = eqx.filter_closure_convert(step, start)  # what it sees becomes its leaves

    # By the theorem the solution is smooth where its equation is: that the loop compares makes no
    # jumps.
    @assume_continuous
    def run() -> FixedPoint:
        end = lane_by_lane(_solve(step, start, rule), (step, start))
        value = require(end.value, end.converged, _what(rule)) if strict else end.value
        return eqx.tree_at(lambda end: end.value, end, value)

    return run()


def _what(rule: _Rule) -> str:
    tol = "" if rule.tol is None else f" to tol={rule.tol:g}"
    return f"a fixed point has not converged{tol} in {rule.max_steps} steps"


def _real(x: Any) -> Array:
    x = jnp.asarray(x)
    x = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(float)
    return lax.stop_gradient(x)


def _check_structure(step: Callable[[PyTree], PyTree], start: PyTree) -> None:
    found = jax.eval_shape(step, start)
    describe = lambda tree: jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", tree)
    expected, found = describe(start), describe(found)
    if expected != found:
        raise ShapeError(
            "fixed_point: step does not return what it is given",
            because=f"it is given {expected}, and returns {found}",
            fix="return the same tree of arrays, with the same shapes and dtypes",
        )


@eqx.filter_custom_jvp
def _solve(step: Callable[[PyTree], PyTree], start: PyTree, rule: _Rule) -> FixedPoint:
    return rule.solve(step, start, 1.0)


@_solve.def_jvp
def _solve_jvp(primals: Any, tangents: Any) -> tuple[FixedPoint, FixedPoint]:
    (step, start, rule), (moved, *_) = primals, tangents
    end = _solve(step, start, rule)
    _, jacobian = jax.linearize(step, end.value)
    value, direct = eqx.filter_jvp(lambda step: step(end.value), (step,), (moved,))
    # What does not move is `None` there.
    direct = jax.tree.map(lambda x, t: jnp.zeros_like(x) if t is None else t, value, direct)

    # One vector: JAX transposes a linear system only where all of its right-hand side moves.
    flat, tree = ravel_pytree(direct)

    def solve(residual_of: Callable[[Array], Array], b: Array) -> Array:
        # residual_of(t) = t - J t, or its transpose
        found = rule.solve(lambda t: b + t - residual_of(t), b, 0.0)
        fails = rule.strict & ~found.converged
        return jnp.where(fails, jnp.nan, found.value)

    residual = lambda t: t - ravel_pytree(jacobian(tree(t)))[0]
    moved = tree(lax.custom_linear_solve(residual, flat, solve, solve))
    return end, FixedPoint(moved, None, None, None)  # type: ignore[arg-type]
