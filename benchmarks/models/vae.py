"""A variational auto-encoder 784-200-20 (Kingma and Welling, arXiv 1312.6114), batch 128.

The images are scikit-learn's handwritten digits, enlarged to 28 x 28 and binarised.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Side, Task
from ppl import bernoulli, gen, normal, param, vi

PIXELS, HIDDEN, LATENT, BATCH = 784, 200, 20, 128
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def load() -> np.ndarray:
    """A batch of images, `[128, 784]`, of zeros and ones."""
    from sklearn.datasets import load_digits

    small = load_digits().images[:BATCH] / 16
    large = jax.image.resize(small, (BATCH, 28, 28), "linear")
    return np.asarray(large > 0.5, np.float32).reshape(BATCH, PIXELS)


# The networks, which both sides share.


def _layers(key: Any, *sizes: int) -> list[dict[str, Any]]:
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        {"w": jax.random.normal(k, (m, n)) / math.sqrt(m), "b": jnp.zeros(n)}
        for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def encoder(key: Any) -> Any:
    return _layers(key, PIXELS, HIDDEN, 2 * LATENT)


def decoder(key: Any) -> Any:
    return _layers(key, LATENT, HIDDEN, PIXELS)


def network(layers: Any, x: Any) -> Any:
    for layer in layers[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ layers[-1]["w"] + layers[-1]["b"]


def encode(layers: Any, images: Any) -> tuple[Any, Any]:
    loc, raw = jnp.split(network(layers, images), 2, -1)
    return loc, jax.nn.softplus(raw)


# Ours.


@gen
def model(images):
    z = normal(jnp.zeros((len(images), LATENT)), 1.0) @ "z"
    bernoulli(network(param("decoder", decoder), z)) @ "image"


@gen
def guide(images):
    normal.reparam(*encode(param("encoder", encoder), images)) @ "z"


def ours(images: Any) -> Side:
    est = vi.compile(vi.elbo(model, guide, observed={"image": images}, args=(images,)))
    params = est.init(jax.random.key(0))

    def loss(key, params, images):
        return -est.surrogate(key, params, {"image": images}, (images,)) / BATCH

    return Side(loss, params, est)


# By hand.


def by_hand(images: Any) -> Side:
    def loss(key, params, images):
        loc, scale = encode(params["encoder"], images)
        noise = jax.random.normal(key, loc.shape)
        z = loc + scale * noise
        logits = network(params["decoder"], z)
        log_q = jnp.sum(-0.5 * noise**2 - jnp.log(scale))
        log_prior = jnp.sum(-0.5 * z**2)
        log_likelihood = jnp.sum(images * logits - jax.nn.softplus(logits))
        return (log_q - log_prior - log_likelihood) / BATCH

    keys = jax.random.split(jax.random.key(0))
    return Side(loss, {"decoder": decoder(keys[0]), "encoder": encoder(keys[1])})


def task() -> Task:
    return Task(
        name="VAE 784-200-20, batch 128",
        ours=ours,
        by_hand=by_hand,
        data=jnp.asarray(load()),
        to_hand=lambda params: params,
        learning_rate=1e-3,
        fit_steps=500,
    )
