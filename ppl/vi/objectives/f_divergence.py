"""The family of f-divergences, D_f(p || q) = E_q[f(p/q)] with f convex and f(1) = 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from genjax.core import GFI
from jaxtyping import Array

from ppl.compiler.objective import Objective
from ppl.lang.logspace import log_mean_exp
from ppl.lang.observed import Choices
from ppl.vi.objectives._program import Args, Guide, at_least, checked, log_weights, with_data

F = Callable[[Array], Array]
"""f as a function of log u, for numbers u from 0 to infinity."""

LOG_2 = 0.6931471805599453


def dual(f: F) -> F:
    """u f(1/u): with it, D_f(p || q) becomes D_f(q || p).

    >>> float(dual(divergences["kl_forward"])(jnp.log(2.0)))  # -log u
    -0.6931471824645996
    """
    return lambda log_u: jnp.exp(log_u) * f(-log_u)


def alpha_divergence(alpha: float) -> F:
    """Amari's family: alpha = 0 is `kl_reverse`, 1 is `kl_forward`, 1/2 four times Hellinger's."""
    if alpha == 0:
        return divergences["kl_reverse"]
    if alpha == 1:
        return divergences["kl_forward"]
    scale = 1 / (alpha * (alpha - 1))
    return lambda log_u: scale * (jnp.expm1(alpha * log_u) - alpha * jnp.expm1(log_u))


def _jensen_shannon(log_u: Array) -> Array:
    # u log u - (1 + u) log ((1 + u) / 2), halved
    u = jnp.exp(log_u)
    return 0.5 * (u * log_u - (1 + u) * (jax.nn.softplus(log_u) - LOG_2))


def _arithmetic_geometric(log_u: Array) -> Array:
    # (1 + u) / 2 log ((1 + u) / (2 sqrt u))
    return 0.5 * (1 + jnp.exp(log_u)) * (jax.nn.softplus(log_u) - LOG_2 - 0.5 * log_u)


divergences: Mapping[str, F] = {
    "kl_reverse": lambda log_u: -log_u,
    "kl_forward": lambda log_u: jnp.exp(log_u) * log_u,
    "jeffreys": lambda log_u: jnp.expm1(log_u) * log_u,
    "total_variation": lambda log_u: 0.5 * jnp.abs(jnp.expm1(log_u)),
    "squared_hellinger": lambda log_u: 0.5 * jnp.expm1(0.5 * log_u) ** 2,
    "pearson": lambda log_u: jnp.expm1(log_u) ** 2,
    "neyman": lambda log_u: jnp.expm1(log_u) ** 2 * jnp.exp(-log_u),
    "jensen_shannon": _jensen_shannon,
    "arithmetic_geometric": _arithmetic_geometric,
    "triangular": lambda log_u: jnp.expm1(log_u) ** 2 / (1 + jnp.exp(log_u)),
}
"""Each f by name, as a function of log u. `kl_reverse` is KL(q || p), `kl_forward` KL(p || q)."""


def f_divergence(
    model: GFI,
    guide: Guide = None,
    *,
    divergence: str | F,
    log_evidence: float | None = None,
    particles: int = 1,
    observed: Choices,
    args: Args = (),
    guide_args: Args | None = None,
) -> Objective:
    """*Minus* D_f(p(z|y) || q) = E_q[f(p(z|y) / q(z))].

    Args:
        divergence: a name of `divergences`, or f as a function of log u (`alpha_divergence(a)`,
            `dual(f)`); f must be convex with f(1) = 0.
        log_evidence: log p(y), in nats, if it is known: then the estimate is unbiased. If `None`,
            p(y) is the mean weight of the particles, which biases it until there are many.
        particles: draws of the guide that are averaged; at least 2 without `log_evidence`.
        model, guide, observed, args, guide_args: as for `elbo`.

    Raises:
        ValueError: there is no divergence of that name, or there are too few particles.

    Source: Csiszar 1963; Wan et al. (arXiv 2009.13093); names as in TensorFlow Probability's
    Csiszar divergences.
    """
    at_least("f_divergence", "particles", 1 if log_evidence is not None else 2, particles)
    if isinstance(divergence, str) and divergence not in divergences:
        raise ValueError(
            f"f_divergence: there is no divergence {divergence!r}; use one of {list(divergences)}"
        )
    f = divergences[divergence] if isinstance(divergence, str) else divergence
    guide = checked(model, guide, observed, args, guide_args)

    def f_divergence(observed: Choices, args: Args, guide_args: Args | None = None) -> Array:
        log_w = log_weights(model, guide, observed, args, guide_args, particles)
        normaliser = log_mean_exp(log_w) if log_evidence is None else log_evidence
        return -jnp.mean(f(log_w - normaliser))

    name = divergence if isinstance(divergence, str) else "f"
    return with_data(
        f_divergence, f"f_divergence({name})", model, guide, observed, args, guide_args
    )
