"""Attend, infer, repeat: how many digits are there, where, and which?

The model looks at nothing: it flips, up to three times, whether there is one more digit, draws its
window and its code, and pastes what a decoder makes of the code onto the canvas. The guide looks at
the canvas, decides whether there is something to see, and where, reads it, and erases it. All
networks are learned together from the canvases alone; nobody says how many digits there are.

Windows and codes are reparameterised. How the gradient gets past "one more?" is the experiment:
summed out, by measure-valued derivatives, by the score function, a mix of them, under the evidence
lower bound, the importance-weighted one, and reweighted wake-sleep. The programs stay as they are.

Sources: Eslami et al. (arXiv 1603.08575); Becker et al. (arXiv 2406.15742), figure 7 and table 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp

from examples.programmable_vi.scenes import CANVAS, DIGIT, cut, paste
from ppl import flip, gen, normal, param, vi

if TYPE_CHECKING:
    pass

LOOKS, CODE, WIDTH = 3, 10, 64
MORE = 0.05, 0.05**2.3, 0.05**5  # probabilities a priori of one more digit, as in the paper
NOISE = 0.15  # the paper has 0.3, and 6 times as many pixels in a digit
BATCH = 32


# -------------------------------------------------------------------------------- the programs


def network(inputs: int, outputs: int, depth: int = 1):
    """A multilayer perceptron, as a function of the key that its weights are drawn with."""
    return lambda key: eqx.nn.MLP(inputs, outputs, WIDTH, depth, jax.nn.leaky_relu, key=key)


def window(where):
    """Size, row and column, in pixels, from coordinates that are standard normal a priori."""
    size, middle = 7.0 * jnp.exp(0.1 * where[0]), (CANVAS - 1) / 2
    return jnp.stack([size, middle + 3.0 * where[1], middle + 3.0 * where[2]])


@gen
def model():
    decoder = param("decoder", network(CODE, DIGIT * DIGIT))
    canvas, there = jnp.zeros((CANVAS, CANVAS)), True
    for i in range(LOOKS):
        there &= flip(MORE[i]) @ f"more{i}"
        where = normal.mask(there)(jnp.zeros(3), 1.0) @ f"where{i}"
        code = normal.mask(there)(jnp.zeros(CODE), 1.0) @ f"code{i}"
        image = jax.nn.sigmoid(decoder(code) - 2.0).reshape(DIGIT, DIGIT)
        canvas += jnp.where(there, paste(image, window(where)), 0.0)
    normal(canvas, NOISE) @ "canvas"
    return canvas


@gen
def guide(canvas):
    look = param("look", network(CANVAS * CANVAS // 4, 7, depth=2))
    read = param("read", network(DIGIT * DIGIT, 2 * CODE))
    there = True
    for i in range(LOOKS):
        seen = look(halved(canvas).reshape(-1))
        more = jnp.clip(jax.nn.sigmoid(seen[0]), 1e-4, 1 - 1e-4)
        # After the last digit the flips mean nothing: then they are as in the model.
        there &= flip(jnp.where(there, more, MORE[i])) @ f"more{i}"
        where = normal.mask(there)(seen[1:4], jax.nn.softplus(seen[4:] - 1)) @ f"where{i}"
        loc, scale = jnp.split(read(cut(canvas, window(where)).reshape(-1)), 2)
        normal.mask(there)(loc, jax.nn.softplus(scale)) @ f"code{i}"
        canvas *= 1 - paste(jnp.ones((DIGIT, DIGIT)), window(where))


def halved(canvas):
    return canvas.reshape(CANVAS // 2, 2, CANVAS // 2, 2).mean((1, 3))


def per_canvas(bound: Callable[..., vi.Objective], **options: Any) -> vi.Objective:
    """The mean of an objective over canvases, each with particles of its own."""

    def objective(canvases):
        def one(canvas):
            data = {"canvas": canvas}
            program = bound(model, guide, observed=data, guide_args=(canvas,), **options)
            return program(*program.data)

        return jnp.mean(jax.vmap(one)(canvases))

    return vi.objective(objective)
