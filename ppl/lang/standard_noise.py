"""Noise of a fixed law, such as standard normals, of which samplers make their draws.

As it does not depend on a choice's parameters, the compiler can draw it for many choices at once
(see `ppl.compiler.pooling`): a sampler is then called with `Ready` noise in place of a key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jaxtyping import Array


@dataclass(frozen=True)
class Ready:
    """Noise that has been drawn, in place of the key to draw it with."""

    values: Array


@dataclass(frozen=True)
class StandardNoise:
    """`(key, shape, dtype) -> values`, independent and of one law."""

    generate: Callable[[jax.Array, tuple[int, ...], Any], Array]

    def __call__(self, key: jax.Array | Ready, shape: tuple[int, ...], dtype: Any) -> Array:
        if isinstance(key, Ready):
            return key.values
        # XLA would compute the noise anew in each kernel that uses it, on the way back once more.
        return lax.optimization_barrier(self.generate(key, shape, dtype))


standard_normal = StandardNoise(jax.random.normal)
standard_uniform = StandardNoise(jax.random.uniform)
standard_exponential = StandardNoise(jax.random.exponential)
standard_laplace = StandardNoise(jax.random.laplace)
standard_logistic = StandardNoise(jax.random.logistic)
standard_gumbel = StandardNoise(jax.random.gumbel)
standard_cauchy = StandardNoise(jax.random.cauchy)
