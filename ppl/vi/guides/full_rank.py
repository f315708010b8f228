"""The full-rank guide: one normal over all continuous choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from genjax.core import GFI
from jaxtyping import Array

from ppl.lang import multivariate_normal_tri, param
from ppl.lang.observed import Choices
from ppl.lang.supports import lower_cholesky
from ppl.vi.guides._joint import JointGuide, SiteLaw, joint_guide
from ppl.vi.guides._latents import is_continuous
from ppl.vi.guides.mean_field import SCALE


@dataclass(frozen=True)
class FullRank(SiteLaw):
    """A normal with any covariance: parameters `loc` `[size]`, `scale_tril` `[size, size]`."""

    def site(self, name: str, size: int) -> tuple[Any, tuple[Array, ...]]:
        loc = param(f"{name}.loc", jnp.zeros(size))
        scale = param(f"{name}.scale_tril", SCALE * jnp.eye(size), support=lower_cholesky)
        return multivariate_normal_tri, (loc, scale)


def full_rank(model: GFI, *, observed: Choices = None, args: tuple[Any, ...] = ()) -> JointGuide:
    """A guide with one normal, of any covariance, over all continuous choices of a model.

    It is normal in unconstrained space (parameters `full_rank.loc` and `full_rank.scale_tril`).
    Discrete choices, and those observed in part, have factors of their own as in `mean_field`.

    Raises:
        UnsupportedError: a choice is discrete without a finite support, or its support is unknown.

    Source: Kucukelbir, Tran, Ranganath, Gelman and Blei (arXiv 1603.00788), section 2.4.
    """
    return joint_guide(
        model,
        "full_rank",
        lambda free: {"full_rank": ([a for a, c in free.items() if is_continuous(c)], FullRank())},
        observed,
        args,
    )
