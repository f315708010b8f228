"""`require`: a condition on values, which a fit reports by name where it fails."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree

from ppl import _compat
from ppl.errors import ShapeError


def require(x: PyTree[ArrayLike], condition: ArrayLike, what: str) -> Any:
    """The same value where a condition holds, and NaN where it does not.

    A run of compiled code cannot raise; but NaN goes through to the objective, where `vi.fit`
    stops with a `NonFiniteError` that says `what` has failed, at which step, and has the last good
    parameters. It costs one `where`.

    Args:
        x: arrays; those that are not real (integers, booleans) are left as they are.
        condition: booleans that broadcast to each of the arrays.
        what: a few words that say what fails if it is false, "the scale is not positive".

    Raises:
        ShapeError: the condition does not broadcast to an array, or is not boolean.

    >>> require(jnp.array([1.0, 2.0]), jnp.array([True, False]), "odd")
    Array([ 1., nan], dtype=float32)
    """
    condition = jnp.asarray(condition)
    source = _compat.current_source()

    def one(leaf: ArrayLike) -> Array:
        leaf = jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        if condition.dtype != bool or not _fits(condition.shape, leaf.shape):
            raise ShapeError(
                "require: the condition does not fit the value",
                because=f"expected booleans that broadcast to {leaf.shape}, found "
                f"{condition.dtype} of shape {condition.shape}",
                fix="one boolean for all, jnp.all(...), or one for each entry",
            )
        flags = jnp.broadcast_to(condition, leaf.shape)
        return require_p.bind(leaf, flags, what=what, source=source)

    return jax.tree.map(one, x)


def _fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _run(x: Array, flags: Array, **_: Any) -> Array:
    return jnp.where(flags, x, jnp.nan)


def _jvp(primals: Any, tangents: Any, **static: Any) -> Any:
    (x, flags), tangent = primals, tangents[0]
    if not _compat.is_zero_tangent(tangent):
        tangent = tangent * jnp.where(flags, 1, jnp.nan).astype(tangent.dtype)
    return require_p.bind(x, flags, **static), tangent


def _batch(size: int, args: Any, dims: Any, **static: Any) -> Any:
    if all(d is None for d in dims):
        return require_p.bind(*args, **static), None
    shape = next(
        np.delete(np.shape(x), d) for x, d in zip(args, dims, strict=True) if d is not None
    )
    lanes = [
        jnp.broadcast_to(x if d is None else jnp.moveaxis(x, d, 0), (size, *shape))
        for x, d in zip(args, dims, strict=True)
    ]
    return require_p.bind(*lanes, **static), 0


require_p = _compat.new_primitive(
    "require",
    lambda x, flags, **_: _compat.ShapedArray(x.shape, x.dtype),
    _run,
    jvp=_jvp,
    batch=_batch,
)
