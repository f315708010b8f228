"""Where an estimator's random numbers come from; measurements and tests replace it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array

from ppl.lang.keys import choice_key
from ppl.lang.primitives import draw


@dataclass(frozen=True)
class Noise:
    """Where an estimator's random numbers come from.

    Attributes:
        choice_key: `(base key, address, n) -> key` of the n-th draw at an address; everything
            random that a strategy does there comes from it.
        draw: `(key, parameters, **params of the choice's equation) -> value`, for draws of choices
            that are not differentiated along their paths.
    """

    choice_key: Callable[[jax.Array, str, Any], jax.Array] = choice_key
    draw: Callable[..., Array] = draw


NOISE = Noise()
"""Ordinary draws."""
