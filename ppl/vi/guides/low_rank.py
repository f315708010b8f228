"""The low-rank guide: a normal whose covariance is low-rank plus diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from genjax.core import GFI
from jaxtyping import Array

from ppl.lang import param
from ppl.lang.distribution import make_distribution
from ppl.lang.family import Family
from ppl.lang.observed import Choices
from ppl.lang.supports import positive, real_vector
from ppl.vi.guides._joint import JointGuide, SiteLaw, joint_guide
from ppl.vi.guides._latents import is_continuous
from ppl.vi.guides.mean_field import SCALE


def _sample(key: Array, shape: tuple[int, ...], loc: Array, factor: Array, scale: Array) -> Array:
    dtype = jnp.result_type(loc, factor, scale)
    first, second = jax.random.split(key)
    wide = jax.random.normal(first, (*shape, factor.shape[-1]), dtype)
    own = jax.random.normal(second, (*shape, loc.shape[-1]), dtype)
    return loc + jnp.einsum("...ij,...j->...i", factor, wide) + scale * own


def _log_density(value: Array, loc: Array, factor: Array, scale: Array) -> Array:
    # The matrix inversion lemma: C = F' D^-1 F + I is of the size of the rank.
    rank = factor.shape[-1]
    z, scaled = (value - loc) / scale, factor / scale[..., None]
    inner = jnp.eye(rank) + jnp.einsum("...ki,...kj->...ij", scaled, scaled)
    root = jnp.linalg.cholesky(inner)
    projected = jnp.einsum("...ki,...k->...i", scaled, z)
    root = jnp.broadcast_to(root, (*projected.shape[:-1], rank, rank))
    solved = jax.scipy.linalg.solve_triangular(root, projected[..., None], lower=True)[..., 0]
    log_det = jnp.sum(jnp.log(scale), -1) + jnp.sum(
        jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1)), -1
    )
    square = jnp.sum(z**2, -1) - jnp.sum(solved**2, -1)
    return -0.5 * (square + value.shape[-1] * jnp.log(2 * jnp.pi)) - log_det


low_rank_normal = make_distribution(
    Family(
        "low_rank_normal",
        {"loc": 1, "factor": 2, "scale_diag": 1},
        lambda key, shape, loc, factor, scale_diag: _sample(key, shape, loc, factor, scale_diag),
        lambda value, loc, factor, scale_diag: _log_density(value, loc, factor, scale_diag),
        support=real_vector,
        event_shape=lambda shapes: shapes["loc"][-1:],
        reparam="explicit",
    )
)
"""A normal vector of covariance `factor @ factor.T + diag(scale_diag**2)`."""


@dataclass(frozen=True)
class LowRank(SiteLaw):
    """Parameters `loc` `[size]`, `factor` `[size, rank]`, `scale` `[size]`."""

    rank: int

    def site(self, name: str, size: int) -> tuple[Any, tuple[Array, ...]]:
        shape = (size, min(self.rank, size))
        # Not zero, where the factor's gradient is zero too.
        init = lambda key: 0.1 * SCALE * jax.random.normal(key, shape)
        return low_rank_normal, (
            param(f"{name}.loc", jnp.zeros(size)),
            param(f"{name}.factor", init),
            param(f"{name}.scale", jnp.full(size, SCALE), support=positive),
        )


def low_rank(
    model: GFI, *, rank: int = 10, observed: Choices = None, args: tuple[Any, ...] = ()
) -> JointGuide:
    """A guide with one normal over all continuous choices, of low-rank plus diagonal covariance.

    Its cost grows with the number of choices times the square of the rank, that of `full_rank`
    with the square of the number of choices.

    Args:
        rank: of the part that is not diagonal.

    Raises:
        UnsupportedError: as for `full_rank`.

    Source: Ong, Nott and Smith (arXiv 1701.03208).
    """
    if rank < 1:
        raise ValueError(f"low_rank: rank must be at least 1, not {rank}")
    law = LowRank(rank)
    return joint_guide(
        model,
        "low_rank",
        lambda free: {"low_rank": ([a for a, c in free.items() if is_continuous(c)], law)},
        observed,
        args,
    )
