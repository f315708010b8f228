"""Scenes: canvases with zero, one or two handwritten digits, each somewhere and of some size.

A window of the canvas has a centre and a size, in pixels. `cut` reads the 8 x 8 image in it, and
`paste` puts one there, both by bilinear interpolation, which is separable: one small matrix per
axis. Both are continuous in the window, so gradients flow through it.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

CANVAS, DIGIT = 16, 8


def _interpolation(center: Array, size: Array) -> Float[Array, "digit canvas"]:
    """Along one axis: how much each pixel of the canvas counts for each of the window's."""
    offsets = (jnp.arange(DIGIT) - (DIGIT - 1) / 2) / DIGIT
    at = center + size * offsets
    reach = size / DIGIT  # pixels of the canvas per pixel of the window
    distance = jnp.abs(at[:, None] - jnp.arange(CANVAS)) / reach
    return jax.nn.relu(1 - distance)


def cut(canvas: Float[Array, "canvas canvas"], where: Float[Array, " 3"]) -> Array:
    """The 8 x 8 image in the window `where`: its size, and its centre's row and column."""
    size, row, column = where
    rows, columns = _interpolation(row, size), _interpolation(column, size)
    return rows @ canvas @ columns.T * (DIGIT / size) ** 2


def paste(image: Float[Array, "digit digit"], where: Float[Array, " 3"]) -> Array:
    """A canvas, empty but for the image in the window `where`."""
    size, row, column = where
    return _interpolation(row, size).T @ image @ _interpolation(column, size)


@dataclass(frozen=True)
class Scenes:
    """Canvases, and how many digits are on each.

    Attributes:
        images: `[scenes, canvas, canvas]`, 0 (paper) to 1 (ink).
        counts: `[scenes]`, 0 to 2.
    """

    images: np.ndarray
    counts: np.ndarray


def make(n: int, held_out: bool = False, most: int = 2) -> Scenes:
    """`n` scenes of up to `most` digits, 6 to 8 pixels in size, side by side.

    Those held out are made of digits that the others do not have.
    """
    from sklearn.datasets import load_digits

    digits = np.asarray(load_digits(return_X_y=True)[0]).reshape(-1, DIGIT, DIGIT) / 16
    digits = digits[1500:] if held_out else digits[:1500]
    rng = np.random.default_rng(int(held_out))
    counts = rng.integers(0, most + 1, n)
    where = np.stack([_windows(rng, most) for _ in range(n)])
    chosen = digits[rng.integers(0, len(digits), (n, most))]
    there = np.arange(most) < counts[:, None]
    pasted = jax.jit(jax.vmap(jax.vmap(paste)))(*map(jnp.float32, (chosen, where)))
    return Scenes(np.clip(np.einsum("sd,sdij->sij", there, pasted), 0, 1), counts)


def _windows(rng: np.random.Generator, n: int) -> np.ndarray:
    """`[n, 3]`: windows whose centres are at least 6 pixels apart along rows or columns."""
    while True:
        centers = rng.uniform(3, CANVAS - 4, (n, 2))
        apart = np.abs(centers[:, None] - centers).max(-1) + CANVAS * np.eye(n)
        if apart.min() > 6:
            return np.column_stack([rng.uniform(6, 8, n), centers])
