"""A latent equation for videos: a handwritten digit that wanders over a small canvas.

What moves the digits has memory: exact fractional Brownian motion of type II. The model sees
pixels only. Its latents are a code for the digit, and its place, which follows a stochastic
differential equation with fractional noise and learned drift, diffusion and Hurst index. All is
learned together from the videos, with an encoder that looks at them.

Source: Daems, Opper, Crevecoeur and Birdal (arXiv 2310.12975), section 5.3, with a smaller video.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ppl import density, gen, normal, param, sim, vi
from stdlib.digits import load_digits
from stdlib.fractional_sde import exact
from stdlib.fractional_sde.controls import (
    affine_control,
    affine_guidance,
    network,
    num_features,
)
from stdlib.fractional_sde.noise import FractionalNoise
from stdlib.fractional_sde.programs import SDE, path
from stdlib.fractional_sde.tasks import HURST

CANVAS, DIGIT = 16, 8
FRAMES, SUBSTEPS, DURATION = 20, 3, 2.0
TIMES = DURATION * np.arange(1, FRAMES + 1) / FRAMES
SHOWN = np.arange(1, FRAMES + 1) * SUBSTEPS - 1
NOISE = FractionalNoise("II", horizon=DURATION)

TRUE_HURST, REACH = 0.85, 3.0  # the motion's, and its standard deviation at the end, in pixels
PIXEL_NOISE, BLUR = 0.2, 0.6  # blur in pixels: so places between pixels are seen, too
CODE = 8

Video = Float[Array, "frames rows columns"]


# ---------------------------------------------------------------------------------- the programs


@gen
def model(learns):
    """A video: a digit, its place, how it moves, and what is seen of it."""
    code = normal(jnp.zeros(CODE), 1.0) @ "code"
    start = normal(jnp.zeros(2), 1.0) @ "start"
    result: Any = path(motion(learns))(start) @ "path"
    places = result[0]
    shades = jax.nn.sigmoid(param("decoder", network(CODE, DIGIT**2, 64))(code) - 2)
    screen = jax.vmap(paste, (None, 0))(shades.reshape(DIGIT, DIGIT), places[SHOWN])
    normal(screen, PIXEL_NOISE) @ "frames"
    return screen, places[SHOWN]


@gen
def guide(learns, frames):
    """What an encoder makes of a video: where the digit is in each frame, and how it looks."""
    seen = locate(frames)
    cuts = jnp.mean(jax.vmap(cut)(frames, seen), 0)
    code, log_scale = jnp.split(param("reader", network(DIGIT**2, 2 * CODE, 64))(cuts.ravel()), 2)
    normal.reparam(code, jnp.exp(log_scale - 1)) @ "code"
    begin = param("begin", jnp.zeros(FRAMES).at[0].set(1.0)) @ seen
    start = normal.reparam(begin, jnp.exp(param("unsure", -1.0))) @ "start"

    sde = motion(learns)
    features = num_features(NOISE, FRAMES)
    steer = param("control", jnp.zeros((sde.steps, features)).at[:, 0].set(0.8))
    narrow = param("narrow", jnp.full(sde.steps, -0.5))
    guidance = affine_guidance(sde, TIMES, seen, steer, narrow)

    def control(t: Array, x: Array, y: Array, inputs: Any) -> tuple[Array, Array]:
        u, spread = affine_control(t, x, y, inputs)
        state = jnp.concatenate([x, inputs.target - x, y.ravel()])
        return u + param("bend", network(len(state), 2, 16, quiet=True))(state), spread

    path(sde, control)(start, guidance) @ "path"


def motion(learns: Any) -> SDE:
    """The equation of the place, in pixels from the middle: plain Brownian motion (index 1/2, for
    which the approximation is exact) unless it learns its index."""

    def drift(x: Array, t: Array) -> Array:
        return param("drift", network(3, 2, 16, quiet=True))(jnp.append(x / REACH, t))

    def diffusion(x: Array, t: Array) -> Array:
        wiggle = jax.vmap(param("diffusion", network(1, 1, 8, quiet=True)))(x[:, None] / REACH)
        return jax.nn.softplus(1.0 + wiggle[:, 0])

    hurst = jnp.where(learns, param("hurst", 0.5, support=HURST), 0.5)
    return SDE(NOISE, hurst, FRAMES * SUBSTEPS, DURATION, drift, diffusion)


@vi.objective
def bound(learns, videos):
    """The mean evidence lower bound of a video."""
    return jnp.mean(jax.vmap(log_weight, in_axes=(None, 0))(learns, videos))


def log_weight(learns: Any, frames: Video) -> Array:
    """log p(video, latents) - log q(latents) of one draw of the guide."""
    latents, log_q = sim(guide)(learns, frames)
    return density(model)(latents | {"frames": frames}, learns) - log_q


def reconstruct(frames: Video) -> tuple[Video, Float[Array, "frames 2"]]:
    """The model's screens and places for a draw of the guide."""
    latents, _ = sim(guide)(True, frames)
    return model.assess(latents | {"frames": frames}, True)[1]


# ---------------------------------------------------------------------------- canvas and encoder


def paste(digit: Float[Array, "rows columns"], place: Float[Array, " 2"]) -> Array:
    """The canvas with a digit whose middle is at a place, in pixels from the canvas's middle."""
    rows, columns = _weights(place)
    return rows @ digit @ columns.T


def cut(frame: Float[Array, "rows columns"], place: Float[Array, " 2"]) -> Array:
    """What is on the canvas around a place: the transpose of `paste`."""
    rows, columns = _weights(place)
    return rows.T @ frame @ columns


def _weights(place: Array) -> Float[Array, "2 canvas digit"]:
    """What each pixel of the digit adds to the rows, and to the columns."""
    pixel, dot = jnp.arange(CANVAS) - (CANVAS - 1) / 2, jnp.arange(DIGIT) - (DIGIT - 1) / 2
    distance = pixel[:, None] - dot - place[:, None, None]
    return jnp.exp(-0.5 * (distance / BLUR) ** 2) / (BLUR * np.sqrt(2 * np.pi))


def locate(frames: Video) -> Float[Array, "frames 2"]:
    """Where a learned pattern fits best: the mean place under a softmax of its fit.

    The fit everywhere is a product with a matrix, of which the pattern's entries are the elements:
    on a canvas this small it is faster than a convolution.
    """
    bump = jnp.exp(-0.5 * (jnp.arange(PATTERN) - PATTERN // 2) ** 2 / 2.5**2)
    pattern = param("pattern", 0.8 * bump[:, None] * bump)
    fit = frames.reshape(len(frames), -1) @ jnp.append(pattern.ravel(), 0.0)[SHIFTED]
    here = jax.nn.softmax(fit).reshape(frames.shape)
    pixel = jnp.arange(CANVAS) - (CANVAS - 1) / 2
    return jnp.stack([here.sum(2) @ pixel, here.sum(1) @ pixel], 1)


def _shifted() -> np.ndarray:
    """For each pixel and each place: the pattern's entry there, or one past its last."""
    row, column = np.divmod(np.arange(CANVAS**2), CANVAS)
    down = row[:, None] - row + PATTERN // 2
    right = column[:, None] - column + PATTERN // 2
    inside = (np.minimum(down, right) >= 0) & (np.maximum(down, right) < PATTERN)
    return np.where(inside, down * PATTERN + right, PATTERN**2)


PATTERN = DIGIT + 1
SHIFTED = _shifted()


# -------------------------------------------------------------------------------------- the data


def make_videos(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Videos of scikit-learn's digits, and their true places `[videos, frames, 2]`.

    The digits of odd seeds are others than those of even ones.
    """
    rng = np.random.default_rng(seed)
    digits = load_digits()[0][seed % 2 :: 2] / 16
    covariance = exact.covariance("II", TRUE_HURST, TIMES)
    moves = rng.multivariate_normal(np.zeros(FRAMES), covariance, size=(count, 2))
    places = rng.standard_normal((count, 1, 2))
    places = places + REACH / np.sqrt(covariance[-1, -1]) * moves.swapaxes(1, 2)
    chosen = jnp.asarray(digits[rng.integers(len(digits), size=count)])
    screens = jax.vmap(jax.vmap(paste, (None, 0)))(chosen, jnp.asarray(places, jnp.float32))
    frames = np.asarray(screens) + PIXEL_NOISE * rng.standard_normal(screens.shape)
    return frames.astype(np.float32), places.astype(np.float32)
