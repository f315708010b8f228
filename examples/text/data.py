"""Data for the text programs, generated from known parameters."""

from __future__ import annotations

import numpy as np


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def line_x() -> np.ndarray:
    return np.linspace(-2.0, 2.0, 20)


def line_y() -> np.ndarray:
    """Slope 3, intercept 1, noise 0.5; three points far off."""
    y = 3 * line_x() + 1 + 0.5 * _rng(1).normal(size=20)
    y[[3, 10, 16]] += [15.0, -20.0, 12.0]
    return y


def chain() -> np.ndarray:
    """A chain that stays with probability 0.9 in a state of mean -1 or 2, noise 0.5."""
    rng = _rng(2)
    stay = rng.random(40) < 0.9
    states = np.cumsum(~stay) % 2
    return np.where(states == 1, 2.0, -1.0) + 0.5 * rng.normal(size=40)


def clusters() -> np.ndarray:
    """60 points: a third around -3, the others around 2; noise 1."""
    rng = _rng(3)
    return np.where(rng.random(60) < 1 / 3, -3.0, 2.0) + rng.normal(size=60)


def images() -> np.ndarray:
    """48 binary images of 12 pixels: a bar of 4 on the left, in the middle or on the right."""
    rng = _rng(4)
    bars = np.repeat(np.eye(3), 4, axis=1)[rng.integers(0, 3, 48)]
    return rng.random((48, 12)) < 0.05 + 0.9 * bars


def walk() -> np.ndarray:
    """A random walk with steps of 0.3, seen with noise 0.5."""
    rng = _rng(5)
    return np.cumsum(0.3 * rng.normal(size=20)) + 0.5 * rng.normal(size=20)


def strips() -> np.ndarray:
    """8 strips of 15 pixels with up to two bumps."""
    rng = _rng(6)
    pixels = np.arange(15.0)
    strips = 0.1 * rng.normal(size=(8, 15))
    for strip in strips:
        for place in (rng.uniform(1, 6), rng.uniform(8, 13)):
            if rng.random() < 0.6:
                strip += np.exp(-0.5 * (pixels - place) ** 2)
    return strips


def words() -> np.ndarray:
    """10 documents of 20 words: topics of the words 0-3 and 4-7."""
    rng = _rng(7)
    share = rng.beta(0.7, 0.7, size=(10, 1))
    return rng.integers(0, 4, (10, 20)) + 4 * (rng.random((10, 20)) < share)


def predictors() -> np.ndarray:
    return _rng(8).normal(size=(50, 3))


def counts() -> np.ndarray:
    """Poisson counts with log-rate 1 + x @ (0.5, -0.3, 0)."""
    return _rng(9).poisson(np.exp(1 + predictors() @ [0.5, -0.3, 0.0]))


def answers() -> np.ndarray:
    """Answers with log-odds 0.5 + x @ (2, -1, 0)."""
    return _rng(10).random(50) < 1 / (1 + np.exp(-(0.5 + predictors() @ [2.0, -1.0, 0.0])))
