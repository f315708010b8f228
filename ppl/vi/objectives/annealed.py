"""Bounds along a path from the guide to the posterior: annealing and nesting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from genjax.core import GFI
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from ppl.compiler.objective import Objective
from ppl.errors import SupportError
from ppl.lang import density, normal, param, sim
from ppl.lang.check_guide import check_guide
from ppl.lang.frozen import frozen
from ppl.lang.observed import Choices, merge_observed
from ppl.lang.scope import scope
from ppl.lang.supports import positive, unit_interval
from ppl.vi.objectives._program import Args, Guide, at_least, checked, particles_of, with_data


def annealed(
    model: GFI,
    guide: Guide = None,
    *,
    steps: int,
    leapfrogs: int = 1,
    step_size: float = 0.1,
    refresh: float = 0.0,
    name: str = "annealed",
    observed: Choices,
    args: Args = (),
    guide_args: Args | None = None,
) -> Objective:
    """Differentiable annealed importance sampling: Hamiltonian moves from guide to posterior.

    A draw of the guide moves along densities q^(1-b_k) p^(b_k), b rising to 1: the momentum is
    partly renewed, then a leapfrog step is made without accept/reject, so the bound
    E[log p(z_K, y) - log q(z_0) + sum_k log N(rho_k) - log N(rho'_k)], with rho'_k the momentum
    before the move and rho_k the one after, is differentiable in everything; it is at most
    log p(y). Trained with the model and the guide: the step size (`NAME.step_size`), one per
    latent number, the schedule (`NAME.schedule`), and how much momentum is kept (`NAME.keep`).

    Args:
        steps: K >= 1 moves.
        leapfrogs: leapfrog steps in each move, at least 1.
        step_size: its first value, > 0.
        refresh: how much momentum each move keeps at first, in [0, 1); 0 renews it all.
        name: of the parameters.
        model, guide, observed, args, guide_args: as for `elbo`; all latent choices must be real
            numbers, and the densities of model and guide exact.

    Raises:
        SupportError: a latent choice is not on the whole real line.

    Source: Geffner and Domke (arXiv 2107.04150, UHA); Zhang et al. (arXiv 2107.10211, DAIS).
    """
    at_least("annealed", "steps", 1, steps)
    at_least("annealed", "leapfrogs", 1, leapfrogs)
    if not 0 <= refresh < 1:
        raise ValueError(f"annealed: refresh must be in [0, 1), not {refresh}")
    guide = checked(model, guide, observed, args, guide_args)
    _, guide_type = check_guide(model, guide, observed, args, guide_args)
    for address, choice in guide_type.items():
        if choice.support is None or choice.support.name not in ("real", "real_vector"):
            raise SupportError(
                "annealed: a latent choice is not on the whole real line",
                address=address,
                where=choice.where,
                because=f"its support is {choice.support}, which Hamiltonian moves would leave",
                fix="map it in the model: draw a real number, and transform that",
            )

    def annealed(observed: Choices, args: Args, guide_args: Args | None = None) -> Array:
        own = args if guide_args is None else guide_args
        z0, log_q0 = sim(guide)(*own)
        z0, unravel = ravel_pytree(z0)
        size = param(f"{name}.step_size", jnp.full(z0.shape, step_size), support=positive)
        rises = jax.nn.softmax(param(f"{name}.schedule", jnp.zeros(steps)))
        betas = jnp.cumsum(rises)
        keep = param(f"{name}.keep", refresh, support=unit_interval) if refresh else 0.0

        def log_p(z: Array) -> Array:
            return density(model)(merge_observed(unravel(z), observed), *args)

        def slope(z: Array, beta: Array) -> Array:
            bridge = lambda z: beta * log_p(z) + (1 - beta) * density(guide)(unravel(z), *own)
            return jax.grad(bridge)(z)

        def log_normal(rho: Array) -> Array:
            return -0.5 * jnp.sum(rho**2)  # constants cancel

        def move(state: Any, beta: Array) -> Any:
            z, rho = state
            with scope(name), scope("momentum"):
                fresh = normal.reparam.sample(jnp.zeros(z0.shape), 1.0)
            rho = keep * rho + jnp.sqrt(1 - keep**2) * fresh
            before = log_normal(rho)
            for _ in range(leapfrogs):
                rho = rho + 0.5 * size * slope(z, beta)
                z = z + size * rho
                rho = rho + 0.5 * size * slope(z, beta)
            return (z, rho), log_normal(rho) - before

        with scope(name), scope("momentum"):
            rho = normal.reparam.sample(jnp.zeros(z0.shape), 1.0)
        (z, _), gains = lax.scan(move, (z0, rho), betas)
        return log_p(z) - log_q0 + jnp.sum(gains)

    return with_data(annealed, f"annealed({steps})", model, guide, observed, args, guide_args)


def nested(
    targets: Sequence[Any],
    forward: Sequence[GFI],
    reverse: Sequence[GFI],
    *,
    particles: int = 1,
    args: Args = (),
) -> Objective:
    """Nested variational inference: a chain of samplers, each trained for its own target.

    Level 0 draws z_0 ~ q_0 for the target gamma_0, level k moves z_(k-1) to z_k ~ q_k(.|z_(k-1))
    for gamma_k; r_k(.|z_(k+1)) is the reverse move. Each level maximises the mean of
    log gamma_k(z_k) + log r_(k-1)(z_(k-1)|z_k) - log gamma_(k-1)(z_(k-1)) - log q_k(z_k|z_(k-1)),
    minus a divergence on its own pair of extended targets, over z_(k-1) from the earlier levels,
    weighted towards gamma_(k-1) and with their parameters held constant.

    Args:
        targets: for each level the unnormalised log-density gamma_k, a function of the level's
            choices (nested dictionaries) and the arguments.
        forward: q_0, called with the arguments, and q_1, ..., called with the choices of the level
            before and the arguments.
        reverse: r_0, r_1, ..., called with the choices of the level after and the arguments; one
            fewer than there are levels.
        particles: draws with which each level's expectation is estimated, weighted by
            self-normalised importance weights; at least 1.
        args: arguments of all.

    Raises:
        ValueError: the numbers of targets, forward and reverse programs do not fit.

    Source: Zimmermann et al. (arXiv 2106.11302), equation 6; in coix as `nvi`.
    """
    at_least("nested", "particles", 1, particles)
    if not len(targets) == len(forward) == len(reverse) + 1:
        raise ValueError(
            f"nested: {len(targets)} targets need as many forward programs (found "
            f"{len(forward)}) and one reverse program fewer (found {len(reverse)})"
        )

    def level(k: int, before: Choices, args: Args) -> tuple[Choices, Array]:
        """A draw of level k, and the log-weight that it adds."""
        if k == 0:
            z, log_q = sim(forward[0])(*args)
            return z, targets[0](z, *args) - log_q
        z, log_q = sim(forward[k])(before, *args)
        back = density(reverse[k - 1])(before, z, *args)
        return z, targets[k](z, *args) + back - frozen(targets[k - 1])(before, *args) - log_q

    def chain(args: Args) -> tuple[Array, Array]:
        """Each level's gain, and the frozen log-weight of the draw that it starts from."""
        gains, starts = [], []
        before, log_weight = None, jnp.zeros(())
        for k in range(len(targets)):
            gains.append(level(k, before, args)[1])
            starts.append(log_weight)
            # The next level starts from a draw of its own, through which nothing is trained.
            before, gain = frozen(level)(k, before, args)
            log_weight = log_weight + gain
        return jnp.stack(gains), jnp.stack(starts)

    def nested(args: Args) -> Array:
        gains, starts = particles_of(lambda: chain(args), particles)
        weights = lax.stop_gradient(jax.nn.softmax(starts, axis=0))
        return jnp.sum(weights * gains)

    return Objective(nested, f"nested({len(targets)})", (args,), forward[0], args)
