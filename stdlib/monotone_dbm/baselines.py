"""What the machine is held against: logistic regression, and a restricted Boltzmann machine.

The regression sees the pixels with those that are not seen set to 0, and which are seen; it
predicts every pixel and the label. The RBM is trained by contrastive divergence; its marginals
given a part of the pixels are those of its (block-wise) mean field.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ppl import categorical, density, fixed_point, flip, frozen, gen, param, sim, vi
from ppl.vi import Objective
from stdlib.monotone_dbm.programs import corruption


def features(images: Array, seen: Array) -> Array:
    """What the regression sees."""
    return jnp.concatenate([jnp.where(seen, 2.0 * images - 1, 0.0), seen], -1)


def regress(images: Array, seen: Array) -> tuple[Array, Array]:
    """Logits of the pixels and of the labels."""
    x, pixels = features(images, seen), images.shape[-1]
    linear = lambda name, k: (
        x @ param(name, jnp.zeros((2 * pixels, k))) + param(f"{name} 0", jnp.zeros(k))
    )
    return linear("to pixels", pixels), linear("to labels", 10)


@gen
def regression(images: Array, seen: Array):
    pixels, labels = regress(images, seen)
    flip.mask(~seen)(jax.nn.sigmoid(pixels)) @ "pixels"
    categorical(labels) @ "label"


def regression_objective(keep: float = 0.4) -> Objective:
    """The log-density of the pixels that are not seen and of the labels."""

    @vi.objective
    def logistic_regression(images: Array, labels: Array) -> Array:
        seen = sim(corruption)(images.shape, keep)[0]["seen"]
        given = {"pixels": images == 1, "label": labels}
        return density(regression)(given, images, seen) / len(images)

    return logistic_regression


class Restricted:
    """A restricted Boltzmann machine of pixels and a label; its parameters are of the language."""

    def __init__(self, hidden: int, pixels: int = 64, labels: int = 10):
        self.hidden, self.pixels, self.labels = hidden, pixels, labels

    def parameters(self) -> tuple[Array, ...]:
        """(weights to hidden, their bias, bias of pixels and labels)."""
        shape = (self.pixels + self.labels, self.hidden)
        start = lambda key: 0.05 * jax.random.normal(key, shape)
        return (
            param("weights", start),
            param("hidden bias", jnp.zeros(shape[1])),
            param("visible bias", jnp.zeros(shape[0])),
        )

    def visible(self, images: Array, labels: Array) -> Array:
        return jnp.concatenate([1.0 * images, jax.nn.one_hot(labels, self.labels)], -1)

    def log_weight(self, visible: Array) -> Array:
        """The unnormalised log-density of visible nodes (minus the free energy)."""
        weights, hidden, bias = self.parameters()
        return visible @ bias + jnp.sum(jax.nn.softplus(visible @ weights + hidden), -1)

    def reconstruction(self, visible: Array) -> Array:
        """One step of Gibbs sampling, drawn anew."""
        weights, hidden, bias = self.parameters()
        h = flip.score.sample(jax.nn.sigmoid(visible @ weights + hidden))
        logits = h @ weights.T + bias
        pixels = flip.score.sample(jax.nn.sigmoid(logits[..., : self.pixels]))
        return self.visible(pixels, categorical.score.sample(logits[..., self.pixels :]))

    def objective(self) -> Objective:
        """Contrastive divergence: the draws are taken as they are, `frozen`."""

        @vi.objective
        def contrastive_divergence(images: Array, labels: Array) -> Array:
            data = self.visible(images, labels)
            drawn = frozen(self.reconstruction)(data)
            return jnp.mean(self.log_weight(data) - self.log_weight(drawn))

        return contrastive_divergence

    def predict(self, image: Array, seen: Array) -> tuple[Array, Array]:
        """Logits of the pixels and of the label, at the mean field given the pixels seen."""
        weights, hidden, bias = self.parameters()

        def logits(v: Array) -> Array:
            return jax.nn.sigmoid(v @ weights + hidden) @ weights.T + bias

        def step(v: Array) -> Array:
            y = logits(v)
            pixels = jnp.where(seen, image, jax.nn.sigmoid(y[: self.pixels]))
            return jnp.concatenate([pixels, jax.nn.softmax(y[self.pixels :])])

        start = jnp.concatenate(
            [jnp.where(seen, image, 0.5), jnp.full(self.labels, 1 / self.labels)]
        )
        v = fixed_point(step, start, tol=1e-4, max_steps=200, strict=False).value
        y = logits(v)
        return y[: self.pixels], y[self.pixels :]
