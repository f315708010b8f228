"""Where an estimator's random numbers come from; measurements and tests replace it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array

from ppl.lang.keys import choice_mark
from ppl.lang.primitives import draw


@dataclass(frozen=True)
class Noise:
    """Where an estimator's random numbers come from.

    Attributes:
        mark: `(address, n) -> uint32[2]`, what makes the base key that of the n-th draw at an
            address (`keys.marked`); everything random that a strategy does there comes from it.
        draw: `(key, parameters, **params of the choice's equation) -> value`, for draws of choices
            that are not differentiated along their paths.
    """

    mark: Callable[[str, Any], Any] = choice_mark
    draw: Callable[..., Array] = draw


NOISE = Noise()
"""Ordinary draws."""
