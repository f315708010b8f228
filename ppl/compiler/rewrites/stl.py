"""Sticking the landing."""

from __future__ import annotations

from typing import Any

from jax import lax
from jaxtyping import Array

from ppl.compiler.rewrites.base import Program, Rewritten, at_itself, rewrite
from ppl.compiler.strategies.base import follows_path
from ppl.lang.primitives import log_density_values
from ppl.lang.staged import Eqn


@rewrite
def stl(program: Program) -> list[Rewritten]:
    """Cut the derivative of log q(z; v) in v, not that along z, for choices that follow a path
    (Roeder, Wu and Duvenaud, arXiv 1703.09194).

    What is cut is the score, whose mean given v is 0, times a coefficient that no draw influences
    (so it is not for multi-sample bounds, where `dreg` is). Near the optimum of an ELBO whose
    guide can be exact, all that is left has no variance.
    """
    done = []
    for eqn, site in program.linear_log_densities():
        if at_itself(eqn) and follows_path(program.strategies[site]):
            eqn.impl = without_score(eqn)
            address = site.params["address"]
            what = f"no score in the density at {eqn.where.rsplit('/', 1)[-1]}"
            done.append(Rewritten("stl", address, site.where, what))
    return done


def without_score(eqn: Eqn) -> Any:
    """A log-density whose parameters do not move."""

    def log_density(value: Array, *params: Array) -> list[Array]:
        return [log_density_values(value, *map(lax.stop_gradient, params), **eqn.params)]

    return log_density
