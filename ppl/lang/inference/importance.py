"""Importance sampling, and resampling from its particles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from genjax.core import GFI
from jax import lax
from jaxtyping import Array

from ppl.lang.distributions.categorical import categorical
from ppl.lang.inference.base import Inference, Particle, Target
from ppl.lang.interop import as_program
from ppl.lang.logspace import log_mean_exp
from ppl.lang.observed import Choices
from ppl.lang.scope import scope


def importance(proposal: GFI | None = None, particles: int = 1) -> Importance:
    """Importance sampling with a proposal program.

    In `marginal`, `density` is the log of the mean importance weight of fresh draws, and `sim`
    averages the weights of the true auxiliary draw and of `particles - 1` fresh ones (conditional
    importance sampling; Domke and Sheldon, arXiv 1808.09034). In `normalize` one particle is picked
    in proportion to its weight (sampling importance resampling; Rubin 1987).

    Args:
        proposal: a program over exactly the choices that the target leaves free. In `marginal` it
            is called with the kept choices (nested dictionaries) and the program's arguments, in
            `normalize` with the program's arguments. If `None`, the free choices come from the
            program itself, run forward.
        particles: how many draws, at least 1.

    Raises:
        ValueError: there are no particles.
        AddressError (when run): the proposal's choices are not the target's free ones.

    >>> marginal(guide, keep="x", by=importance(reverse, particles=5))  # doctest: +SKIP
    """
    if particles < 1:
        raise ValueError(f"importance: particles must be at least 1, not {particles}")
    return Importance(None if proposal is None else as_program(proposal), particles)


sir = importance
"""The same algorithm under its name in `normalize`: sampling importance resampling."""


@dataclass(frozen=True, eq=False)
class Importance(Inference):
    """Importance sampling; made by `importance`."""

    proposal: GFI | None
    particles: int

    def sample(self, target: Target) -> tuple[Choices, Array]:
        particles = self._particles(target, self.particles)
        index: Any = 0
        if self.particles > 1:
            with scope("resample"):
                index = categorical.sample(possible(particles.log_weight))
        choices = jax.tree.map(
            lambda x: lax.dynamic_index_in_dim(x, index, 0, False), particles.choices
        )
        log_gamma = lax.dynamic_index_in_dim(particles.log_gamma, index, 0, False)
        return choices, log_gamma - log_mean_exp(particles.log_weight)

    def log_density(self, target: Target, choices: Choices) -> Array:
        own = target.weigh(self.proposal, choices)
        weights = own.log_weight[None]
        if self.particles > 1:
            others = self._particles(target, self.particles - 1)
            weights = jnp.concatenate([weights, others.log_weight])
        return own.log_gamma - log_mean_exp(weights)

    def log_evidence(self, target: Target) -> Array:
        # Whichever particle were picked.
        return log_mean_exp(self._particles(target, self.particles).log_weight)

    def _particles(self, target: Target, n: int) -> Particle:
        """Independent draws, along a leading axis."""
        return jax.vmap(lambda _: target.propose(self.proposal))(jnp.arange(n))


def possible(log_weights: Array) -> Array:
    """The log-weights, or zeros if all are -inf: any particle will do, its density is zero."""
    return jnp.where(jnp.all(jnp.isneginf(log_weights), -1, keepdims=True), 0, log_weights)
