"""Frames: what a block of a program sees while it is lowered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Array

from ppl.compiler.influence import Source
from ppl.compiler.tables import Factor, Val
from ppl.lang.seed import Keys
from ppl.lang.staged import Eqn


@dataclass(frozen=True, eq=False)
class Chain:
    """The law of a Markov chain's state, where it depends on no outer choice.

    Attributes:
        before: `[steps, states, *lanes]`, probabilities before each step.
        last: `[states, *lanes]`, after the last one.
        pairs: `[steps, states, states, *lanes]`, of a step and the state before it.
    """

    before: Array
    last: Array
    pairs: Array


@dataclass(eq=False)
class Frame:
    """What a block sees: log-probabilities and probability tables of the draws so far."""

    keys: Keys
    logp: dict[Source, Val] = field(default_factory=dict)
    factors: dict[Source, Factor] = field(default_factory=dict)
    joints: dict[Any, Array] = field(default_factory=dict)
    """probability tables computed so far in this block"""
    transitions: dict[Source, Factor] = field(default_factory=dict)
    """of Markov chains made by earlier loops: each step's table given the step before"""

    chains: dict[Source, Chain] = field(default_factory=dict)
    """the laws of these chains, where they are known"""

    steps: dict[Eqn, Any] = field(default_factory=dict)
    """the current step of each loop around this block"""

    def inside(self, keys: Keys) -> Frame:
        return Frame(
            keys,
            dict(self.logp),
            dict(self.factors),
            dict(self.joints),
            dict(self.transitions),
            dict(self.chains),
            dict(self.steps),
        )
