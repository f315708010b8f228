"""TFP distributions as samplers and log-densities over whole batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array


def tfp_sampler(constructor: Callable[..., Any], ranks: Mapping[str, int]) -> Callable[..., Array]:
    """`(key, shape, **params)` for a TFP constructor with parameters of the given ranks."""

    def sample(key: Array, shape: tuple[int, ...], **params: Array) -> Array:
        with quiet():
            full = {
                n: jnp.broadcast_to(p, (*shape, *p.shape[p.ndim - ranks[n] :]))
                for n, p in params.items()
            }
            return constructor(**full).sample(seed=key)

    return sample


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings about 64-bit numbers that TFP's own code asks for and does not get."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Explicitly requested dtype", UserWarning)
        yield
