"""The thermodynamic variational objective."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from genjax.core import GFI
from jaxtyping import Array

from ppl.compiler.objective import Objective
from ppl.lang.observed import Choices
from ppl.vi.objectives._program import Args, Guide, at_least, checked, log_weights, with_data


def thermodynamic(
    model: GFI,
    guide: Guide = None,
    *,
    particles: int,
    betas: Sequence[float] = (0.0, 0.1, 0.3, 0.6, 1.0),
    upper: bool = False,
    observed: Choices,
    args: Args = (),
    guide_args: Args | None = None,
) -> Objective:
    """Thermodynamic variational objective: a Riemann sum of log p(y) = int_0^1 E_beta[log w] dbeta.

    E_beta is over the path from guide to posterior, q(z)^(1-beta) p(z, y)^beta, on which the
    integrand grows; the left sum is a lower bound of log p(y), and with `betas=(0, 1)` it is the
    ELBO. Expectations are by self-normalised importance sampling from the same K draws; the
    gradient is that of this K-particle objective, whose bias vanishes as K grows.

    Args:
        particles: K >= 1 draws of the guide.
        betas: increasing, from 0 to 1.
        upper: the right Riemann sum, which is an upper bound (as K grows); to tighten it, minimise.
        model, guide, observed, args, guide_args: as for `elbo`.

    Raises:
        ValueError: `betas` do not increase from 0 to 1.

    Source: Masrani, Le and Wood (arXiv 1907.00031), equations 8 and 9.
    """
    at_least("thermodynamic", "particles", 1, particles)
    grid = np.asarray(betas, float)
    if len(grid) < 2 or grid[0] != 0 or grid[-1] != 1 or np.any(np.diff(grid) <= 0):
        raise ValueError(f"thermodynamic: betas must increase from 0 to 1, not {tuple(betas)}")
    guide = checked(model, guide, observed, args, guide_args)

    def thermodynamic(observed: Choices, args: Args, guide_args: Args | None = None) -> Array:
        log_w = log_weights(model, guide, observed, args, guide_args, particles)
        points = grid[1:] if upper else grid[:-1]
        weights = jax.nn.softmax(points[:, None] * log_w, axis=1)  # [betas, particles]
        return jnp.sum(np.diff(grid) * (weights @ log_w))

    name = f"thermodynamic({len(grid) - 1}, {particles})"
    return with_data(thermodynamic, name, model, guide, observed, args, guide_args)
