"""Laplace's approximation: a normal at the posterior's mode, with the curvature there."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
from genjax.core import GFI
from jaxtyping import Array, Key

from ppl.compiler.estimator import compile as compile_objective
from ppl.compiler.objective import Objective
from ppl.errors import PplError, UnsupportedError
from ppl.lang.density import density
from ppl.lang.observed import Choices, merge_observed
from ppl.lang.param import param
from ppl.vi.fit import fit
from ppl.vi.guides._latents import latents, nest
from ppl.vi.guides.full_rank import full_rank
from ppl.vi.objectives import elbo
from ppl.vi.result import Fit


def laplace(
    model: GFI,
    *,
    observed: Choices = None,
    args: tuple[Any, ...] = (),
    steps: int = 500,
    optimizer: optax.GradientTransformation | None = None,
    key: Key[Array, ""] | None = None,
    progress: bool = True,
) -> Fit:
    """Laplace's approximation of a posterior: normal in unconstrained space.

    Its mean is the mode of the posterior in unconstrained space, its precision minus the Hessian
    of the log-density there.

    Args:
        model, observed, args: as for `vi.elbo`.
        steps, optimizer, key, progress: of the search for the mode, as for `vi.fit`;
            `optax.lbfgs()` if no optimiser is given.

    Returns:
        a `Fit` of the full-rank guide, with the parameters `full_rank.loc` and
        `full_rank.scale_tril`; its losses are those of the search.

    Raises:
        UnsupportedError: a choice is discrete, or observed in part.
        PplError: the search ended where the log-density is not curved downwards in all directions.

    Source: Tierney and Kadane (1986); Kucukelbir et al. (arXiv 1603.00788) for the change of
    variables.
    """
    guide = full_rank(model, observed=observed, args=args)
    joint = {part.address for block in guide.blocks.value for part in block.layout.parts}
    others = {a: c for a, c in latents(model, observed, args).items() if a not in joint}
    for address, choice in others.items():
        raise UnsupportedError(
            "laplace: all choices of the model must be continuous, and observed wholly or not",
            address=address,
            where=choice.where,
            fix="use vi.elbo with vi.full_rank, which sums discrete choices out",
        )
    (block,) = guide.blocks.value
    layout, size = block.layout, block.layout.size

    def log_density(flat: Array, observed: Choices, args: tuple[Any, ...]) -> Array:
        values, log_det = layout.constrain(flat)
        return density(model)(merge_observed(nest(values), observed), *args) + log_det

    def at_mode(observed: Choices, args: tuple[Any, ...]) -> Array:
        return log_density(param("mode", jnp.zeros(size)), observed, args)

    key = jax.random.key(0) if key is None else key
    start = {"mode": guide.start(key)["full_rank.loc"]}
    search = fit(
        Objective(at_mode, "log-density", (observed, args)),
        steps=steps,
        optimizer=optax.lbfgs() if optimizer is None else optimizer,
        key=key,
        params=start,
        progress=progress,
    )
    began = time.perf_counter()
    mode = search.params["mode"]
    hessian = jax.jit(jax.hessian(log_density))(mode, observed, args)
    scale_tril = jnp.linalg.cholesky(jnp.linalg.inv(-0.5 * (hessian + hessian.T)))
    if not bool(jnp.all(jnp.isfinite(scale_tril))):
        raise PplError(
            "laplace: the log-density is not curved downwards at the point found",
            because="it is no maximum, or the posterior is flat in some direction there",
            fix="take more steps or other start values; or use vi.elbo with vi.full_rank",
        )
    objective = elbo(model, guide, observed=observed, args=args)
    return Fit(
        params={"full_rank.loc": mode, "full_rank.scale_tril": scale_tril},
        losses=search.losses,
        estimator=compile_objective(objective),
        objective=objective,
        data=objective.data,
        key=search.key,
        seconds=search.seconds + time.perf_counter() - began,
        compile_seconds=search.compile_seconds,
    )
