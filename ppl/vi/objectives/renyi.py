"""Bounds from Renyi's divergences: below and above the evidence."""

from __future__ import annotations

import jax.numpy as jnp
from genjax.core import GFI
from jaxtyping import Array

from ppl.compiler.objective import Objective
from ppl.lang.logspace import log_mean_exp
from ppl.lang.observed import Choices
from ppl.vi.objectives._program import Args, Guide, at_least, checked, log_weights, with_data


def renyi(
    model: GFI,
    guide: Guide = None,
    *,
    alpha: float,
    particles: int,
    observed: Choices,
    args: Args = (),
    guide_args: Args | None = None,
) -> Objective:
    """Variational Renyi bound, 1/(1-alpha) E log (1/K) sum_k (p(z_k, y)/q(z_k))^(1-alpha), in nats.

    alpha = 0 is the importance-weighted bound, alpha = 1 the ELBO, and alpha -> -inf lets the
    largest weight alone count. For 0 <= alpha it is below log p(y). With finitely many particles
    its mean is itself a bound of the infinite-particle value (for alpha < 1, from below).

    Args:
        alpha: the order.
        particles: K >= 1.
        model, guide, observed, args, guide_args: as for `elbo`.

    Source: Li and Turner (arXiv 1602.02311).
    """
    at_least("renyi", "particles", 1, particles)
    guide = checked(model, guide, observed, args, guide_args)

    def renyi(observed: Choices, args: Args, guide_args: Args | None = None) -> Array:
        log_w = log_weights(model, guide, observed, args, guide_args, particles)
        if alpha == 1:
            return jnp.mean(log_w)
        return log_mean_exp((1 - alpha) * log_w) / (1 - alpha)

    return with_data(
        renyi, f"renyi({alpha:g}, {particles})", model, guide, observed, args, guide_args
    )


def cubo(
    model: GFI,
    guide: Guide = None,
    *,
    order: float = 2.0,
    particles: int,
    observed: Choices,
    args: Args = (),
    guide_args: Args | None = None,
) -> Objective:
    """*Minus* the chi upper bound, -1/n log (1/K) sum_k (p(z_k, y)/q(z_k))^n, in nats.

    To maximise it is to lower CUBO_n = 1/n log E_q[w^n] >= log p(y). The estimate of CUBO_n from
    finitely many particles is too low on average, by Jensen's inequality, and tends to it as K
    grows: with few particles it is no upper bound. `chi_square` is the unbiased form.

    Args:
        order: n > 1.
        particles: K >= 2.
        model, guide, observed, args, guide_args: as for `elbo`.

    Source: Dieng et al. (arXiv 1611.00328), equation 3.
    """
    at_least("cubo", "particles", 2, particles)
    _check_order("cubo", order)
    guide = checked(model, guide, observed, args, guide_args)

    def cubo(observed: Choices, args: Args, guide_args: Args | None = None) -> Array:
        log_w = log_weights(model, guide, observed, args, guide_args, particles)
        return -log_mean_exp(order * log_w) / order

    return with_data(
        cubo, f"cubo({order:g}, {particles})", model, guide, observed, args, guide_args
    )


def chi_square(
    model: GFI,
    guide: Guide = None,
    *,
    order: float = 2.0,
    log_scale: float = 0.0,
    observed: Choices,
    args: Args = (),
    guide_args: Args | None = None,
) -> Objective:
    """*Minus* E_q[(p(z, y) / (q(z) c))^n] = -exp(n (CUBO_n - log c)), estimated without bias.

    It has the maximum of `cubo` with infinitely many particles.

    Args:
        order: n > 1.
        log_scale: log c, in nats: near log p(y), so that the numbers stay moderate.
        model, guide, observed, args, guide_args: as for `elbo`.

    Source: Dieng et al. (arXiv 1611.00328), section 2.2.
    """
    _check_order("chi_square", order)
    guide = checked(model, guide, observed, args, guide_args)

    def chi_square(observed: Choices, args: Args, guide_args: Args | None = None) -> Array:
        log_w = log_weights(model, guide, observed, args, guide_args, 1)[0]
        return -jnp.exp(order * (log_w - log_scale))

    return with_data(chi_square, f"chi_square({order:g})", model, guide, observed, args, guide_args)


def _check_order(name: str, order: float) -> None:
    if not order > 1:
        raise ValueError(f"{name}: order must be larger than 1, not {order}")
