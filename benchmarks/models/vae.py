"""The variational autoencoder of the core paper's table 1: 784-200-(10, 10), 10-200-784 units.

Source: Becker et al. (arXiv 2406.15742); leaky rectifiers. The images are scikit-learn's
handwritten digits, enlarged to 28 x 28 and binarised.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import peers
from benchmarks.peers import adev, dist, genjax, numpyro
from benchmarks.task import BY_HAND, OURS, Task, by_hand, our_elbo
from ppl import bernoulli, gen, normal, param

PIXELS, HIDDEN, LATENT = 784, 200, 10


def load(n: int) -> np.ndarray:
    """`n` images, `[n, 784]`, of zeros and ones."""
    from sklearn.datasets import load_digits

    small = np.asarray(load_digits(return_X_y=True)[0])[:n].reshape(n, 8, 8) / 16
    large = jax.image.resize(small, (n, 28, 28), "linear")
    return np.asarray(large > 0.5, np.float32).reshape(n, PIXELS)


# What all sides share: the networks.


def layers(*sizes: int) -> Callable[[Any], Any]:
    """Weights of a network, as a function of a key."""

    def init(key: Any) -> Any:
        keys = jax.random.split(key, len(sizes) - 1)
        return [
            (jax.random.normal(k, (m, n)) / math.sqrt(m), jnp.zeros(n))
            for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
        ]

    return init


def network(layers: Any, x: Any, bend: Callable[[Any], Any] = jax.nn.leaky_relu) -> Any:
    (w1, b1), (w2, b2) = layers
    return bend(x @ w1 + b1) @ w2 + b2


def encode(layers: Any, images: Any) -> tuple[Any, Any]:
    loc, raw = jnp.split(network(layers, images), 2, -1)
    return loc, jax.nn.softplus(raw)


ENCODER, DECODER = layers(PIXELS, HIDDEN, 2 * LATENT), layers(LATENT, HIDDEN, PIXELS)


# Ours.


@gen
def model(images):
    z = normal(jnp.zeros((len(images), LATENT)), 1.0) @ "z"
    bernoulli(network(param("decoder", DECODER), z)) @ "image"


@gen
def guide(images):
    normal.reparam(*encode(param("encoder", ENCODER), images)) @ "z"


# By hand.


def loss(key, params, images):
    loc, scale = encode(params["encoder"], images)
    noise = jax.random.normal(key, loc.shape)
    z = loc + scale * noise
    logits = network(params["decoder"], z)
    log_q = jnp.sum(-0.5 * noise**2 - jnp.log(scale))
    log_prior = jnp.sum(-0.5 * z**2)
    return log_q - log_prior - jnp.sum(images * logits - jax.nn.softplus(logits))


def products(key, params, images):
    """A loss whose gradient takes the same matrix products, and nothing else."""
    same = lambda x: x
    z = network(params["encoder"], images, same)[:, :LATENT]
    return 1e-6 * jnp.sum(network(params["decoder"], z, same) ** 2)


# Peers.


def numpyro_model(images):
    with numpyro.plate("batch", len(images)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
        logits = network(numpyro.param("decoder"), z)
        numpyro.sample("image", dist.Bernoulli(logits=logits).to_event(1), obs=images)


def numpyro_guide(images):
    with numpyro.plate("batch", len(images)):
        loc, scale = encode(numpyro.param("encoder"), images)
        numpyro.sample("z", dist.Normal(loc, scale).to_event(1))


def genjax_elbo(params, images):
    loc, scale = encode(params["encoder"], images)
    z = adev.normal_reparam(loc, scale)
    logits = network(params["decoder"], z)
    log_likelihood = jnp.sum(images * logits - jax.nn.softplus(logits))
    log_prior = jnp.sum(genjax.normal.logpdf(z, 0.0, 1.0))
    return log_likelihood + log_prior - jnp.sum(genjax.normal.logpdf(z, loc, scale))


def task(batch: int = 128) -> Task:
    keys = jax.random.split(jax.random.key(0))
    return Task(
        name=f"VAE 784-200-10, batch {batch}",
        sides={
            OURS: our_elbo(model, guide, lambda images: ({"image": images}, (images,))),
            BY_HAND: by_hand(loss),
            peers.TRACE: peers.by_numpyro(peers.TRACE, numpyro_model, numpyro_guide),
            peers.GENJAX: peers.by_genjax(genjax_elbo),
        },
        start={"encoder": ENCODER(keys[0]), "decoder": DECODER(keys[1])},
        data=jnp.asarray(load(batch)),
        learning_rate=1e-3,
        fit_steps=384,
        matrix_work=by_hand(products),
    )
