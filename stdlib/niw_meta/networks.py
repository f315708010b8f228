"""Networks of a flat vector of weights: a regression, and features with prototypes for classes."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from stdlib.niw_meta.tasks import WAYS


def flat_mlp(
    key: Key[Array, ""], inputs: int, outputs: int, width: int, depth: int
) -> tuple[Float[Array, " weights"], Callable[[Array, Array], Array]]:
    """Start weights of a tanh network, and `(weights, x [inputs]) -> [outputs]`."""
    net = eqx.nn.MLP(inputs, outputs, width, depth, activation=jnp.tanh, key=key)
    arrays, static = eqx.partition(net, eqx.is_inexact_array)
    start, unravel = ravel_pytree(arrays)
    return start, lambda weights, x: eqx.combine(unravel(weights), static)(x)


def regression_net(
    key: Key[Array, ""], width: int = 40
) -> tuple[Float[Array, " weights"], Callable[[Array, Array], Array]]:
    """1-40-40-1, tanh: 1761 weights. `(weights, x [points]) -> [points]`."""
    start, net = flat_mlp(key, 1, 1, width, 2)
    return start, lambda weights, x: jax.vmap(lambda x: net(weights, x[None])[0])(x)


def classifier_net(
    key: Key[Array, ""], width: int = 32, features: int = 16
) -> tuple[Float[Array, " weights"], int, Callable[[Array, Array], Array]]:
    """64-32-16, tanh, and a linear head for the classes, which starts at 0: its names mean nothing
    before a task's labels are seen, so each task has to find its own head.

    Returns the start weights, how many of them (the first) are the head, and
    `(weights, images [points, 64]) -> [points * ways]`: logits.
    """
    body, net = flat_mlp(key, 64, features, width, 1)
    size = (features + 1) * WAYS

    def logits(weights: Array, images: Array) -> Array:
        head = weights[:size].reshape(features + 1, WAYS)
        z = jnp.tanh(jax.vmap(lambda image: net(weights[size:], image))(images))
        return (z @ head[:-1] + head[-1]).ravel()

    return jnp.concatenate([jnp.zeros(size), body]), size, logits
