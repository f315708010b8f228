"""The networks of `vae.ppl`: functions of a key that make Equinox modules."""

from __future__ import annotations

import equinox as eqx
import jax


def encoder(key: jax.Array) -> eqx.nn.MLP:
    return eqx.nn.MLP(12, 4, width_size=16, depth=1, key=key)


def decoder(key: jax.Array) -> eqx.nn.MLP:
    return eqx.nn.MLP(2, 12, width_size=16, depth=1, key=key)
