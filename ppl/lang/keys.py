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


def choice_mark(address: str, n: Any) -> Any:
    """What makes a base key that of the n-th draw (n may be traced) at an address: `uint32[2]`."""
    digest = hashlib.blake2b(address.encode(), digest_size=8).digest()
    place, first = np.frombuffer(digest, "<u4")
    if isinstance(n, int):
        return np.array([(int(first) + n * int(_ODD)) % 2**32, place], np.uint32)
    return jnp.stack([first + jnp.uint32(n) * _ODD, place])


def choice_key(key: jax.Array, address: str, n: Any) -> jax.Array:
    """The key of the n-th draw (n may be traced) at an address."""
    return marked(key, choice_mark(address, n))


def key_beside(key: jax.Array, purpose: str) -> jax.Array:
    """A key for more noise at a choice whose draw has used `key`.

    A small `fold_in` will not do: it is what a `split` by the draw itself returns.
    """
    return choice_key(key, purpose, 0)


def sample_keys(key: jax.Array, num_samples: int) -> jax.Array:
    """The base keys of independent samples."""
    numbers = jnp.arange(num_samples, dtype=jnp.uint32) * _ODD
    return jax.vmap(lambda i: marked(key, jnp.stack([jnp.zeros_like(i), i])))(numbers)


def marked(key: jax.Array, marks: Any) -> jax.Array:
    """Another key for each mark: keys `[...]` for marks `[..., 2]`."""
    key = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
    if not is_counter_based(key):
        return jax.random.fold_in(jax.random.fold_in(key, marks[1]), marks[0])
    words = jax.random.key_data(key) ^ marks
    return jax.random.wrap_key_data(words, impl=jax.random.key_impl(key))


def is_counter_based(key: jax.Array) -> bool:
    """Whether the generator draws with many keys at once what it draws with each alone."""
    return jax.random.key_impl(key) in _COUNTER_BASED
