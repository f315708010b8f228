"""Structured guides: blocks of choices that depend on each other, and chains over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from genjax.core import GFI
from jax import lax
from jaxtyping import Array, Float

from ppl.errors import AddressError, ShapeError
from ppl.lang import param
from ppl.lang.distribution import make_distribution
from ppl.lang.family import Family
from ppl.lang.observed import Choices
from ppl.lang.supports import lower_cholesky, real_matrix
from ppl.lang.trace_type import ChoiceType
from ppl.vi.guides._joint import JointGuide, Law, SiteLaw, joint_guide
from ppl.vi.guides._latents import check_addresses
from ppl.vi.guides.full_rank import FullRank
from ppl.vi.guides.mean_field import SCALE

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def _apply(matrix: Array, x: Array) -> Array:
    return jnp.einsum("...ij,...j->...i", matrix, x)


def _sample_chain(key, shape, loc, carry, scale_tril):
    dtype = jnp.result_type(loc, carry, scale_tril)
    steps, size = loc.shape[-2:]
    noise = jax.random.normal(key, (*shape, steps, size), dtype)
    pushes = _apply(jnp.tril(scale_tril), noise)
    carries = jnp.broadcast_to(carry, (*shape, *carry.shape[-3:]))

    def step(before, now):
        matrix, push = now
        moved = _apply(matrix, before) + push
        return moved, moved

    slices = jnp.moveaxis(carries, -3, 0), jnp.moveaxis(pushes, -2, 0)
    _, moved = lax.scan(step, jnp.zeros((*shape, size), dtype), slices)
    value = loc + jnp.moveaxis(moved, 0, -2)
    return value, _noise_density(noise, scale_tril)


def _noise_density(noise: Array, scale_tril: Array) -> Array:
    diagonal = jnp.log(jnp.diagonal(scale_tril, axis1=-2, axis2=-1))
    return jnp.sum(-0.5 * noise**2 - diagonal - _HALF_LOG_TAU, (-2, -1))


def _chain_log_density(value, loc, carry, scale_tril):
    moved = value - loc
    before = jnp.concatenate([jnp.zeros_like(moved[..., :1, :]), moved[..., :-1, :]], -2)
    push = moved - _apply(carry, before)
    root = jnp.broadcast_to(jnp.tril(scale_tril), (*push.shape, push.shape[-1]))
    noise = jax.scipy.linalg.solve_triangular(root, push[..., None], lower=True)[..., 0]
    return _noise_density(noise, scale_tril)


markov_normal = make_distribution(
    Family(
        "markov_normal",
        {"loc": 2, "carry": 3, "scale_tril": 3},
        lambda key, shape, **params: _sample_chain(key, shape, **params)[0],
        _chain_log_density,
        support=real_matrix,
        sample_with_log_density=_sample_chain,
        event_shape=lambda shapes: shapes["loc"][-2:],
        reparam="explicit",
    )
)
"""`markov_normal(loc, carry, scale_tril)`: `x[t] - loc[t] = carry[t] (x[t-1] - loc[t-1]) +
scale_tril[t] noise[t]`, a Gauss-Markov chain of shape `[steps, size]`."""


@dataclass(frozen=True)
class Chain(SiteLaw):
    """A Gauss-Markov chain over `steps`: parameters `loc`, `carry`, `scale_tril`, one per step."""

    steps: int

    def site(self, name: str, size: int) -> tuple[Any, tuple[Array, ...]]:
        each = size // self.steps
        square = (self.steps, each, each)
        scales = jnp.broadcast_to(SCALE * jnp.eye(each), square)
        return markov_normal, (
            param(f"{name}.loc", jnp.zeros((self.steps, each))),
            param(f"{name}.carry", jnp.zeros(square)),
            param(f"{name}.scale_tril", scales, support=lower_cholesky),
        )

    def draw(self, name: str, size: int) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        path, log_density = super().draw(name, size)
        return path.reshape(size), log_density

    def log_density(self, name: str, flat: Float[Array, " size"]) -> Float[Array, ""]:
        distribution, params = self.site(name, flat.shape[-1])
        return distribution.logpdf(flat.reshape(self.steps, -1), *params)

    def start(self, name: str, loc: Float[Array, " size"]) -> dict[str, Any]:
        return {f"{name}.loc": loc.reshape(self.steps, -1)}


def structured(
    model: GFI,
    *,
    blocks: Sequence[Sequence[str]] = (),
    chains: Sequence[str] = (),
    observed: Choices = None,
    args: tuple[Any, ...] = (),
) -> JointGuide:
    """A guide of independent blocks of choices, each a normal of its own structure.

    Args:
        blocks: lists of addresses; the continuous choices of a list have one full-rank normal.
        chains: addresses of choices over time (in a `scan`, with the steps as leading axis), each
            with an autoregressive normal: every step depends on the one before. Its cost grows
            with the number of steps, not with its square.

    What is in neither has a factor of its own, as in `mean_field`.

    Raises:
        AddressError: an address is no latent choice, or is in two blocks.
        ShapeError: a chain's choice has no leading axis.
        UnsupportedError: a choice in a block is not continuous.

    Source: Archer, Park, Buesing, Cunningham and Paninski (arXiv 1511.07367) for the chains.
    """

    def choose(free: dict[str, ChoiceType]) -> Mapping[str, tuple[list[str], Law]]:
        every = [*(a for block in blocks for a in block), *chains]
        check_addresses(every, free, "structured")
        if twice := [a for a in every if every.count(a) > 1]:
            raise AddressError(f"structured: {twice[0]!r} is in two blocks")
        found: dict[str, tuple[list[str], Law]] = {
            f"block{i}": ([*block], FullRank()) for i, block in enumerate(blocks)
        }
        for address in chains:
            shape = free[address].shape
            if not shape:
                raise ShapeError(
                    "structured: a chain needs a choice with a leading axis of steps",
                    address=address,
                    because="its shape is ()",
                )
            found[f"chain({address})"] = ([address], Chain(shape[0]))
        return found

    return joint_guide(model, "structured", choose, observed, args)
