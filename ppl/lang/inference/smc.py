"""Sequential Monte Carlo over the steps of a `scan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from genjax.core import GFI
from jax import lax
from jaxtyping import Array

from ppl.errors import UnsupportedError, suggestion
from ppl.lang.condition import Conditioned
from ppl.lang.distributions.categorical import categorical
from ppl.lang.distributions.flip import flip
from ppl.lang.gfi import name_of
from ppl.lang.inference.base import Inference, Particle, Target
from ppl.lang.inference.importance import possible
from ppl.lang.inference.resampling import schemes
from ppl.lang.interop import as_program
from ppl.lang.logspace import log_mean_exp, log_sum_exp
from ppl.lang.loop import Loop
from ppl.lang.observed import Choices, merge_observed
from ppl.lang.scope import current_address, scope


def smc(
    proposal: GFI | None = None,
    *,
    particles: int,
    resampling: str = "systematic",
    ess: float = 1.0,
    trigger_width: float = 0.1,
    drop_resampling_gradient: bool = False,
) -> SMC:
    """Sequential Monte Carlo, for `scan(step)` and `condition(scan(step), observed)`.

    In `marginal` it estimates the density of the observed steps (a particle filter), in `normalize`
    it draws whole sequences. Ancestors are choices whose log-probabilities are charged to later
    costs, so that gradients are unbiased; they may have much variance.

    Args:
        proposal: a program over the step's free choices, called with the step's carry and `x`
            (in `marginal` with the step's kept choices before them); if `None`, the step itself.
        particles: K, at least 1.
        resampling: `"multinomial"`, `"stratified"` or `"systematic"`.
        ess: resample where the effective sample size is below this share of K; 1: in each step.
        trigger_width: a threshold would make the estimate jump in the parameters, and its gradient
            biased; so the decision is random, with a probability that rises from 0 to 1 while the
            share falls from `ess + width / 2` to `ess - width / 2`. With 0 it is a threshold (fine
            where nothing is differentiated; else the compiler warns).
        drop_resampling_gradient: leave the ancestors' log-probabilities out of the gradient:
            less variance, and a bias (which `explain` reports).

    Raises:
        ValueError: an option is out of range.
        UnsupportedError (when run): the program is no scan.

    Source: Del Moral, Doucet and Jasra 2006; Andrieu, Doucet and Holenstein 2010; as variational
    bounds: Maddison et al. (arXiv 1705.09279), Naesseth et al. (arXiv 1705.11140), Le et al.
    (arXiv 1705.10306).
    """
    if particles < 1:
        raise ValueError(f"smc: particles must be at least 1, not {particles}")
    if resampling not in schemes:
        raise ValueError(
            f"smc: there is no resampling {resampling!r}; {suggestion(resampling, schemes)}"
        )
    if not 0 <= ess <= 1 or trigger_width < 0:
        raise ValueError("smc: ess must be in [0, 1], and trigger_width not negative")
    return SMC(
        None if proposal is None else as_program(proposal),
        particles,
        resampling,
        ess,
        trigger_width,
        "dropped" if drop_resampling_gradient else "score",
    )


@dataclass(frozen=True, eq=False)
class SMC(Inference):
    """Sequential Monte Carlo; made by `smc`."""

    proposal: GFI | None
    particles: int
    resampling: str
    ess: float
    trigger_width: float
    strategy: str

    def sample(self, target: Target) -> tuple[Choices, Array]:
        log_z, log_w, history = self._filter(target, None)
        index: Any = 0
        if self.particles > 1:
            with scope("resample"):
                index = categorical.via(self.strategy).sample(possible(log_w))

        def back(slot: Any, step: Any) -> Any:
            choices, log_gamma, ancestors = step
            picked = jax.tree.map(lambda x: _at(x, slot), (choices, log_gamma))
            return _at(ancestors, slot), picked

        _, (choices, log_gammas) = lax.scan(
            back, jnp.asarray(index, jnp.int32), history, reverse=True
        )
        return choices, jnp.sum(log_gammas) - log_z

    def log_density(self, target: Target, choices: Choices) -> Array:
        log_z, _, log_gammas = self._filter(target, choices)
        return jnp.sum(log_gammas) - log_z

    def log_evidence(self, target: Target) -> Array:
        return self._filter(target, None)[0]

    def _filter(self, target: Target, retained: Choices | None) -> tuple[Array, Array, Any]:
        """Run the particles.

        Args:
            retained: choices of all steps that one particle has (conditional SMC).

        Returns:
            log of the evidence estimate, the last log-weights, and for all steps the particles'
            choices, log-densities and ancestors; or only the retained one's log-densities.
        """
        loop, observed = _loop_of(target.program)
        init, xs = (*target.args, None)[:2]
        k = self.particles
        start = jax.tree.map(lambda x: jnp.broadcast_to(x, (k, *jnp.shape(x))), init)

        def step(state: Any, inputs: Any) -> Any:
            carries, log_w, log_z, slot = state
            x, observed, kept, own = inputs
            ancestors, slot, norm, log_w = self._resample(log_w, slot)
            carries = jax.tree.map(lambda c: jnp.take(c, ancestors, 0), carries)

            def at(carry: Any) -> Target:
                program = Conditioned(loop.program, observed) if observed else loop.program
                return Target(program, (carry, x), target.kwargs, kept)

            moved: Particle = jax.vmap(lambda c: at(c).propose(self.proposal))(carries)
            if slot is not None:
                carry = jax.tree.map(lambda c: _at(c, slot), carries)
                mine = at(carry).weigh(self.proposal, own)
                here = jnp.arange(k) == slot
                moved = jax.tree.map(lambda all, one: _put(here, one, all), moved, mine)
                kept_part: Any = mine.log_gamma
            else:
                kept_part = moved.choices, moved.log_gamma, ancestors
            state = moved.retval[0], log_w + moved.log_weight, log_z + norm, slot
            return state, kept_part

        slot = None if retained is None else jnp.int32(0)
        first = start, jnp.zeros(k), jnp.zeros(()), slot
        steps = xs, observed, target.kept, retained
        (_, log_w, log_z, _), history = lax.scan(step, first, steps, length=loop._num_steps(xs))
        return log_z + log_mean_exp(log_w), log_w, history

    def _resample(
        self, log_w: Array, slot: Array | None
    ) -> tuple[Array, Array | None, Array, Array]:
        """Ancestors, the retained particle's place, and the weights' mean, which leaves them."""
        k = self.particles
        same = jnp.arange(k, dtype=jnp.int32)
        if k == 1 or self.ess == 0:
            return same, slot, jnp.zeros(()), log_w
        scheme, norm = schemes[self.resampling], log_mean_exp(log_w)
        place = None
        with scope("resample"):
            if slot is None:
                ancestors = scheme.ancestors.via(self.strategy).sample(possible(log_w))
            else:
                law = scheme.retained.via(self.strategy)
                ancestors = law.sample(possible(log_w), slot)
                with scope("survivor"):  # any of its children
                    child = jnp.where(ancestors == slot, 0.0, -jnp.inf)
                    place = categorical.via(self.strategy).sample(child)
        if self.ess == 1:
            return ancestors, place, norm, jnp.zeros(k)
        share = jnp.exp(2 * log_sum_exp(log_w) - log_sum_exp(2 * log_w)) / k
        if self.trigger_width:
            rise = jnp.clip((self.ess - share) / self.trigger_width + 0.5, 0.0, 1.0)
            with scope("trigger"):
                now = flip.via(self.strategy).sample(rise)
        else:
            now = share < self.ess
        return (
            jnp.where(now, ancestors, same),
            place if place is None or slot is None else jnp.where(now, place, slot),
            jnp.where(now, norm, 0.0),
            jnp.where(now, 0.0, log_w),
        )


def _at(x: Array, index: Array) -> Array:
    return lax.dynamic_index_in_dim(x, index, 0, keepdims=False)


def _put(here: Array, one: Array, all: Array) -> Array:
    return jnp.where(here.reshape(-1, *(1,) * (all.ndim - 1)), one, all)


def _loop_of(program: Any) -> tuple[Loop, Choices]:
    """The loop, and its observations."""
    if isinstance(program, Loop):
        return program, {}
    if isinstance(program, Conditioned):
        loop, observed = _loop_of(program.program)
        return loop, merge_observed(observed, program.observed)
    raise UnsupportedError(
        "smc runs over the steps of a scan, and this program is none",
        address=current_address(name_of(program)),
        because=f"it is a {type(program).__name__.lower()}",
        fix="marginal(scan(step), keep=..., by=smc(...)), at an address of the larger program",
    )
