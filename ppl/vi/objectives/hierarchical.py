"""Bounds for guides with auxiliary choices, integrated out by `marginal`."""

from __future__ import annotations

from genjax.core import GFI

from ppl.compiler.objective import Objective
from ppl.lang.inference.importance import importance
from ppl.lang.marginal import marginal
from ppl.lang.observed import Choices, PartlyObserved, flat_choices
from ppl.lang.trace_type import trace_type
from ppl.vi.objectives._program import Args
from ppl.vi.objectives.elbo import elbo, iwelbo


def hvi(
    model: GFI,
    guide: GFI,
    reverse: GFI | None = None,
    *,
    observed: Choices,
    args: Args = (),
    guide_args: Args | None = None,
) -> Objective:
    """Hierarchical bound, E_q(z,u)[log p(z, y) + log r(u|z) - log q(z, u)], in nats.

    The ELBO with the guide's auxiliary choices u (all that the model does not have) integrated
    out by one importance draw. It is at most the ELBO of the exact marginal guide.

    Args:
        model: the model p.
        guide: a program over the model's latent choices z and auxiliary ones u.
        reverse: r(u|z), called with the choices z (nested dictionaries) and the guide's arguments;
            if `None`, u is drawn as the guide itself draws it.
        observed, args, guide_args: as for `elbo`.

    Source: Ranganath, Tran and Blei (arXiv 1511.02386); Maaloe et al. (arXiv 1602.05473).
    """
    return elbo(
        model,
        marginal_guide(model, guide, reverse, 1, observed, args),
        observed=observed,
        args=args,
        guide_args=guide_args,
    )


def iwhvi(
    model: GFI,
    guide: GFI,
    reverse: GFI | None = None,
    *,
    inner_particles: int,
    observed: Choices,
    args: Args = (),
    guide_args: Args | None = None,
) -> Objective:
    """Importance-weighted hierarchical bound: log q(z) estimated with m draws of u, in nats.

    E[log p(z, y) - log (1/m) sum_j q(z, u_j) / r(u_j|z)], with u_0 the draw that made z and the
    others from r. It grows with m, from `hvi` to the ELBO of the exact marginal guide.

    Args:
        inner_particles: m >= 1.
        model, guide, reverse, observed, args, guide_args: as for `hvi`.

    Source: Sobolev and Vetrov (arXiv 1909.13062), equation 4.
    """
    return elbo(
        model,
        marginal_guide(model, guide, reverse, inner_particles, observed, args),
        observed=observed,
        args=args,
        guide_args=guide_args,
    )


def diwhvi(
    model: GFI,
    guide: GFI,
    reverse: GFI | None = None,
    *,
    particles: int,
    inner_particles: int,
    observed: Choices,
    args: Args = (),
    guide_args: Args | None = None,
) -> Objective:
    """Doubly importance-weighted hierarchical bound: `iwelbo` over the guide of `iwhvi`, in nats.

    Args:
        particles: draws of z, at least 1.
        inner_particles: draws of u for each, at least 1.
        model, guide, reverse, observed, args, guide_args: as for `hvi`.

    Source: Sobolev and Vetrov (arXiv 1909.13062), section 4.3.
    """
    return iwelbo(
        model,
        marginal_guide(model, guide, reverse, inner_particles, observed, args),
        particles=particles,
        observed=observed,
        args=args,
        guide_args=guide_args,
    )


def marginal_guide(
    model: GFI,
    guide: GFI,
    reverse: GFI | None,
    inner_particles: int,
    observed: Choices,
    args: Args,
) -> GFI:
    """The guide over the model's unobserved choices alone."""
    fixed = {a for a, v in flat_choices(observed).items() if not isinstance(v, PartlyObserved)}
    latent = [a for a in trace_type(model, *args) if a not in fixed]
    return marginal(guide, keep=latent, by=importance(reverse, inner_particles))
