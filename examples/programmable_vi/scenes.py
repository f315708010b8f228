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


def make(n: int, seed: int, most: int = 2) -> Scenes:
    """`n` scenes. Sizes are 7 to 9 pixels; two digits touch at most at their margins."""
    from sklearn.datasets import load_digits

    digits = load_digits().images / 16
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, most + 1, n)
    sizes = rng.uniform(6, 8, (n, most))
    centers = rng.uniform(3, CANVAS - 4, (n, most, 2))
    while True:
        pairs = np.abs(centers[:, :, None] - centers[:, None]).max(-1)  # of the axes
        close = (pairs < 6) & ~np.eye(most, dtype=bool)
        again = close.any((1, 2))
        if not again.any():
            break
        centers[again] = rng.uniform(3, CANVAS - 4, (again.sum(), most, 2))
    chosen = digits[rng.integers(0, len(digits), (n, most))]
    where = np.concatenate([sizes[..., None], centers], -1)
    pasted = jax.jit(jax.vmap(jax.vmap(paste)))(chosen.astype(np.float32), where.astype(np.float32))
    there = np.arange(most) < counts[:, None]
    images = np.asarray((pasted * there[..., None, None]).sum(1)).clip(0, 1)
    return Scenes(images, counts)
