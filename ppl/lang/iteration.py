"""Iteration to a fixed point: the loop, written once, and what it tries next (its *acceleration*).

It knows nothing of derivatives: those are in `fixed_point`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree


class Plain(eqx.Module):
    """z <- step(z): converges if `step` is a contraction, at the contraction's rate."""

    def memory_for(self, x: Float[Array, " n"]) -> Any:
        return ()

    def propose(
        self, memory: Any, x: Float[Array, " n"], fx: Float[Array, " n"], steps: Int[Array, ""]
    ) -> tuple[Float[Array, " n"], Any]:
        return fx, memory


class Anderson(eqx.Module):
    """Anderson acceleration: the combination of the last values with the least residual.

    Of the last `memory` pairs (z, step(z)), the next z is the combination, with weights that sum to
    one, whose combined residual step(z) - z is least. For a linear `step` these are the iterates of
    GMRES. It takes fewer steps than `Plain` where that is slow, has no guarantee where `step` is no
    contraction, and each of its steps solves a small linear system.

    Attributes:
        memory: number of pairs.
        ridge: of the least-squares problem, relative to the largest squared residual.

    Source: Walker and Ni (2011), SIAM J. Numer. Anal. 49(4), algorithm AA with unit mixing.
    """

    memory: int = 5
    ridge: float = 1e-5

    def __check_init__(self) -> None:
        if self.memory < 2 or not self.ridge > 0:
            raise ValueError(
                f"Anderson: memory must be at least 2 and ridge above 0, not {self.memory} and "
                f"{self.ridge}"
            )

    def memory_for(self, x: Float[Array, " n"]) -> Any:
        empty = jnp.zeros((self.memory, *x.shape), x.dtype)
        return empty, empty

    def propose(
        self, memory: Any, x: Float[Array, " n"], fx: Float[Array, " n"], steps: Int[Array, ""]
    ) -> tuple[Float[Array, " n"], Any]:
        # At first all pairs are copies of the only one, and share its weight.
        here = (jnp.arange(self.memory) == steps % self.memory) | (steps == 0)
        values, residuals = (
            jnp.where(here[:, None], new, old)
            for new, old in zip((fx, fx - x), memory, strict=True)
        )
        gram = residuals @ residuals.T
        largest = jnp.max(jnp.diagonal(gram))
        gram = gram / jnp.where(largest > 0, largest, 1)
        ones = jnp.ones(self.memory, gram.dtype)
        weights = jnp.linalg.solve(gram + self.ridge * jnp.eye(self.memory, dtype=gram.dtype), ones)
        return weights / jnp.sum(weights) @ values, (values, residuals)


Acceleration = Plain | Anderson


class FixedPoint(eqx.Module):
    """Where an iteration ended: a fixed point, and how well it was found; made by `fixed_point`.

    Attributes:
        value: the last value of `step`, in the structure of the start; the only part with
            derivatives.
        residual: the largest entry of |step(z) - z| in the last step, which made `value` of z.
        steps: number of evaluations of `step`.
        converged: whether the residual is within the tolerance.
    """

    value: PyTree
    residual: Float[Array, ""]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]


class _State(NamedTuple):
    """`x` is to be evaluated next; `fx` and `residual` are of the value before."""

    x: Array
    fx: Array
    residual: Array
    memory: Any
    steps: Array


def iterate(
    step: Callable[[PyTree], PyTree],
    start: PyTree,
    *,
    tol: float,
    floor: float,
    max_steps: int,
    acceleration: Acceleration,
) -> FixedPoint:
    """Repeat `step` until |step(z) - z| <= tol (floor + |step(z)|), with largest entries as norms.

    Runs in a `while_loop`, so it has no reverse mode of its own. A value that is not finite ends
    it, not converged.
    """
    first, unravel = ravel_pytree(start)
    flat = lambda x: ravel_pytree(step(unravel(x)))[0]

    def allowed(fx: Array) -> Array:
        return tol * (floor + jnp.max(jnp.abs(fx), initial=0))

    def unfinished(s: _State) -> Array:
        return (s.residual > allowed(s.fx)) & (s.steps < max_steps)

    def body(s: _State) -> _State:
        fx = flat(s.x)
        x, memory = acceleration.propose(s.memory, s.x, fx, s.steps)
        return _State(x, fx, jnp.max(jnp.abs(fx - s.x), initial=0), memory, s.steps + 1)

    infinite = jnp.full((), jnp.inf, first.dtype)
    begin = _State(first, first, infinite, acceleration.memory_for(first), jnp.zeros((), int))
    end = lax.while_loop(unfinished, body, begin)
    converged = (end.residual <= allowed(end.fx)) & jnp.isfinite(end.residual)
    return FixedPoint(unravel(end.fx), end.residual, end.steps, converged)
