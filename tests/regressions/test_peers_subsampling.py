"""Subsampled and scaled plates, whose score terms NumPyro 0.22 scales twice.

`TraceGraph_ELBO` multiplies the score term by the plate's scale once too often, and
`TraceEnum_ELBO` draws other indices for the guide than for the model. Here the indices are data,
shared by both. The numbers that NumPyro got stand beside each program.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from ppl.compiler import compile
from ppl.lang import density, flip, gen, normal, param, plate, positive, sim
from tests.compiler.exact import check_draws

YS = np.array([-0.5, 2.0], np.float32)
MORE = np.array([-0.5, 2.0, 1.0, 0.3], np.float32)


def number(bit):
    return jnp.asarray(bit).astype(float)


@gen
def point():
    z = normal(0.0, 1.0) @ "z"
    normal(z, 1.0) @ "x"


def elbo(strategy, ys, total):
    """Of z ~ N(0, 1), x ~ N(z, 1) for the observations `indices`; q(z) = N(loc, scale)."""

    @gen
    def local(loc, scale):
        normal.via(strategy)(loc, scale) @ "z"

    def objective(indices):
        loc = param("loc", jnp.zeros(len(ys)))[indices]
        scale = param("scale", 1.0, support=positive)
        z, log_q = sim(plate(local, in_axes=(0, None), total=total))(loc, scale)
        choices = {**z, "x": jnp.asarray(ys)[indices]}
        return density(plate(point, size=len(indices), total=total))(choices) - log_q

    return objective


def check_subsampled(objective, size, whole, exact, **options):
    """With a uniform subsample drawn anew for each gradient."""
    est = compile(objective)
    params = est.init(jax.random.key(0), jnp.arange(size))

    def draw(key):
        first, second = jax.random.split(key)
        indices = jax.random.choice(first, whole, (size,), replace=False)
        return est.value_and_grad(second, params, indices)

    check_draws(draw, exact, **options)


@pytest.mark.parametrize("strategy", ["score", "reparam"])
@pytest.mark.parametrize("size", [2, 1])
def test_subsampled_plate(size, strategy):
    """NumPyro's TraceGraph_ELBO at size 1, exact [-.5, 2] and -2: [-1.004, 3.976] and -3.96."""
    exact = {"loc": YS, "scale": np.array(-2.0)}
    check_subsampled(elbo(strategy, YS, 2), size, 2, exact)


@pytest.mark.parametrize("strategy", ["score", "reparam"])
def test_scaled_plate(strategy):
    """NumPyro's TraceGraph_ELBO under scale(3), exact [-1.5, 6] and -6: [-4.50, 18.0], -17.5."""
    exact = {"loc": 3 * YS, "scale": np.array(-6.0)}
    check_subsampled(elbo(strategy, YS, 6), 2, 2, exact)


@pytest.mark.parametrize("strategy", ["score", "reparam"])
def test_subsample_of_four(strategy):
    """NumPyro's TraceEnum_ELBO, exact [-.5 2 1 .3]: [.67 .71 .67 .63], since guide and model draw
    different indices."""
    check_subsampled(elbo(strategy, MORE, 4), 2, 4, {"loc": MORE})


@pytest.mark.parametrize("strategy", ["score", "enum", None])
def test_subsample_of_bernoulli_latents(strategy):
    """NumPyro's TraceGraph_ELBO with two of four such latents: -0.632 +- 0.008 for -0.318."""
    l = 0.3
    site = flip if strategy is None else flip.via(strategy)

    @gen
    def local(p):
        site(p) @ "b"

    @gen
    def point():
        b = flip(0.5) @ "b"
        normal(number(b), 1.0) @ "x"

    def objective(indices):
        p = jax.nn.sigmoid(param("theta", l))
        b, log_q = sim(plate(local, size=2, in_axes=None, total=4))(p)
        choices = {**b, "x": jnp.asarray(MORE)[indices]}
        return density(plate(point, size=2, total=4))(choices) - log_q

    exact = expit(l) * expit(-l) * np.sum(MORE - 0.5 - l)
    check_subsampled(objective, 2, 4, exact, bias=0.1)
