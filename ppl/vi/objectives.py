"""Variational objectives, each an ordinary program: read, copy, change.

Each function here returns an `Objective` whose data are the observations and the programs'
arguments, so that `vi.fit` needs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from genjax.core import GFI
from jax.scipy.special import logsumexp
from jaxtyping import Array

from ppl.compiler.objective import Objective
from ppl.lang import density, sim
from ppl.lang.check_guide import check_guide
from ppl.lang.observed import Choices, merge_observed
from ppl.vi.guides.mean_field import mean_field

Args = tuple[Any, ...]

Guide = GFI | Callable[..., GFI] | None
"""A program; or a function that makes one, `(model, observed=, args=) -> program`; or `None`."""


def elbo(
    model: GFI,
    guide: Guide = None,
    *,
    observed: Choices,
    args: Args = (),
    guide_args: Args | None = None,
) -> Objective:
    """Evidence lower bound, E_q[log p(z, y) - log q(z)] <= log p(y), in nats.

    Args:
        model: the generative program p.
        guide: the variational family q over the model's unobserved choices: a program, or a
            function that makes one (`vi.full_rank`, `vi.flow`, ...); `vi.mean_field` if `None`.
        observed: nested dictionaries from address to data, or to `masked(data, mask)`.
        args: arguments of both programs.
        guide_args: those of the guide, if they differ (the data, for an amortised guide).

    Raises:
        AddressError, ShapeError, SupportError, DataError: the guide does not fit the model, or
            the data do not (see `check_guide`).

    Source: Jordan et al. 1999; Kingma and Welling (arXiv 1312.6114).
    """
    guide = _checked(model, guide, observed, args, guide_args)

    def elbo(observed: Choices, args: Args, guide_args: Args | None = None) -> Array:
        z, log_q = sim(guide)(*(args if guide_args is None else guide_args))
        return density(model)(merge_observed(z, observed), *args) - log_q

    return _objective(elbo, "elbo", model, guide, observed, args, guide_args)


def iwelbo(
    model: GFI,
    guide: Guide = None,
    *,
    particles: int,
    observed: Choices,
    args: Args = (),
    guide_args: Args | None = None,
) -> Objective:
    """Importance-weighted bound, E log (1/K) sum_k p(z_k, y) / q(z_k), in nats.

    It is at least the ELBO, grows with the number of particles K, and tends to log p(y).

    Args:
        particles: K >= 1.
        model, guide, observed, args, guide_args: as for `elbo`.

    Source: Burda, Grosse and Salakhutdinov (arXiv 1509.00519).
    """
    if particles < 1:
        raise ValueError(f"iwelbo: particles must be at least 1, not {particles}")
    guide = _checked(model, guide, observed, args, guide_args)

    def iwelbo(observed: Choices, args: Args, guide_args: Args | None = None) -> Array:
        def log_weight(_: Array) -> Array:
            z, log_q = sim(guide)(*(args if guide_args is None else guide_args))
            return density(model)(merge_observed(z, observed), *args) - log_q

        log_weights = jax.vmap(log_weight)(jnp.arange(particles))
        return logsumexp(log_weights) - jnp.log(particles)

    return _objective(iwelbo, f"iwelbo({particles})", model, guide, observed, args, guide_args)


def _checked(
    model: GFI, guide: Guide, observed: Choices, args: Args, guide_args: Args | None
) -> GFI:
    if guide is None:
        return mean_field(model, observed=observed, args=args)
    if not isinstance(guide, GFI):
        own = {} if guide_args is None else {"guide_args": guide_args}
        return guide(model, observed=observed, args=args, **own)
    check_guide(model, guide, observed, args, guide_args)
    return guide


def _objective(
    fun: Callable[..., Array],
    name: str,
    model: GFI,
    guide: GFI,
    observed: Choices,
    args: Args,
    guide_args: Args | None,
) -> Objective:
    """The objective, with the programs' arguments and the observations as its data."""
    if guide_args is None:
        return Objective(fun, name, (observed, args), guide, args, model)
    return Objective(fun, name, (observed, args, guide_args), guide, guide_args, model)
