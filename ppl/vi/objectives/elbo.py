"""The evidence lower bound, and its importance-weighted form."""

from __future__ import annotations

from genjax.core import GFI
from jaxtyping import Array

from ppl.compiler.objective import Objective
from ppl.lang import density, sim
from ppl.lang.logspace import log_mean_exp
from ppl.lang.observed import Choices, merge_observed
from ppl.vi.objectives._program import Args, Guide, at_least, checked, log_weights, with_data


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
    guide = checked(model, guide, observed, args, guide_args)

    def elbo(observed: Choices, args: Args, guide_args: Args | None = None) -> Array:
        z, log_q = sim(guide)(*(args if guide_args is None else guide_args))
        return density(model)(merge_observed(z, observed), *args) - log_q

    return with_data(elbo, "elbo", model, guide, observed, args, guide_args)


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
    at_least("iwelbo", "particles", 1, particles)
    guide = checked(model, guide, observed, args, guide_args)

    def iwelbo(observed: Choices, args: Args, guide_args: Args | None = None) -> Array:
        return log_mean_exp(log_weights(model, guide, observed, args, guide_args, particles))

    return with_data(iwelbo, f"iwelbo({particles})", model, guide, observed, args, guide_args)
