"""A variational autoencoder of handwritten digits: networks as parameters of programs.

The images are scikit-learn's digits: 8 x 8 pixels, each the number (0 to 16) of dark dots in a
square of 4 x 4, so each pixel is binomial. Model and guide are programs for one image with Equinox
networks in them; `plate` makes them programs for all images.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples._report import run_as_script
from ppl import bind_params, binomial, gen, normal, param, plate, seed, vi
from stdlib.report import OUTPUTS, console, print_table, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS, DOTS, LATENT, WIDTH = 64, 16, 10, 128


def network(inputs: int, outputs: int):
    """A multilayer perceptron, as a function of the key that its weights are drawn with."""
    return lambda key: eqx.nn.MLP(inputs, outputs, WIDTH, 2, jax.nn.gelu, key=key)


@gen
def model(_):
    z = normal(jnp.zeros(LATENT), 1.0) @ "z"
    decoder = param("decoder", network(LATENT, PIXELS))
    logits = param("background", jnp.zeros(PIXELS)) + decoder(z)
    binomial(DOTS, logits) @ "pixels"
    return jax.nn.sigmoid(logits)  # the expected darkness


@gen
def guide(image):
    encoder = param("encoder", network(PIXELS, 2 * LATENT))
    loc, scale = jnp.split(encoder(image / DOTS - 0.5), 2)
    normal(loc, jax.nn.softplus(scale)) @ "z"


def bound(images):
    """The evidence lower bound of all images."""
    return vi.elbo(plate(model), plate(guide), observed={"pixels": images}, args=(images,))


@dataclass(frozen=True)
class Result:
    """What was found.

    Attributes:
        fit: the fit.
        train, test: images, one per row; the latter are not seen by the fit.
        labels: the digits that the latter show.
        train_elbo, test_elbo: per image, in nats.
        baseline: log-probability of a test image, in nats, if pixels were independent.
    """

    fit: vi.Fit
    train: np.ndarray
    test: np.ndarray
    labels: np.ndarray
    train_elbo: float
    test_elbo: float
    baseline: float


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images to learn from, images to test with, and the digits that these show."""
    from sklearn.datasets import load_digits

    images, labels = map(np.asarray, load_digits(return_X_y=True))
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order].astype(np.float32), labels[order]
    return images[:1500], images[1500:], labels[1500:]


def independent_pixels(train: np.ndarray, test: np.ndarray) -> float:
    """Mean log-probability of a test image by each pixel's own histogram of values, in nats."""
    counts = np.stack([(train == value).sum(0) for value in range(DOTS + 1)]) + 0.5
    log_probs = np.log(counts / counts.sum(0))
    return float(log_probs[test.astype(int), np.arange(PIXELS)].sum(1).mean())


def run(quick: bool = False) -> Result:
    """Train on 1,500 images, and test with the other 297."""
    train, test, labels = load()
    steps = 300 if quick else 1_000
    mean = (train.mean(0) + 0.1) / (DOTS + 0.2)
    fit = vi.fit(
        bound(train),
        steps=steps,
        optimizer=optax.adam(optax.cosine_decay_schedule(8e-3 if quick else 5e-3, steps)),
        params={"background": np.log(mean / (1 - mean))},
    )
    return Result(
        fit=fit,
        train=train,
        test=test,
        labels=labels,
        train_elbo=fit.elbo(10).mean / len(train),
        test_elbo=fit.elbo(10, data=bound(test).data).mean / len(test),
        baseline=independent_pixels(train, test),
    )


def reconstruct(fit: vi.Fit, images: np.ndarray) -> np.ndarray:
    """Expected images given a draw of each image's latent variables."""

    def program(images: Any) -> Any:
        choices = plate(guide).simulate(images).get_choices()
        trace, _ = plate(model).generate(choices, images)
        return trace.get_retval()

    return jax.jit(seed(bind_params(program, fit.params)))(jax.random.key(2), images)


def imagine(fit: vi.Fit, n: int) -> np.ndarray:
    """Expected images for latent variables from the prior."""
    many = plate(model, size=n, in_axes=None)
    program = lambda: many.simulate(None).get_retval()
    return jax.jit(seed(bind_params(program, fit.params)))(jax.random.key(3))


def report(result: Result) -> None:
    """Print what was found."""
    console.print(result.fit.explain())
    rows = [
        ["training images", f"{result.train_elbo:.1f}"],
        ["held-out images", f"{result.test_elbo:.1f}"],
        ["held-out images, pixels independent", f"{result.baseline:.1f}"],
    ]
    print_table("Log-probability of an image, lower bound", ["", "nats"], rows)


def figure(result: Result) -> Figure:
    """Held-out images, their reconstructions, and images from the prior."""
    from matplotlib.figure import Figure

    chosen = [int(np.flatnonzero(result.labels == digit)[0]) for digit in range(10)]
    originals = result.test[chosen]
    blocks = [
        ("held-out images", originals / DOTS),
        ("reconstructed", reconstruct(result.fit, originals)),
        ("from the prior", imagine(result.fit, 40)),
    ]
    figure = Figure(figsize=(7, 5), layout="constrained")
    heights = [len(images) for _, images in blocks]
    axes = figure.subplots(len(blocks), height_ratios=heights)
    for ax, (title, images) in zip(axes, blocks, strict=True):
        ax.imshow(mosaic(images), cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(title, loc="left")
        ax.set_axis_off()
    return figure


def mosaic(images: np.ndarray, columns: int = 10, gap: int = 1) -> np.ndarray:
    """Images side by side, in rows."""
    tiles = np.pad(images.reshape(-1, columns, 8, 8), ((0, 0), (0, 0), (gap, gap), (gap, gap)))
    rows, _, height, width = tiles.shape
    return tiles.swapaxes(1, 2).reshape(rows * height, columns * width)


def main(quick: bool = False, folder: Path = OUTPUTS) -> Result:
    """Fit, print, plot."""
    start = time.perf_counter()
    result = run(quick)
    report(result)
    console.print(f"time: {time.perf_counter() - start:.0f} s, {result.fit.steps} steps")
    save_figure(figure(result), "vae_digits", folder)
    return result


if __name__ == "__main__":
    run_as_script(main, __doc__)
