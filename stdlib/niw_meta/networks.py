"""Networks of a flat vector of weights: a regression, and features with prototypes for classes."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key


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


def prototype_net(
    key: Key[Array, ""], width: int = 32
) -> tuple[Float[Array, " weights"], Callable[[Array, tuple[Array, Array]], Array]]:
    """Logits by distance to the classes' mean features (Snell et al. 2017): the head is the task's
    own, so that the names of classes do not matter. Features are the pixels plus a 64-32-64 tanh
    network of them, whose last layer starts at 0; the first weight is the log of the distances'
    scale.

    `(weights, (images [points, 64], labels [points, ways])) -> [points * ways]`: labels are one-hot
    rows, zero for a point whose class is not known. A point is left out of its own prototype, so a
    labelled point is classified by the others.
    """
    body, net = flat_mlp(key, 64, 64, width, 1)
    last = 64 * width + 64  # weights and biases of the last layer come last
    start = jnp.concatenate([jnp.zeros(1), body.at[-last:].set(0.0)])

    def logits(weights: Array, x: tuple[Array, Array]) -> Array:
        images, labels = x
        z = images + jax.vmap(lambda image: net(weights[1:], image))(images)
        sums, others = labels.T @ z, jnp.sum(labels, 0) - labels  # others: [points, ways]
        prototypes = (sums - labels[..., None] * z[:, None]) / others[..., None]
        distances = jnp.sum((z[:, None] - prototypes) ** 2, -1)
        return (-jnp.exp(weights[0]) * distances).ravel()

    return start, logits
