"""The streams of a program's choices, for both counter-based generators.

Keys of choices differ from each other in bits that are XORed in, so what could go wrong is that
related keys give related numbers. 4,096 streams of 256 numbers; each statistic is a sum of so many
terms that it is normal, |z| < 5.5 (false-alarm rate 4e-8 each). They would show a bias of 0.6 % of
a standard deviation in the mean, 0.8 % in the variance, and a correlation of 0.6 % between
neighbouring streams.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.lang.keys import choice_key, key_beside, sample_keys

STREAMS, LENGTH, Z_BOUND = 4_096, 256, 5.5
GENERATORS = ("threefry2x32", "philox4x32")


def keys_of_steps(base):
    """One address in a loop."""
    return jax.vmap(lambda n: choice_key(base, "chain/x", n))(jnp.arange(STREAMS))


def keys_of_addresses(base):
    """64 addresses in each of 64 steps, the addresses next to each other."""
    steps = jnp.arange(STREAMS // 64)
    each = [jax.vmap(lambda n, i=i: choice_key(base, f"x{i}", n))(steps) for i in range(64)]
    return jnp.stack(each, 1).reshape(STREAMS)


def keys_of_samples(base):
    return jax.vmap(lambda k: choice_key(k, "x", 0))(sample_keys(base, STREAMS))


def keys_of_steps_and_alternates(base):
    pair = lambda n: (k := choice_key(base, "x", n), key_beside(k, "loc"))
    return jnp.stack(jax.vmap(pair)(jnp.arange(STREAMS // 2)), 1).reshape(STREAMS)


def z_scores(x: np.ndarray) -> dict[str, float]:
    """Of standard normal numbers `[stream, position]`."""
    n = x.size
    mean = lambda values, sd: float(np.mean(values) * np.sqrt(np.size(values)) / sd)
    z = {
        "mean": mean(x, 1),
        "variance": mean(x**2 - 1, np.sqrt(2)),
        "third moment": mean(x**3, np.sqrt(15)),
        "fourth moment": mean(x**4 - 3, np.sqrt(96)),
    }
    for lag in (1, 2, 64):
        z[f"streams {lag} apart"] = mean(x[lag:] * x[:-lag], 1)
        z[f"positions {lag} apart"] = mean(x[:, lag:] * x[:, :-lag], 1)
        z[f"squares of streams {lag} apart"] = mean((x[lag:] ** 2 - 1) * (x[:-lag] ** 2 - 1), 2)
    # Means of streams, and of positions, are as dispersed as those of independent numbers.
    for axis, what in ((1, "streams"), (0, "positions")):
        means = x.mean(axis) * np.sqrt(x.shape[axis])
        z[f"means of {what}"] = mean(means**2 - 1, np.sqrt(2))
    counts = np.bincount(np.clip(((x + 4) * 32).astype(int), 0, 255).ravel(), minlength=256)
    edges = (np.arange(1, 256) / 32) - 4
    cdf = np.concatenate([[0], np.asarray(jax.scipy.stats.norm.cdf(edges), float), [1]])
    expected = np.diff(cdf) * n
    chi2 = np.sum((counts - expected) ** 2 / expected)
    z["histogram"] = float((chi2 - 255) / np.sqrt(2 * 255))
    return z


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize(
    "streams", [keys_of_steps, keys_of_addresses, keys_of_samples, keys_of_steps_and_alternates]
)
def test_streams_are_independent(streams, generator):
    keys = jax.jit(streams)(jax.random.key(0, impl=generator))
    assert jax.random.key_impl(keys) == generator
    words = np.asarray(jax.random.key_data(keys))
    assert len(np.unique(words, axis=0)) == STREAMS
    draw = jax.jit(jax.vmap(lambda k: jax.random.normal(k, (LENGTH,))))
    found = z_scores(np.asarray(draw(keys), np.float64))
    assert {k: v for k, v in found.items() if abs(v) > Z_BOUND} == {}


def test_related_streams_are_noticed():
    """The test of the test: every other stream repeats 5 % of the one before."""
    x = np.random.default_rng(0).normal(size=(STREAMS, LENGTH))
    x[1::2] = 0.05 * x[::2] + np.sqrt(1 - 0.05**2) * x[1::2]
    assert abs(z_scores(x)["streams 1 apart"]) > Z_BOUND


def test_bits_of_near_keys_differ_by_half():
    """Avalanche: seeds that differ in one bit. 32 x 4,096 bits: a bias of 0.8 % would show."""
    for generator in GENERATORS:
        base = jax.random.key_data(jax.random.key(5, impl=generator))
        near = jnp.stack([base.at[0].set(base[0] ^ np.uint32(1 << b)) for b in range(32)])
        bits = jax.vmap(
            lambda w, generator=generator: jax.random.bits(
                jax.random.wrap_key_data(w, impl=generator), (128,)
            )
        )
        flipped = np.unpackbits(np.asarray(bits(near) ^ bits(base[None])).view(np.uint8))
        assert abs(flipped.mean() - 0.5) < Z_BOUND * 0.5 / np.sqrt(flipped.size)


@pytest.mark.parametrize("generator", ["rbg", "threefry4x32", "philox2x32"])
def test_other_generators_fold_in(generator):
    base = jax.random.key(0, impl=generator)
    keys = [choice_key(base, "x", 0), choice_key(base, "x", 1), choice_key(base, "y", 0)]
    draws = {float(jax.random.normal(k)) for k in keys}
    assert len(draws) == 3
