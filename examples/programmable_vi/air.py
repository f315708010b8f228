"""Attend, infer, repeat (Eslami et al. 2016)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp

from examples.programmable_vi.scenes import CANVAS, DIGIT, cut, paste
from ppl import density, flip, gen, normal, param, sim, vi

STEPS, WHAT, WIDTH = 3, 10, 64
PRIOR = 0.05, 0.05**2.3, 0.05**5
NOISE = 0.3
# size, row, column
MIDDLE = (CANVAS - 1) / 2


def window(where):
    """Size, row and column of a window, from standard normal coordinates."""
    return jnp.stack([7.0 * jnp.exp(0.1 * where[0]), *(MIDDLE + 3.0 * where[1:])])


def network(inputs, outputs, depth=1, width=WIDTH):
    return lambda key: eqx.nn.MLP(inputs, outputs, width, depth, jax.nn.leaky_relu, key=key)


def draw(what):
    """The image of a digit."""
    decoder = param("decoder", network(WHAT, DIGIT * DIGIT))
    return jax.nn.sigmoid(decoder(what) - 2.0).reshape(DIGIT, DIGIT)


@gen
def model():
    canvas, more = jnp.zeros((CANVAS, CANVAS)), True
    for t in range(STEPS):
        more &= flip(PRIOR[t]) @ f"more{t}"
        where = normal.mask(more)(jnp.zeros(3), 1.0) @ f"where{t}"
        what = normal.mask(more)(jnp.zeros(WHAT), 1.0) @ f"what{t}"
        canvas += jnp.where(more, paste(draw(what), window(where)), 0.0)
    normal(canvas, NOISE) @ "image"
    return canvas


@gen
def guide(image):
    look = param("look", network(CANVAS * CANVAS // 4, 7, 2))
    read = param("read", network(DIGIT * DIGIT, 2 * WHAT))
    rest, more = image, True
    for t in range(STEPS):
        seen = look(rest.reshape(CANVAS // 2, 2, CANVAS // 2, 2).mean((1, 3)).reshape(-1))
        p = jnp.clip(jax.nn.sigmoid(seen[0]), 1e-4, 1 - 1e-4)
        more &= flip(jnp.where(more, p, PRIOR[t])) @ f"more{t}"
        where = normal.mask(more)(seen[1:4], jax.nn.softplus(seen[4:7] - 1)) @ f"where{t}"
        loc, scale = jnp.split(read(cut(rest, window(where)).reshape(-1)), 2)
        what = normal.mask(more)(loc, jax.nn.softplus(scale)) @ f"what{t}"
        if t + 1 < STEPS:
            rest -= jnp.where(more, paste(draw(what), window(where)), 0.0)


@vi.objective
def elbo(images):
    def one(image):
        z, log_q = sim(guide)(image)
        return density(model)(z | {"image": image}) - log_q

    return jnp.mean(jax.vmap(one)(images))
