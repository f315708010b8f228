"""The keys of draws, as functions of a base key and of what is drawn.

For the counter-based generators Threefry (JAX's default) and Philox, an identifier is XORed into
the base key. They are functions of key and counter made for just this: the streams of distinct
keys are independent, however the keys are related (Salmon et al., SC 2011, section 4;
`jax.random.key` rests on it too, as it takes the seed as it is). A `fold_in` or `split` is one more
run of the generator, which a small model's step and its compilation feel: four samples of 200 flips
take twice as long with a `split`.
"""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_COUNTER_BASED = frozenset({"threefry2x32", "philox4x32"})
"""Generators with keys of two words that pass the tests of randomness for related keys."""

_ODD = np.uint32(0x9E3779B9)
"""Times this (2^32 over the golden ratio), distinct numbers stay distinct, and small ones end far
from small seeds."""


def choice_key(key: jax.Array, address: str, n: Any) -> jax.Array:
    """The key of the n-th draw (n may be traced) at an address."""
    digest = hashlib.blake2b(address.encode(), digest_size=8).digest()
    place, first = np.frombuffer(digest, "<u4")
    return _marked(key, first + jnp.uint32(n) * _ODD, place)


def key_beside(key: jax.Array, purpose: str) -> jax.Array:
    """A key for more noise at a choice whose draw has used `key`.

    A small `fold_in` will not do: it is what a `split` by the draw itself returns.
    """
    return choice_key(key, purpose, 0)


def sample_keys(key: jax.Array, num_samples: int) -> jax.Array:
    """The base keys of independent samples."""
    return jax.vmap(lambda i: _marked(key, np.uint32(0), i * _ODD))(
        jnp.arange(num_samples, dtype=jnp.uint32)
    )


def _marked(key: jax.Array, high: Any, low: Any) -> jax.Array:
    """Another key for each `(high, low)`."""
    key = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
    generator = jax.random.key_impl(key)
    if generator not in _COUNTER_BASED:
        return jax.random.fold_in(jax.random.fold_in(key, low), high)
    words = jax.random.key_data(key) ^ jnp.stack([high, low])
    return jax.random.wrap_key_data(words, impl=generator)
