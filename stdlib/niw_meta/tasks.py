"""The tasks: linear regressions, sinusoids, and few shots of held-out classes of real digits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stdlib.digits import load_digits

NOISE = 0.3
"""Standard deviation of the observations of both regressions."""


class LinearTasks(NamedTuple):
    """Tasks y = x'theta + noise with theta ~ N(mu, Sigma).

    Attributes:
        x: `[tasks, points, 4]`, standard normal.
        y: `[tasks, points]`.
    """

    x: Float[np.ndarray, "tasks points size"]
    y: Float[np.ndarray, "tasks points"]


LINEAR_MEAN = np.array([1.0, -2.0, 0.5, 3.0], np.float32)


def linear_covariance() -> np.ndarray:
    """Sigma* of the card's E1: B B' + 0.05, where B is 0.4 times the first draw of
    `default_rng(3)`."""
    b = 0.4 * np.random.default_rng(3).standard_normal((4, 4))
    return b @ b.T + 0.05 * np.eye(4)


def linear_tasks(count: int, points: int, seed: int) -> LinearTasks:
    rng = np.random.default_rng(seed)
    factor = np.linalg.cholesky(linear_covariance())
    theta = LINEAR_MEAN + rng.standard_normal((count, 4)) @ factor.T
    x = rng.standard_normal((count, points, 4))
    y = np.einsum("tpd,td->tp", x, theta) + NOISE * rng.standard_normal((count, points))
    return LinearTasks(x.astype(np.float32), y.astype(np.float32))


class Sinusoids(NamedTuple):
    """Tasks y = A sin(x + phase) + noise, A ~ U(0.1, 5), phase ~ U(0, pi), x ~ U(-5, 5).

    Attributes:
        x, y: `[tasks, points]`.
        curve: y without its noise.
    """

    x: Float[np.ndarray, "tasks points"]
    y: Float[np.ndarray, "tasks points"]
    curve: Float[np.ndarray, "tasks points"]


def sinusoids(count: int, points: int, seed: int) -> Sinusoids:
    rng = np.random.default_rng(seed)
    amplitude, phase = rng.uniform(0.1, 5, (count, 1)), rng.uniform(0, np.pi, (count, 1))
    x = rng.uniform(-5, 5, (count, points))
    curve = amplitude * np.sin(x + phase)
    y = curve + NOISE * rng.standard_normal((count, points))
    return Sinusoids(*(a.astype(np.float32) for a in (x, y, curve)))


class DigitTasks(NamedTuple):
    """Few-shot classification of digits, each turned or mirrored its own way, under new names.

    Attributes:
        images: `[tasks, points, 64]`, between 0 and 1; the points of the support come first, and
            in each part the classes take turns.
        labels: `[tasks, points]`.
    """

    images: Float[np.ndarray, "tasks points pixels"]
    labels: Int[np.ndarray, "tasks points"]


WAYS, SHOTS, QUERIES = 3, 3, 5
TRAINING_DIGITS, HELD_OUT_DIGITS = (0, 1, 2, 3, 4, 5), (6, 7, 8, 9)


def digit_tasks(count: int, digits: tuple[int, ...], seed: int) -> DigitTasks:
    """Tasks of 3 classes with 3 support and 5 query images each.

    A class is one of `digits` under one of the 8 symmetries of the square (as Omniglot's classes
    are turned to have more of them); the classes of a task are different digits.
    """
    rng = np.random.default_rng(seed)
    images, targets = load_digits()
    upright = images / 16
    turned = [np.rot90(upright, k, (1, 2)) for k in range(4)]
    classes = np.stack([*turned, *(np.swapaxes(t, 1, 2) for t in turned)]).reshape(8, -1, 64)
    rows = [np.flatnonzero(targets == d) for d in digits]
    each = SHOTS + QUERIES
    chosen = np.stack([rng.permutation(len(digits))[:WAYS] for _ in range(count)])
    found = np.empty((count, each, WAYS, 64), np.float32)
    for task, way in np.ndindex(count, WAYS):
        own = rows[chosen[task, way]]
        found[task, :, way] = classes[rng.integers(8), rng.permutation(own)[:each]]
    labels = np.broadcast_to(np.arange(WAYS, dtype=np.int32), (count, each, WAYS))
    return DigitTasks(found.reshape(count, -1, 64), labels.reshape(count, -1).copy())


def one_hot(labels: Int[np.ndarray, "tasks points"], known: int) -> np.ndarray:
    """Rows of the first `known` labels, and zeros for the others: `[tasks, points, ways]`."""
    rows = np.eye(WAYS, dtype=np.float32)[labels]
    rows[:, known:] = 0
    return rows
