"""What the compiled gradient costs beside one written by hand: the paper's variational autoencoder.

Both are `jit`-compiled functions of a key, the parameters and a batch of images; each call is
waited for. Calls alternate, and the ratio is the median of the ratios within pairs, so that other
work on the machine slows both alike.

Source: Becker et al. (arXiv 2406.15742), table 1: 28 x 28 pixels, an encoder of 784-200-(10, 10)
and a decoder of 10-200-784 units, leaky rectifiers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Ratios, interleave
from examples._report import run_as_script
from ppl import bernoulli, gen, normal, param, vi
from stdlib.report import OUTPUTS, print_table

PIXELS, HIDDEN, LATENT = 784, 200, 10
PAPER = {  # batch: milliseconds (ours, by hand), on its GPU
    64: (0.11, 0.09),
    128: (0.22, 0.16),
    256: (0.31, 0.29),
    512: (0.56, 0.54),
    1024: (1.58, 1.07),
}


def load(n: int) -> np.ndarray:
    """`n` digits of scikit-learn, enlarged to 28 x 28 and binarised: `[n, 784]`."""
    from sklearn.datasets import load_digits

    small = np.asarray(load_digits(return_X_y=True)[0])[:n].reshape(n, 8, 8) / 16
    large = jax.image.resize(small, (n, 28, 28), "linear")
    return np.asarray(large > 0.5, np.float32).reshape(n, PIXELS)


# What both sides share: the networks.


def layers(*sizes: int) -> Callable[[Any], Any]:
    """Weights of a network, as a function of a key."""

    def init(key: Any) -> Any:
        keys = jax.random.split(key, len(sizes) - 1)
        return [
            (jax.random.normal(k, (m, n)) / math.sqrt(m), jnp.zeros(n))
            for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
        ]

    return init


def network(layers: Any, x: Any) -> Any:
    (w1, b1), (w2, b2) = layers
    return jax.nn.leaky_relu(x @ w1 + b1) @ w2 + b2


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


def ours(images: Any) -> tuple[Callable[..., Any], Any]:
    """The gradient as a function of key, parameters and images; and parameters."""
    estimator = vi.compile(vi.elbo(model, guide, observed={"image": images}, args=(images,)))

    def gradient(key, params, images):
        return estimator.value_and_grad(key, params, {"image": images}, (images,))

    return jax.jit(gradient), estimator.init(jax.random.key(0))


# By hand.


def by_hand(images: Any) -> tuple[Callable[..., Any], Any]:
    """The same."""

    def elbo(params, key, images):
        loc, scale = encode(params["encoder"], images)
        noise = jax.random.normal(key, loc.shape)
        z = loc + scale * noise
        logits = network(params["decoder"], z)
        log_q = jnp.sum(-0.5 * noise**2 - jnp.log(scale))
        log_prior = jnp.sum(-0.5 * z**2)
        return jnp.sum(images * logits - jax.nn.softplus(logits)) + log_prior - log_q

    gradient = lambda key, params, images: jax.value_and_grad(elbo)(params, key, images)
    keys = jax.random.split(jax.random.key(0))
    return jax.jit(gradient), {"encoder": ENCODER(keys[0]), "decoder": DECODER(keys[1])}


def timed(side: tuple[Callable[..., Any], Any], images: Any, calls: int) -> Callable:
    """Seconds per call: (wall, processor)."""
    gradient, params = side
    key = jax.random.key(1)

    def run() -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            jax.block_until_ready(gradient(key, params, images))
        return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls

    return run


@dataclass(frozen=True)
class Result:
    """Pairs of times by batch size."""

    times: dict[int, Ratios]

    def ratio(self, batch: int) -> float:
        return float(np.median(self.times[batch].ratios))


def run(quick: bool = False) -> Result:
    """Time both sides at each batch size; at the smallest only, and shortly, if `quick`."""
    times = {}
    for batch in [64] if quick else PAPER:
        images = jnp.asarray(load(batch))
        calls = max(1, 512 // batch)
        sides = [timed(side(images), images, calls) for side in (ours, by_hand)]
        times[batch], _ = interleave(sides[0], sides[1], 6 if quick else 40)
    return Result(times)


def report(result: Result) -> None:
    """Print what was found, beside the paper's figures."""
    rows = []
    for batch, times in result.times.items():
        summary, (paper, paper_hand) = times.summary(), PAPER[batch]
        rows.append(
            [
                batch,
                f"{1e3 * summary['ours']:.2f}",
                f"{1e3 * summary['by_hand']:.2f}",
                f"{summary['ratio']:.2f}",
                "{ratio_low:.2f}, {ratio_high:.2f}".format(**summary),
                f"{paper:.2f}",
                f"{paper_hand:.2f}",
                f"{paper / paper_hand:.2f}",
            ]
        )
    header = ["batch", "ours", "by hand", "ratio", "quartiles", "paper: ours", "by hand", "ratio"]
    print_table("One gradient of the autoencoder, in ms (table 1)", header, rows)


def main(quick: bool = False, folder: Path = OUTPUTS) -> Result:
    """Time, print."""
    del folder
    result = run(quick)
    report(result)
    return result


if __name__ == "__main__":
    run_as_script(main, __doc__)
