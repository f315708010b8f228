"""Sums over all outcomes of a program's choices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class World:
    """One outcome: which value each choice takes, in the order in which they are made.

    Attributes:
        script: numbers of the values of the first choices; those after take their first value.
        weight: probability of the outcome (an integration weight, for continuous choices).
        open: scripts of outcomes that differ from this one in a choice not in the script.
    """

    script: tuple[int, ...] = ()
    weight: complex = 1.0
    made: tuple[int, ...] = ()
    open: list[tuple[int, ...]] = field(default_factory=list)

    def pick(self, outcomes: list[tuple[Any, complex]]) -> Any:
        """The value of the next choice, one of `(value, weight)`."""
        at = len(self.made)
        index = self.script[at] if at < len(self.script) else 0
        if at >= len(self.script):
            self.open += [(*self.made, i) for i in range(1, len(outcomes))]
        self.made = (*self.made, index)
        x, weight = outcomes[index]
        self.weight = self.weight * weight
        return x


def expectation(run: Callable[[World], Any]) -> complex:
    """The sum of `run`'s value over all outcomes of the choices that it makes [M-EXPECT]."""
    total, scripts = 0.0 + 0.0j, [()]
    while scripts:
        world = World(scripts.pop())
        x = run(world)
        scripts += world.open
        if world.weight != 0:  # an outcome of probability 0 counts as 0, whatever its value
            total += world.weight * np.asarray(x).item()
    return complex(total)
