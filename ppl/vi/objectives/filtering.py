"""Bounds for state-space models, by particle filters."""

from __future__ import annotations

from typing import Any

from genjax.core import GFI
from jaxtyping import Array

from ppl.compiler.objective import Objective
from ppl.lang import density
from ppl.lang.inference.smc import smc
from ppl.lang.marginal import marginal
from ppl.lang.observed import Choices, flat_choices
from ppl.vi.objectives._program import Args


def fivo(
    model: GFI,
    proposal: GFI | None = None,
    *,
    particles: int,
    observed: Choices,
    args: Args = (),
    **options: Any,
) -> Objective:
    """Filtering variational objective, E log Z_hat of a particle filter <= log p(y), in nats.

    The model is `scan(step)`, the guide proposes each step's latent choices. The bound grows with
    the number of particles and, unlike `iwelbo`, does not fall apart over long sequences.

    Args:
        model: `scan(step)`.
        proposal: a program over the step's latent choices, called with the step's data (nested
            dictionaries), its carry and its `x`; if `None`, the step itself.
        particles: K >= 1.
        observed: the data by address, with the steps along their first axis.
        args: the loop's arguments: the first carry, and `xs` if it has them.
        options: of `smc`: `resampling`, `ess`, `drop_resampling_gradient`, ...

    Source: Maddison et al. (arXiv 1705.09279, FIVO); Naesseth et al. (arXiv 1705.11140, VSMC);
    Le et al. (arXiv 1705.10306, AESMC).
    """
    by = smc(proposal, particles=particles, **options)

    def fivo(observed: Choices, args: Args) -> Array:
        return density(marginal(model, keep=list(flat_choices(observed)), by=by))(observed, *args)

    return Objective(fivo, f"fivo({particles})", (observed, args), None, (), model)
