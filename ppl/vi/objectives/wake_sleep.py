"""Objectives that draw from one program and train another: forward KL, wake-sleep, its relatives.

Here the parameters of what is drawn from are held constant (`frozen`), as in the sources: the
gradient is that of the remaining parameters alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from genjax.core import GFI
from jax import lax
from jaxtyping import Array

from ppl.compiler.objective import Objective
from ppl.lang import density, sim
from ppl.lang.frozen import frozen
from ppl.lang.marginal import split_choices
from ppl.lang.observed import Choices, merge_observed
from ppl.vi.objectives._program import (
    Args,
    Guide,
    at_least,
    checked,
    log_joint_and_guide,
    particles_of,
    with_data,
)


def _frozen_posterior(
    model: GFI, guide: GFI, data: tuple[Choices, Args, Args | None], particles: int
) -> tuple[Choices, Array]:
    """Draws of the guide and their normalised importance weights, all parameters held constant."""
    run = frozen(lambda: log_joint_and_guide(model, guide, *data))
    z, log_p, log_q = particles_of(run, particles)
    return z, lax.stop_gradient(jax.nn.softmax(log_p - log_q))


def wake_theta(
    model: GFI,
    guide: Guide = None,
    *,
    particles: int,
    observed: Choices,
    args: Args = (),
    guide_args: Args | None = None,
) -> Objective:
    """E_{z ~ p(z|y)} log p(z, y), by self-normalised importance sampling; trains the model.

    Its gradient in the model's parameters is the one of reweighted wake-sleep; by Fisher's identity
    it tends to that of log p(y). The guide's parameters get none.

    Args:
        particles: K >= 1 draws of the guide.
        model, guide, observed, args, guide_args: as for `elbo`.

    Source: Bornschein and Bengio (arXiv 1406.2751), equation 4.
    """
    at_least("wake_theta", "particles", 1, particles)
    guide = checked(model, guide, observed, args, guide_args)

    def wake_theta(observed: Choices, args: Args, guide_args: Args | None = None) -> Array:
        z, weights = _frozen_posterior(model, guide, (observed, args, guide_args), particles)
        log_p = jax.vmap(lambda z: density(model)(merge_observed(z, observed), *args))(z)
        return jnp.sum(weights * log_p)

    return with_data(
        wake_theta, f"wake_theta({particles})", model, guide, observed, args, guide_args
    )


def wake_phi(
    model: GFI,
    guide: Guide = None,
    *,
    particles: int,
    observed: Choices,
    args: Args = (),
    guide_args: Args | None = None,
) -> Objective:
    """E_{z ~ p(z|y)} log q(z), by self-normalised importance sampling; trains the guide.

    Up to a constant it is minus the forward divergence KL(p(z|y) || q). The model's parameters, and
    those of the guide as a sampler, are held constant. The guide may be a `marginal`: its density
    estimate then bounds log q from below.

    Args:
        particles: K >= 1 draws of the guide.
        model, guide, observed, args, guide_args: as for `elbo`.

    Source: Bornschein and Bengio (arXiv 1406.2751), equation 6; Le et al. (arXiv 1805.10469).
    """
    at_least("wake_phi", "particles", 1, particles)
    guide = checked(model, guide, observed, args, guide_args)

    def wake_phi(observed: Choices, args: Args, guide_args: Args | None = None) -> Array:
        z, weights = _frozen_posterior(model, guide, (observed, args, guide_args), particles)
        own = args if guide_args is None else guide_args
        log_q = jax.vmap(lambda z: density(guide)(z, *own))(z)
        return jnp.sum(weights * log_q)

    return with_data(wake_phi, f"wake_phi({particles})", model, guide, observed, args, guide_args)


forward_kl = wake_phi
"""Minimises KL(p(z|y) || q) in the guide's parameters: the same program as `wake_phi`."""


def reweighted_wake_sleep(
    model: GFI,
    guide: Guide = None,
    *,
    particles: int,
    observed: Choices,
    args: Args = (),
    guide_args: Args | None = None,
) -> Objective:
    """`wake_theta` and `wake_phi` with the same draws: trains the model and the guide.

    Args:
        particles: K >= 1 draws of the guide.
        model, guide, observed, args, guide_args: as for `elbo`.

    Source: Bornschein and Bengio (arXiv 1406.2751); Le et al. (arXiv 1805.10469).
    """
    at_least("reweighted_wake_sleep", "particles", 1, particles)
    guide = checked(model, guide, observed, args, guide_args)

    def rws(observed: Choices, args: Args, guide_args: Args | None = None) -> Array:
        z, weights = _frozen_posterior(model, guide, (observed, args, guide_args), particles)
        own = args if guide_args is None else guide_args
        log_p = jax.vmap(lambda z: density(model)(merge_observed(z, observed), *args))(z)
        log_q = jax.vmap(lambda z: density(guide)(z, *own))(z)
        return jnp.sum(weights * (log_p + log_q))

    name = f"reweighted_wake_sleep({particles})"
    return with_data(rws, name, model, guide, observed, args, guide_args)


def sleep(
    model: GFI,
    guide: GFI,
    *,
    observed: str | Iterable[str],
    guide_args: Callable[[Choices], Args],
    args: Args = (),
    simulations: int = 1,
) -> Objective:
    """E_{(z, y) ~ p} log q(z; y): trains an amortised guide on simulations of the model.

    It is the sleep phase, also known as simulation-based inference (neural posterior estimation):
    up to a constant, minus the mean of KL(p(z|y) || q(z; y)) over the data that the model
    makes up. The model's parameters are held constant, and the model need not be differentiable.

    Args:
        observed: the addresses that are data.
        guide_args: the guide's arguments, as a function of simulated data (nested dictionaries).
        args: the model's arguments.
        simulations: independent simulations averaged in one estimate.

    Raises (when run):
        AddressError: an observed address is not the model's, or the guide does not have exactly
            the other choices.

    Source: Hinton et al. 1995; Papamakarios and Murray (arXiv 1605.06376).
    """
    at_least("sleep", "simulations", 1, simulations)
    addresses = (observed,) if isinstance(observed, str) else tuple(observed)

    def once(args: Args) -> Array:
        choices, _ = frozen(sim(model))(*args)
        y, z = split_choices(choices, addresses)
        return density(guide)(z, *guide_args(y))

    def sleep(args: Args) -> Array:
        return jnp.mean(particles_of(lambda: once(args), simulations))

    return Objective(sleep, "sleep", (args,))


simulation_based = sleep
"""Amortised inference from simulations: the same program as `sleep`."""


def jeffreys(
    model: GFI,
    guide: Guide = None,
    *,
    particles: int,
    observed: Choices,
    args: Args = (),
    guide_args: Args | None = None,
) -> Objective:
    """*Minus* the symmetric divergence KL(q || p(z|y)) + KL(p(z|y) || q), in nats.

    The evidence cancels. The second divergence is an estimate by self-normalised importance
    sampling with the guide's draws, whose parameters are held constant there.

    Args:
        particles: K >= 1 draws of the guide for the second divergence.
        model, guide, observed, args, guide_args: as for `elbo`.

    Source: Jeffreys 1946; the estimate as in `wake_phi`.
    """
    at_least("jeffreys", "particles", 1, particles)
    guide = checked(model, guide, observed, args, guide_args)

    def jeffreys(observed: Choices, args: Args, guide_args: Args | None = None) -> Array:
        data: Any = (observed, args, guide_args)
        _, log_p, log_q = log_joint_and_guide(model, guide, *data)
        z, weights = _frozen_posterior(model, guide, data, particles)
        own = args if guide_args is None else guide_args

        def log_ratio(z: Choices) -> Array:
            return density(guide)(z, *own) - density(model)(merge_observed(z, observed), *args)

        return log_p - log_q + jnp.sum(weights * jax.vmap(log_ratio)(z))

    return with_data(jeffreys, f"jeffreys({particles})", model, guide, observed, args, guide_args)
