"""Batched triangular algebra, where either side may have more batch axes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ppl.errors import ShapeError


def multiply(matrix: Array, vector: Array) -> Array:
    """`matrix @ vector`, batch axes broadcasting.

    In full precision: on a GPU the default would round a draw to 10 bits, so that its
    log-density would not be the one that it was drawn with.
    """
    return jnp.einsum("...ij,...j->...i", matrix, vector, precision=lax.Precision.HIGHEST)


SMALL = 4
"""Up to this size systems with matrices of their own are solved number by number: the call of the
matrix library for each takes 4 to 8 times as long (`python -m benchmarks.small_systems`)."""


def solve_lower(tril: Array, vector: Array) -> Array:
    """`inverse(tril) @ vector`, batch axes broadcasting."""
    while tril.ndim > 2 and tril.shape[0] == 1 and tril.ndim <= vector.ndim + 1:
        tril = tril[0]
    shared = tril.ndim == 2 and vector.ndim > 1  # one matrix for many vectors
    if vector.shape[-1] <= SMALL and not shared:
        return _substitute(tril, vector)
    batch = np.broadcast_shapes(tril.shape[:-2], vector.shape[:-1])
    vector = jnp.broadcast_to(vector, (*batch, vector.shape[-1]))
    # The vector's further axes become columns of one right-hand side per matrix: the matrix is
    # not copied for each data point.
    extra = vector.ndim - 1 - (tril.ndim - 2)
    columns = vector.reshape(-1, *vector.shape[extra:])
    columns = jnp.moveaxis(columns, 0, -1)
    tril = jnp.broadcast_to(tril, (*columns.shape[:-2], *tril.shape[-2:]))
    solved = lax.linalg.triangular_solve(tril, columns, left_side=True, lower=True)
    return jnp.moveaxis(solved, -1, 0).reshape(vector.shape)


def _substitute(tril: Array, vector: Array) -> Array:
    """Forward substitution, written out."""
    solved: list[Array] = []
    for i in range(vector.shape[-1]):
        known = [tril[..., i, j] * solved[j] for j in range(i)]
        solved.append((vector[..., i] - sum(known)) / tril[..., i, i])
    return jnp.stack(solved, -1)


def log_diagonal(tril: Array) -> Array:
    """The log of the absolute determinant of a triangular matrix."""
    return jnp.sum(jnp.log(jnp.abs(jnp.diagonal(tril, axis1=-2, axis2=-1))), -1)


def transpose(matrix: Array) -> Array:
    return jnp.swapaxes(matrix, -1, -2)


def square_event(family: str, name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """The event axes of a matrix parameter.

    Raises:
        ShapeError: it is not square.
    """
    if shape[-1] != shape[-2]:
        raise ShapeError(
            f"{family}: parameter {name!r} is not a square matrix", because=f"its shape is {shape}"
        )
    return shape[-2], shape[-1]
